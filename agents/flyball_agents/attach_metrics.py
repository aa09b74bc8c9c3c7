"""A receiver's numbers for Prometheus, where a process has a page: the same names for engines and gateways.

Apart from the receiver itself, for an engine's environment may have no `prometheus_client`.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flyball_agents.attaching import Attacher, AttachState

_LABELS = ("target",)
_TOTALS: dict[str, tuple[str, Callable[[Attacher], int]]] = {
    "streams": ("Attach streams opened.", lambda one: one.status.streams),
    "streams_renewed": ("Streams exchanged for renewed certificates.", lambda one: one.status.renewals),
    "attaches_refused": ("Attaches that a controller refused.", lambda one: one.status.refusals),
    "streams_silent": ("Streams left because nothing came on them.", lambda one: one.status.silences),
    "attach_failures": ("Streams that ended, and places not reached.", lambda one: one.status.failures),
    "surface_failures": ("Calls on the engine or gateway that raised.", lambda one: one.status.troubles),
    "heartbeats": ("Heartbeats heard.", lambda one: one.conversation.counts.heartbeats),
    "renewals": ("Heartbeats that renewed the lease.", lambda one: one.conversation.counts.renewals),
    "rebases": ("Rebases followed.", lambda one: one.conversation.counts.rebases),
    "messages_unreadable": ("Messages that could not be read.", lambda one: one.conversation.counts.unreadable),
}


class AttachMetrics(Collector):
    """The numbers of the receivers of one process; register it with a registry."""

    def __init__(self, attachers: Sequence[Attacher]) -> None:
        self._attachers = {attacher.conversation.receiver.target.name: attacher for attacher in attachers}

    def collect(self) -> Iterator[Metric]:
        """All families, as they stand now."""
        state = GaugeMetricFamily(
            "flyball_receiver_attach_state", "1 for the state that the receiver is in.", labels=("target", "state")
        )
        lease = GaugeMetricFamily(
            "flyball_receiver_lease_seconds", "Seconds until easing unless the lease is renewed.", labels=_LABELS
        )
        answers = CounterMetricFamily(
            "flyball_receiver_acks", "Answers to directives and tables, by status.", labels=("target", "status")
        )
        for name, attacher in self._attachers.items():
            for one in AttachState:
                state.add_metric((name, one.value), attacher.status.state is one)
            lease.add_metric((name,), attacher.lease_s())
            for status, number in attacher.conversation.counts.acks.items():
                answers.add_metric((name, status.value), number)
        yield from (state, lease, answers)
        yield from self._totals()

    def _totals(self) -> Iterator[Metric]:
        for name, (help_, read) in _TOTALS.items():
            family = CounterMetricFamily(f"flyball_receiver_{name}", help_, labels=_LABELS)
            for target, attacher in self._attachers.items():
                family.add_metric((target,), read(attacher))
            yield family
