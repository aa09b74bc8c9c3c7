"""A controller's place in Kafka's group: asked only which partitions it should own.

Its consumer reads nothing: all its partitions are paused, and offsets are never committed. The
client offers no sign when a session is lost while the broker is away; that is harmless, for an owner
can do nothing without the log, and a later claim ends it.
"""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError

from flyball_core.errors import Fatal
from flyball_log.interface import Topic
from flyball_log.kafka.clients import Consumer, connection
from flyball_log.kafka.settings import KafkaSettings

SESSION_S = 10.0
"""A member that is silent for so long loses its partitions."""
_POLL_S = 1.0
_BACKOFF_S = (0.5, 10.0)

_logger = logging.getLogger(__name__)


class _Member(Consumer):
    """A consumer that can say which generation of its group it knows."""

    @property
    def generation(self) -> int:
        """As the broker counts them; -1 while it is in no group."""
        return self._coordinator.generation


def own_assignor() -> type[StickyPartitionAssignor]:
    """An assignor of one member's own: it remembers in its class what the member had, and in which generation."""

    class Sticky(StickyPartitionAssignor):
        member_assignment: list[TopicPartition] | None = None
        generation: int = StickyPartitionAssignor.DEFAULT_GENERATION_ID

    return Sticky


class _Listener(ConsumerRebalanceListener):
    """Hears what is assigned. Does nothing that can fail: the client swallows exceptions here."""

    def __init__(self, consumer: _Member, assignor: type[StickyPartitionAssignor]) -> None:
        self._consumer = consumer
        self._assignor = assignor
        self.assigned: frozenset[int] = frozenset()
        self.joined = False

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        del revoked  # rebalances are eager: always all of them
        self.assigned, self.joined = frozenset(), False

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._consumer.pause(*assigned)
        # The client leaves this out. Without it what a member remembers has no age, and one that was away
        # for long is given again what others have had since.
        self._assignor.on_generation_assignment(self._consumer.generation)
        self.assigned, self.joined = frozenset(each.partition for each in assigned), True


class GroupMembership:
    """A place in the group of controllers; made anew by itself when it is lost."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._listener: _Listener | None = None
        self._task = asyncio.create_task(self._run())

    def assigned(self) -> frozenset[int]:
        """The partitions this member should own now; empty while there is none or a rebalance runs."""
        return self._listener.assigned if self._listener is not None else frozenset()

    @property
    def joined(self) -> bool:
        """Whether this member has its share, which may be none; not while a rebalance runs."""
        return self._listener is not None and self._listener.joined

    async def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        pause_s, longest_s = _BACKOFF_S
        while True:
            try:
                await self._be_member()
            except (KafkaError, ConsumerStoppedError, OSError, TimeoutError, Fatal) as error:
                _logger.warning("%s: place in the group lost: %r", self._settings.where, error)
            if self._listener is not None and self._listener.assigned:
                pause_s = _BACKOFF_S[0]
            self._listener = None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _be_member(self) -> None:
        """Join and stay until the client fails for good."""
        assignor = own_assignor()
        consumer = self._make_consumer(assignor)
        try:
            await asyncio.wait_for(consumer.start(), self._settings.connect_timeout_s)
            self._listener = _Listener(consumer, assignor)
            consumer.subscribe([self._settings.topic(Topic.INPUTS)], listener=self._listener)
            while True:
                # Returns nothing, but an error of the coordination is told only to who asks.
                try:
                    await consumer.getmany(timeout_ms=int(_POLL_S * 1000))
                except KafkaError as error:
                    if not error.retriable:
                        raise
        finally:
            self._listener = None
            await consumer.end()

    def _make_consumer(self, assignor: type[StickyPartitionAssignor]) -> _Member:
        return _Member(
            **connection(self._settings),
            client_id="flyball-controller",
            group_id=self._settings.group,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            partition_assignment_strategy=(assignor,),
            session_timeout_ms=int(SESSION_S * 1000),
        )
