"""One soak from its start to its report: the fleet comes up, rounds are played, all is judged."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyball_agents.gateway.lanes import LANE_HEADER
from flyball_cli.live_traffic import BULK, REALTIME, Kind, Traffic, TrafficPhase, plan
from flyball_cli.operating.connection import Connection
from flyball_cli.operating.fleet import Fleet as Asked
from kafka_broker import KafkaBroker
from laboratory.fleet import POOL, Fleet, new_topics
from laboratory.playing import Stage
from laboratory.processes import Actors
from laboratory.proxy import Proxy
from laboratory.record import Recorder
from laboratory.schedule import FaultKind
from laboratory.soak.fleet import AGENTS, ENGINES, GATEWAYS, MODEL, POLICY, RECEIVERS, SoakFleet, engines_of
from laboratory.soak.report import Judged, Served, Soaked
from laboratory.soak.rounds import CUTTABLE, Operator, Rounds, schedule_of
from laboratory.soak.watching import Watch
from laboratory.verdict import Promise, Verdict

LOOK_EVERY_S = 10.0
START_S = 90.0
"""Longest wait until the fleet is itself for the first time."""
LAST_ANSWERS_S = 30.0
BROKER_STARTS = 4

CHAT = Kind(lane=REALTIME, rate_per_s=0.7, prompt_tokens=(100, 800), output_tokens=(20, 80))
REPORTS = Kind(lane=BULK, rate_per_s=0.1, prompt_tokens=(800, 2000), output_tokens=(40, 120))


async def soak(minutes: float, seed: int, folder: Path, say: Callable[[str], None]) -> Soaked:
    """Run a soak in an empty folder. Raises AssertionError if the fleet never comes up, and what the parts raise."""
    broker = KafkaBroker(folder / "kafka")
    address = broker.start()
    try:
        with Actors(folder) as actors, Recorder(folder / "record", "soak") as recorder:
            fleet = Fleet(actors, await new_topics(address, 1), tick_s=1.0, policies={POOL: POLICY})
            soaking = _Soaking(seed=seed, say=say, broker=broker, parts=SoakFleet(fleet), recorder=recorder)
            return await soaking.run(minutes)
    finally:
        broker.stop()


@dataclass(slots=True, kw_only=True)
class _Soaking:
    """A soak under way."""

    seed: int
    say: Callable[[str], None]
    broker: KafkaBroker
    parts: SoakFleet
    recorder: Recorder

    @property
    def actors(self) -> Actors:
        """All processes."""
        return self.parts.fleet.actors

    async def run(self, minutes: float) -> Soaked:
        """Everything."""
        doors = self.parts.add_controllers()
        async with self._proxies(doors) as lines:
            self.parts.add_others()
            for actor in self.actors.all.values():
                actor.start()
            async with Asked(Connection(addresses=doors, timeout_s=3.0)) as asked:
                return await self._soak(minutes, asked, lines)

    @asynccontextmanager
    async def _proxies(self, doors: Sequence[str]) -> AsyncIterator[dict[str, tuple[Proxy, ...]]]:
        """Between the parts that can be cut off and the controllers."""
        lines: dict[str, tuple[Proxy, ...]] = {}
        try:
            for name in CUTTABLE:
                lines[name] = tuple([await Proxy.start(door) for door in doors])
                self.parts.through[name] = tuple(line.address for line in lines[name])
            yield lines
        finally:
            for each in lines.values():
                for line in each:
                    await line.close()

    async def _soak(self, minutes: float, asked: Asked, lines: dict[str, tuple[Proxy, ...]]) -> Soaked:
        receivers = tuple(engine for name in RECEIVERS for engine in engines_of(name))
        rounds = Rounds(
            stage=self._stage(lines),
            fleet=asked,
            pool=POOL,
            everybody=frozenset({*ENGINES, *GATEWAYS, *receivers}),
            agents=frozenset(AGENTS),
        )
        watch = Watch(
            list(self.actors.all.values()), [self.broker.folder / "data", *map(self.parts.kept, self.actors.all)]
        )
        after_s, missing = await rounds.settled(time.monotonic())
        assert after_s is not None, f"the fleet did not come up: {missing}"
        self.say(f"up after {after_s:.0f} s; {minutes:g} minutes in rounds from seed {self.seed}")
        operator = Operator(fleet=asked, pool=POOL, engines=receivers, rng=random.Random(self.seed))
        phase = TrafficPhase(name="soak", from_s=0.0, to_s=minutes * 60.0, kinds=(CHAT, REPORTS))
        traffic = Traffic(self.parts.at(GATEWAYS[1]), MODEL, plan([phase], self.seed), LANE_HEADER)
        beside = [
            asyncio.create_task(operator.run()),
            asyncio.create_task(_look(watch)),
            asyncio.create_task(traffic.run(LAST_ANSWERS_S)),
        ]
        try:
            await self._play(minutes, rounds, watch, beside)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        watch.look()
        for actor in reversed(self.actors.all.values()):
            actor.stop()
        judged, inputs = judged_of(await self.parts.fleet.judged())
        finished = sum(one.timing is not None for one in traffic.measured)
        served = Served(
            requests=len(traffic.measured),
            finished=finished,
            failed=len(traffic.measured) - finished,
            orders_taken=operator.taken,
            orders_unanswered=operator.unsure,
        )
        return Soaked(
            seed=self.seed,
            minutes=watch.now_s / 60.0,
            watch=watch,
            rounds=rounds.done,
            served=served,
            judged=judged,
            inputs=inputs,
        )

    async def _play(self, minutes: float, rounds: Rounds, watch: Watch, beside: list["asyncio.Task[None]"]) -> None:
        number = 0
        while watch.now_s < minutes * 60.0:
            one = await rounds.play(number, schedule_of(self.seed, number))
            after = "never itself again" if one.settled_s is None else f"itself again after {one.settled_s:.1f} s"
            self.say(f"{watch.now_s / 60.0:5.1f} min  round {number}: {one.faults} faults, {after}  {one.missing}")
            number += 1
            for task in beside:
                if task.done() and task.exception() is not None:
                    task.result()

    def _stage(self, lines: dict[str, tuple[Proxy, ...]]) -> Stage:
        return Stage(
            actors=self.actors.all,
            recorder=self.recorder,
            lines=lines,
            kept={name: self.parts.kept(name) for name in self.actors.all},
            log=(self._strike_log, self._restore_log),
        )

    async def _strike_log(self, kind: FaultKind) -> None:
        os.kill(self.broker.pid, signal.SIGKILL if kind is FaultKind.KILL else signal.SIGSTOP)

    async def _restore_log(self, kind: FaultKind) -> None:
        if kind is FaultKind.KILL:
            await asyncio.to_thread(self._start_broker)
        else:
            os.kill(self.broker.pid, signal.SIGCONT)

    def _start_broker(self) -> None:
        """Start it again; on a machine that is short of breath a start may take longer than its script waits."""
        for _ in range(BROKER_STARTS):
            try:
                self.broker.start()
            except pytest.fail.Exception as error:
                self.say(f"the broker did not start: {error}")
            else:
                return
        raise AssertionError(f"the broker did not start in {BROKER_STARTS} attempts")


async def _look(watch: Watch) -> None:
    while True:
        await asyncio.to_thread(watch.look)
        await asyncio.sleep(LOOK_EVERY_S)


def judged_of(verdict: Verdict) -> tuple[Judged, int]:
    """What record and log say, and the number of inputs."""
    replay = verdict[Promise.REPLAY]
    judged = Judged(
        lost=verdict.lost,
        unexpected=verdict.unexpected,
        recovered=len(verdict.recovered),
        broken=verdict.broken,
        replay="different" if replay.lost or replay.unexpected else "identical",
    )
    return judged, verdict.looked_at["inputs"]
