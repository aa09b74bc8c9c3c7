"""One partition in this controller's hands, from its claim until it is let go.

Between ticks it reads what comes in, so that a tick finds little left to read; late, as after a pause of
the whole process, it reads before it ticks, so that a later claim is seen before anything is said. It
keeps its claim while the log is away. What ends it is a later claim, or whoever runs it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

import structlog

from flyball_controller.farewells import left_behind
from flyball_controller.owner import Owned, Owner
from flyball_controller.serving.measures import Measures
from flyball_controller.slow import SlowDesk
from flyball_core.errors import FlyballError, LogExchanged
from flyball_core.inputs import PolicyText
from flyball_log.interface import Entry, Log, Topic
from flyball_log.opening import is_kafka
from flyball_proto.codec import encode_input
from flyball_service.channels import Backoff
from flyball_service.health import Health

log = structlog.get_logger()

READS_PER_TICK = 4
"""How often what came in is read between two ticks."""
ALIVE_WITHIN_S = 90.0
"""An append may take 30 s and is tried again; a loop that has not turned for so long is stuck."""
_RETRY_S = (0.5, 15.0)
_LOOK_S = 0.1
TELL_S = 60.0
"""What cannot be read is told so often at most."""


class Beat:
    """When to tick: at a fixed period, and late rather than in bursts. Times are of one monotonic clock."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._due_s = 0.0
        self._last_s: float | None = None

    def start(self, now_s: float) -> None:
        """The first tick is due now, and measures no interval."""
        self._due_s, self._last_s = now_s, None

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next tick is due; 0 if it is."""
        return max(0.0, self._due_s - now_s)

    def late_s(self, now_s: float) -> float:
        """Seconds since the last tick; 0 before the first."""
        return now_s - self._last_s if self._last_s is not None else 0.0

    def strike(self, now_s: float) -> float:
        """Tick now: the seconds since the tick before, 0 for the first."""
        interval_s = self.late_s(now_s)
        self._last_s = now_s
        # On the grid that was begun, so that small delays do not add up; what was missed is not made up for.
        self._due_s += self._period_s
        if self._due_s <= now_s:
            self._due_s = now_s + self._period_s
        return interval_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What every tenure of one controller shares."""

    log: Log
    owner: Owner
    health: Health
    measures: Measures
    tick_s: float
    policies: Mapping[str, PolicyText]
    """By pool, what is put on record where no policy is in force."""
    inherited: Mapping[int, int] = field(default_factory=dict)
    """By partition, where an embedded log's inputs ended before this process opened its doors; empty with Kafka."""
    desk: SlowDesk | None = None
    late_s: float = 5.0
    """After so long without a tick, what came in is read before the next."""
    slow_s: float = 5.0
    """After so long without an answer from the log it is said to be waited for, though the call may still succeed."""
    reclaim_s: tuple[float, float] = (5.0, 15.0)
    """How long after another's claim this partition is claimed again, if it is still ours to own."""
    wall: Callable[[], float] = time.time


class Tenure:
    """Runs one partition. `ours` says whether it is still to be owned here."""

    def __init__(self, partition: int, office: Office, ours: Callable[[], bool]) -> None:
        self.partition = partition
        self._office = office
        self._ours = ours
        self._beat = Beat(office.tick_s)
        self._backoff = Backoff(Random(), *_RETRY_S)
        self._ending = asyncio.Event()
        self._name = f"partition {partition}"
        self._told, self._told_s = 0, -float("inf")
        self.ticked = False
        """Whether it has ticked since it was last taken."""

    def end(self) -> None:
        """Let go of the partition, once what is under way is done."""
        self._ending.set()

    def tick_age_s(self) -> float:
        """Seconds since the last tick."""
        return self._beat.late_s(_now_s())

    async def run(self) -> None:
        """Own the partition until `end`, or until it is lost and no longer ours."""
        health = self._office.health
        health.waits_for(self._name, "it is being taken")
        try:
            while not self._ending.is_set():
                health.beat(self._name, _now_s(), ALIVE_WITHIN_S)
                try:
                    await self._turn()
                except FlyballError as error:
                    health.waits_for(self._name, str(error))
                    if isinstance(error, LogExchanged):
                        self._drop()  # what it knows is of another log: nothing may be decided on it
                    self._office.measures.failed("owner")
                    await self._recover()
                except Exception:  # the boundary of this loop: one partition must not take the others down
                    log.exception("owner_failed", partition=self.partition)
                    health.waits_for(self._name, "its owner failed and begins anew")
                    self._office.measures.failed("owner")
                    self._drop()
                    await self._recover()
        finally:
            self._drop()
            health.ended(self._name)
            health.has(self._name)

    async def _turn(self) -> None:
        """One turn of the loop: take the partition, read, or tick."""
        owner = self._office.owner
        owned = owner.owned.get(self.partition)
        if owned is None:
            owned = await self._take()
        left_s = self._beat.wait_s(_now_s())
        if left_s > 0:
            await self._rest(min(left_s, self._office.tick_s / READS_PER_TICK))
        if self._ending.is_set():
            return
        with self._telling_if_slow():
            if left_s > 0 or self._beat.late_s(_now_s()) >= self._office.late_s:
                await owner.poll(self.partition)
            if not owned.lost and self._beat.wait_s(_now_s()) == 0:
                await self._tick(owned)
        if owned.lost:
            await self._lost(owned)
        elif self._office.desk is not None:
            self._office.desk.take(owned.snapshots)

    @contextmanager
    def _telling_if_slow(self) -> Iterator[None]:
        slow_s = self._office.slow_s
        why = f"the log has been slow to answer for {slow_s:g} s"
        telling = asyncio.get_running_loop().call_later(slow_s, self._office.health.waits_for, self._name, why)
        try:
            yield
        finally:
            telling.cancel()

    async def _take(self) -> Owned:
        office, began_s = self._office, _now_s()
        office.health.ended(self._name)  # restoring takes as long as there are inputs; nothing is promised for it
        try:
            owned = await office.owner.take(self.partition, office.wall())
        except BaseException:
            self._drop()  # half taken is not taken
            raise
        office.measures.claims.inc()
        self._beat.start(_now_s())
        log.info(
            "partition_taken",
            partition=self.partition,
            epoch=owned.epoch,
            pools=len(owned.state.pools),
            seconds=round(_now_s() - began_s, 3),
            refused=list(owned.refused),
        )
        return owned

    async def _begin(self, owned: Owned) -> None:
        """Put on record, before the first tick, what this controller knows and the log does not."""
        await self._say_farewells(owned)
        await self._declare(owned)

    async def _say_farewells(self, owned: Owned) -> None:
        """Of an embedded log this is the only controller: who was attached to the one before is attached no more.

        Whoever attached since the doors opened is attached to us, and that may well be before our first tick.
        """
        before = self._office.inherited.get(self.partition, 0)
        farewells = [
            Entry(name.encode(), encode_input(one))
            for name, pool in owned.state.pools.items()
            for one in left_behind(pool, before)
        ]
        if farewells:
            await self._office.log.append(Topic.INPUTS, self.partition, farewells)
            log.info("farewells_said", partition=self.partition, count=len(farewells))

    async def _declare(self, owned: Owned) -> None:
        """Put the configuration's policies on record for pools that have none in force."""
        where = self._office.log
        for name, order in self._office.policies.items():
            pool = owned.state.pools.get(name)
            if where.partition_of(name) == self.partition and (pool is None or not pool.policy_text):
                await where.append(Topic.INPUTS, self.partition, [Entry(name.encode(), encode_input(order))])
                log.info("policy_put_on_record", pool=name, author=order.author)

    async def _tick(self, owned: Owned) -> None:
        office = self._office
        if not self.ticked:
            await self._begin(owned)
        began_s = _now_s()
        await office.owner.tick(self.partition, self._beat.strike(began_s), office.wall())
        office.measures.tick_s.observe(_now_s() - began_s)
        self.ticked = True
        self._tell_unreadable(owned)
        self._backoff.reset()
        office.health.has(self._name)

    def _tell_unreadable(self, owned: Owned) -> None:
        """Say what nobody could read, once a minute at most, and where the last of it stands."""
        new = owned.unreadable - self._told
        if new > 0 and _now_s() - self._told_s >= TELL_S:
            self._told, self._told_s = owned.unreadable, _now_s()
            log.warning("inputs_unreadable", partition=self.partition, count=new, last=owned.last_unreadable)

    async def _lost(self, owned: Owned) -> None:
        """A later claim stands: stop, and claim again only if this partition stays ours."""
        self._office.measures.losses.inc()
        self._drop()
        where, why = self._office.log.where, f"{owned.lost_to} claimed it after us"
        if is_kafka(where):
            log.warning("partition_lost", partition=self.partition, epoch=owned.epoch, to=owned.lost_to)
        else:
            log.error("another_process_writes_this_log", log=where, partition=self.partition, claimed_by=owned.lost_to)
        self._office.health.waits_for(self._name, why)
        await self._recover()
        if not self._ours():
            self.end()

    async def _recover(self) -> None:
        """Pause after a failure; longer before another claim: after a frozen time the group's share is an old one."""
        if self.partition in self._office.owner.owned:
            await self._rest(self._backoff.next_s())
        else:
            await self._until_ours_anew(_now_s() + Random().uniform(*self._office.reclaim_s))

    async def _until_ours_anew(self, until_s: float) -> None:
        """Wait for the group to take the partition away and give it back; until then its share may be an old one."""
        taken_away = False
        while _now_s() < until_s and not self._ending.is_set():
            if self._ours() and taken_away:
                return
            taken_away = not self._ours() or taken_away
            await self._rest(_LOOK_S)

    def _drop(self) -> None:
        self._office.owner.drop(self.partition)
        self.ticked = False
        self._told = 0

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
