"""The soak's rounds: faults for some minutes, then peace until the fleet is itself again.

The faults of a round follow from the soak's seed and the round's number. Meanwhile an operator pins and unpins caps,
and clients ask for completions.
"""

import asyncio
import itertools
import random
import time
from dataclasses import dataclass, field

from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.merging import Owned
from flyball_core.errors import FlyballError
from flyball_core.knobs import BATCH_CAP
from flyball_proto.v1.common_pb2 import Value
from flyball_proto.v1.inputs_pb2 import OverrideSet
from flyball_proto.v1.services_pb2 import WRITE_OUTCOME_TAKEN, PoolStatus
from laboratory.playing import Stage
from laboratory.schedule import Cast, Fault, FaultKind, Schedule, draw

ROUND_S = 240.0
"""Faults and the fifth of peace after them."""
SETTLE_S = 120.0
"""Longest wait, after a round, until the fleet is itself again."""
STRIKES_EVERY_S = 20.0
PIN_EVERY_S = 7.0
PIN_FOR_S = 60.0

KILLED = Cast(
    controllers=("controller-0",),
    agents=("agent-0",),
    engines=("engine-0", "receivers-0"),
    gateways=("gateway-0",),
    log=True,
)
"""What may be killed, and lose a byte of what it keeps."""
SPARED = Cast(
    controllers=("controller-1",), agents=("agent-1",), engines=("engine-1", "receivers-1"), gateways=("gateway-1",)
)
"""What is only frozen or cut off, so that it lives as long as the soak."""
CUTTABLE = ("receivers-1",)


def schedule_of(seed: int, number: int, length_s: float = ROUND_S) -> Schedule:
    """What breaks in a round."""
    drawn = random.Random(f"{seed}/{number}").randrange(2**31)
    killing = draw(drawn, KILLED, length_s, kinds=(FaultKind.KILL, FaultKind.CORRUPT), every_s=STRIKES_EVERY_S)
    sparing = draw(drawn + 1, SPARED, length_s, kinds=(FaultKind.FREEZE,), every_s=STRIKES_EVERY_S)
    cast = Cast(engines=CUTTABLE)
    cutting = draw(drawn + 2, cast, length_s, kinds=(FaultKind.CUT, FaultKind.DELAY), every_s=2 * STRIKES_EVERY_S)
    faults = itertools.chain(killing.faults, _apart(sparing, cutting))
    return Schedule(seed=drawn, length_s=length_s, faults=tuple(sorted(faults, key=lambda fault: fault.at_s)))


def _apart(*schedules: Schedule) -> list[Fault]:
    """The faults of all, without those that strike a part while another one still does."""
    kept: list[Fault] = []
    for fault in sorted(itertools.chain(*(one.faults for one in schedules)), key=lambda fault: fault.at_s):
        if all(one.target != fault.target or one.at_s + one.for_s <= fault.at_s for one in kept):
            kept.append(fault)
    return kept


@dataclass(slots=True, kw_only=True)
class Round:
    """What became of one round."""

    number: int
    faults: int
    settled_s: float | None
    """From the last fault's end to a fleet that is itself again; None if it did not become so in time."""
    missing: str = ""
    """What was not, then."""


@dataclass(slots=True, kw_only=True)
class Operator:
    """Pins caps of random engines for a minute, over and over, whatever is broken."""

    fleet: Fleet
    pool: str
    engines: tuple[str, ...]
    rng: random.Random
    taken: int = 0
    unsure: int = 0
    """Orders that nobody answered in time; they may be on record all the same."""

    async def run(self) -> None:
        """Until it is cancelled."""
        for number in itertools.count():
            await asyncio.sleep(PIN_EVERY_S)
            engine = self.rng.choice(self.engines)
            order = OverrideSet(
                pool=self.pool,
                override_id=f"soak-{engine}",
                target=engine,
                knob=BATCH_CAP,
                value=Value(integer=self.rng.randint(8, 120)),
                expires_wall_s=time.time() + PIN_FOR_S,
                reason=f"soak {number}",
                author="soak",
            )
            taken = await self._give(order)
            self.taken += taken
            self.unsure += not taken

    async def _give(self, order: OverrideSet) -> bool:
        """Whether an owner took it; asks the next controller if one cannot be reached."""
        for address in self.fleet.connection.addresses:
            try:
                answer = await self.fleet.write(
                    address, lambda stub, within_s: stub.SetOverride(order, timeout=within_s)
                )
            except FlyballError:
                continue
            return answer.outcome == WRITE_OUTCOME_TAKEN
        return False


@dataclass(slots=True, kw_only=True)
class Rounds:
    """Plays rounds on a stage and asks the fleet how it is."""

    stage: Stage
    fleet: Fleet
    pool: str
    everybody: frozenset[str]
    """The targets that must be attached and current for the fleet to be itself."""
    agents: frozenset[str]
    done: list[Round] = field(default_factory=list)

    async def play(self, number: int, schedule: Schedule) -> Round:
        """One round, and the peace after it."""
        last_s = max((fault.at_s + fault.for_s for fault in schedule.faults), default=0.0)
        began_s = time.monotonic()
        playing = asyncio.create_task(self.stage.play(schedule))
        try:
            await asyncio.sleep(max(began_s + last_s - time.monotonic(), 0.0))
            settled_s, missing = await self.settled(began_s + last_s)
            await playing
        finally:
            playing.cancel()
        self.done.append(Round(number=number, faults=len(schedule.faults), settled_s=settled_s, missing=missing))
        return self.done[-1]

    async def settled(self, since_s: float) -> tuple[float | None, str]:
        """How long after `since_s` (monotonic) the fleet was itself, or None and what was not."""
        while True:
            missing = await self.missing()
            after_s = time.monotonic() - since_s
            if not missing or after_s > SETTLE_S:
                return (after_s, "") if not missing else (None, missing)
            await asyncio.sleep(0.5)

    async def missing(self) -> str:
        """What is not as it should be; empty if nothing."""
        try:
            status = await self.fleet.status(self.pool)
        except FlyballError as error:
            return str(error)
        if status.silences:
            return "; ".join(f"{one.address}: {one.why}" for one in status.silences)
        owned = status.pools.get(self.pool)
        return self._lacking(owned) if owned is not None else "nobody owns the pool"

    def _lacking(self, owned: Owned) -> str:
        pool: PoolStatus = owned.status
        there = {target.target: target for target in pool.targets}
        lacking = [f"{name} is not known" for name in sorted(self.everybody - set(there))]
        for name in sorted(self.everybody & set(there)):
            target = there[name]
            if not target.attached:
                lacking.append(f"{name} is not attached")
            elif target.HasField("told") and target.told != target.acked:
                lacking.append(f"{name} has not acknowledged what it was told")
            elif target.trouble:
                lacking.append(f"{name}: {target.trouble}")
        fresh = {agent.agent for agent in pool.agents if not agent.stale}
        lacking += [f"{name} reports nothing" for name in sorted(self.agents - fresh)]
        if time.time() - pool.wall_s > 5.0:
            lacking.append(f"the last tick is {time.time() - pool.wall_s:.0f} s old")
        return "; ".join(lacking)
