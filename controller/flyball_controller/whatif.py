"""What another policy document would have decided on recorded telemetry.

An open loop: the telemetry is what it was, so this shows what would have been decided,
not what would have become of it. Receivers are taken to do as they are told: recorded
answers are left out, and each directive or table of the replay is answered at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flyball_controller.machine import PartitionState, Seams, step
from flyball_controller.replay import stepped
from flyball_core.ids import Incarnation
from flyball_core.inputs import Ack, AckStatus, Attach, Input, Intent, Malformed, Order, PolicyText, TargetKind
from flyball_core.knobs import VARIANT, Value
from flyball_core.outputs import DecisionRecord, Directive, Output, RecordKind, RoutingTable, TickRecord
from flyball_log.interface import Log, Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One decided change of one knob."""

    pool: str
    target: str
    knob: str
    old: Value | None
    new: Value | None
    time_s: float
    rule: str


@dataclass(slots=True)
class Course:
    """What one policy document decided over a log."""

    changes: list[Change] = field(default_factory=list)
    stopped: dict[str, int] = field(default_factory=dict)
    """How often each rule of the guard stopped a proposal."""
    regimes: list[tuple[str, float, str]] = field(default_factory=list)
    """Pool, time in seconds, and the regime that began there."""
    settings: dict[str, dict[str, Value]] = field(default_factory=dict)
    """Last decided value per target and knob."""

    def take(self, outputs: list[Output]) -> None:
        """Add what one tick answered."""
        for output in outputs:
            if isinstance(output, TickRecord):
                known = next((name for pool, _, name in reversed(self.regimes) if pool == output.pool), None)
                if known != output.regime:
                    self.regimes.append((output.pool, output.time_s, output.regime))
            elif isinstance(output, DecisionRecord) and output.kind is RecordKind.DECISION:
                self._take_decision(output)

    def _take_decision(self, record: DecisionRecord) -> None:
        for verdict in record.verdicts:
            if verdict.allowed is None:
                self.stopped[verdict.rule] = self.stopped.get(verdict.rule, 0) + 1
                continue
            wish = verdict.proposal
            self.settings.setdefault(wish.target, {})[wish.knob] = verdict.allowed
            self.changes.append(
                Change(
                    pool=record.pool,
                    target=wish.target,
                    knob=wish.knob,
                    old=verdict.before,
                    new=verdict.allowed,
                    time_s=record.time_s,
                    rule=verdict.rule,
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The recorded course beside the one under the other document."""

    recorded: Course
    other: Course
    first_apart_s: float | None
    """The machine's time of the first change that only one of them has; None if there is none."""


async def compare_policies(log: Log, policy_text: str, new_seams: Callable[[], Seams]) -> Comparison:
    """Both courses over the whole log. The other document governs every pool that has orders."""
    recorded, other = Course(), Course()
    for partition in range(log.partitions):
        if (await log.bounds(Topic.INPUTS, partition)).end == 0:
            continue
        async for _, _, outputs in stepped(log, partition, new_seams()):
            recorded.take(outputs)
        seams = new_seams()
        exchange = _Exchange(policy_text)
        async for item, state, outputs in stepped(log, partition, seams, exchange.exchanged):
            other.take(outputs)
            for answer in exchange.answers(outputs):
                other.take(step(state, Input(item.offset, 0, answer), seams))
    mine = [(c.time_s, c.target, c.knob, c.new) for c in recorded.changes]
    theirs = [(c.time_s, c.target, c.knob, c.new) for c in other.changes]
    apart = sorted(set(mine) ^ set(theirs), key=str)
    first = min((entry[0] for entry in apart), default=None)
    return Comparison(recorded=recorded, other=other, first_apart_s=first)


class _Exchange:
    """Puts the other document in the place of the recorded one, and answers for receivers."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._incarnations: dict[str, Attach] = {}

    def exchanged(self, item: Input) -> Input:
        """The input as the other course sees it."""
        body = item.body
        if isinstance(body, PolicyText):
            return item._replace(body=PolicyText(pool=body.pool, text=self._text, author=body.author))
        if isinstance(body, Intent):
            return item._replace(body=replace(body, policy_text=self._text))
        if isinstance(body, Order) and body.mode is not None:
            return item
        if isinstance(body, Attach) and body.attached:
            known = self._incarnations.get(body.target)
            if body.kind is TargetKind.ENGINE and known is not None and known.incarnation != body.incarnation:
                return item._replace(body=Malformed(reason="left out: a restart of the recorded course"))
            self._incarnations[body.target] = body
        if isinstance(body, Ack):
            return item._replace(body=Malformed(reason="left out: an answer to the recorded course"))
        return item

    def answers(self, outputs: list[Output]) -> list[Ack | Attach]:
        """What receivers that do as they are told would have answered."""
        made: list[Ack | Attach] = []
        for output in outputs:
            if isinstance(output, Directive):
                made.extend(self._engine(output))
            elif isinstance(output, RoutingTable):
                known = self._incarnations.get(output.gateway)
                effective: dict[str, Value] = {}
                for route in output.routes:
                    effective[f"weight:{route.engine}"] = route.weight
                    effective[f"cap:{route.engine}"] = route.in_flight_cap
                made.append(
                    Ack(
                        pool=output.pool,
                        kind=TargetKind.GATEWAY,
                        target=output.gateway,
                        incarnation=known.incarnation if known else Incarnation(""),
                        version=output.version,
                        status=AckStatus.APPLIED,
                        effective=effective,
                    )
                )
        return made

    def _engine(self, output: Directive) -> list[Ack | Attach]:
        known = self._incarnations.get(output.engine)
        if known is None:
            return []
        restart = VARIANT in output.values
        effective = {**known.effective, **output.values}
        ack = Ack(
            pool=output.pool,
            kind=TargetKind.ENGINE,
            target=output.engine,
            incarnation=known.incarnation,
            version=output.version,
            status=AckStatus.PENDING_RESTART if restart else AckStatus.APPLIED,
            effective={name: value for name, value in effective.items() if name != VARIANT},
        )
        again = Attach(
            pool=known.pool,
            kind=known.kind,
            target=known.target,
            incarnation=Incarnation(f"{known.incarnation}+") if restart else known.incarnation,
            capability_hash=known.capability_hash,
            knobs=known.knobs,
            held=output.version,
            effective=effective,
        )
        self._incarnations[output.engine] = again
        return [ack, again] if restart else [ack]


__all__ = ["Change", "Comparison", "Course", "PartitionState", "compare_policies"]
