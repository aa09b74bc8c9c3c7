"""The log as one process reaches it: slow, refusing, silent, or answering that it does not know.

What it promises all the same is what the product's logs do: an acknowledged record is there, in the order of its
writer; one that was not acknowledged may be there, or a part of its batch, now or later; a batch may be there twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NoReturn

from flyball_core.errors import LogUnavailable
from flyball_core.ids import LogId
from flyball_log.interface import Bounds, Entry, Record, Topic
from flyball_log.limits import check_entries
from harness.memory_log import MemoryLog
from laboratory.simulation.kernel import Machine, Signal, pause

TIMEOUT_S = 4.0
"""How long a call may take."""
REFUSED_S = 0.05
"""How soon a log that is not there says so."""
SLOW_S = 0.02
"""Longest way to the log, and longest way back, when nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How often an append meets what logs do now and then, as probabilities."""

    unknown: float = 0.01
    """It is not told whether its records were written; they were, or a part of them, or none."""
    twice: float = 0.01
    """Its records are written again, up to a second later."""


@dataclass(slots=True)
class Brokers:
    """The log itself, as far as it can fail."""

    log: MemoryLog
    machine: Machine
    random: Random
    odds: Odds = field(default_factory=Odds)
    news: Signal = field(default_factory=Signal)
    """Rings when something was written that pushers read."""
    down: bool = False
    """It refuses every call."""
    frozen_until_s: float = 0.0
    """Until then it answers nothing."""
    appends: int = 0
    unknown: int = 0
    repeated: int = 0

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self.machine.kernel.now_s

    def write(self, topic: Topic, partition: int, batch: Sequence[Entry]) -> list[int]:
        """Have the log take it now."""
        offsets = self.log.shelf.add(topic, partition, batch)
        if topic is Topic.DIRECTIVES:
            self.news.ring()
        return offsets


@dataclass(slots=True)
class Way:
    """How a process stands to the network. It cannot tell which way a silence is."""

    cut_until_s: float = 0.0
    delay_s: float = 0.0

    def reach_s(self, now_s: float) -> float:
        """When what is sent now arrives."""
        return max(now_s, self.cut_until_s) + self.delay_s


class FaultyLog:
    """A `Log` for one simulated process."""

    def __init__(self, brokers: Brokers, way: Way) -> None:
        self._brokers = brokers
        self._way = way

    @property
    def log_id(self) -> LogId:
        """Of the log."""
        return self._brokers.log.log_id

    @property
    def partitions(self) -> int:
        """Of the log."""
        return self._brokers.log.partitions

    @property
    def where(self) -> str:
        """Of the log."""
        return self._brokers.log.where

    def partition_of(self, key: str) -> int:
        """As every log."""
        return self._brokers.log.partition_of(key)

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """As `Log.append`."""
        check_entries(topic, entries)
        if not entries:
            return []
        brokers, batch = self._brokers, tuple(entries)
        end_s = brokers.now_s + TIMEOUT_S
        await self._arrive(end_s, lambda: self._late(topic, partition, batch))
        brokers.appends += 1
        fate = brokers.random.random()
        if fate < brokers.odds.unknown:
            written = brokers.random.choice((0, len(batch), brokers.random.randrange(len(batch) + 1)))
            brokers.write(topic, partition, batch[:written])
            brokers.unknown += 1
            await self._silence(end_s)
        offsets = brokers.write(topic, partition, batch)
        if fate > 1.0 - brokers.odds.twice:
            again_s = brokers.now_s + brokers.random.random()
            brokers.machine.at(again_s, lambda: self._again(topic, partition, batch))
        await self._answer(end_s)
        return offsets

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """As `Log.read`; it never waits for a first record, because nobody here asks it to."""
        assert not wait_s
        await self._reachable()
        return await self._brokers.log.read(topic, partition, start, limit=limit)

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """As `Log.bounds`."""
        await self._reachable()
        return await self._brokers.log.bounds(topic, partition)

    async def close(self) -> None:
        """Nothing to release."""

    async def _reachable(self) -> None:
        brokers = self._brokers
        if brokers.down or brokers.now_s < max(brokers.frozen_until_s, self._way.cut_until_s):
            end_s = brokers.now_s + TIMEOUT_S
            await self._arrive(end_s, lambda: None)
            await self._answer(end_s)

    async def _arrive(self, end_s: float, late: Callable[[], None]) -> None:
        """The way there; `late` is what happens to a request that the log finds when its time is long over."""
        brokers = self._brokers
        wait_s = self._way.reach_s(brokers.now_s) + brokers.random.random() * SLOW_S - brokers.now_s
        if brokers.now_s + wait_s > end_s:
            await self._silence(end_s)  # the network holds nothing for so long
        await pause(wait_s)
        if brokers.down:
            await pause(REFUSED_S)
            raise LogUnavailable("the log is not there")
        if brokers.frozen_until_s > brokers.now_s:
            if brokers.frozen_until_s > end_s:
                if brokers.random.random() < 0.5:  # it lies in a socket that is read after the thaw
                    brokers.machine.at(brokers.frozen_until_s, late)
                await self._silence(end_s)
            await pause(brokers.frozen_until_s - brokers.now_s)

    async def _answer(self, end_s: float) -> None:
        """The way back."""
        brokers = self._brokers
        back_s = self._way.reach_s(brokers.now_s) + brokers.random.random() * SLOW_S
        if back_s > end_s:
            await self._silence(end_s)
        await pause(back_s - brokers.now_s)

    async def _silence(self, end_s: float) -> NoReturn:
        await pause(max(end_s - self._brokers.now_s, 0.0))
        raise LogUnavailable(f"the log did not answer within {TIMEOUT_S:g} s")

    def _late(self, topic: Topic, partition: int, batch: tuple[Entry, ...]) -> None:
        if not self._brokers.down:
            self._brokers.write(topic, partition, batch)

    def _again(self, topic: Topic, partition: int, batch: tuple[Entry, ...]) -> None:
        if not self._brokers.down:
            self._brokers.repeated += 1
            self._brokers.write(topic, partition, batch)
