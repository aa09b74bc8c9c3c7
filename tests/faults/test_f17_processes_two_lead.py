"""Fault 17, with real processes: two controllers are both told that the same partition is theirs."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from flyball_controller.machine.alarms import CONTENDED
from flyball_core.outputs import DecisionRecord, Directive, RecordKind
from flyball_log import open_log
from harness.invariants import Recorded, read_partition
from kafka_broker import kafka_broker as kafka_broker
from laboratory.fleet import Fleet, new_topics
from laboratory.lab_rival import MODULE
from laboratory.processes import Actors, until
from laboratory.record import Applied, read_record
from laboratory.scale import report, scaled

CLAIMS = scaled(3, 12)
"""So many claims of one after the other are waited for."""
CLAIMED_AGAIN_S = 20.0
"""Longest from one claim to the next; a claimant that lost waits 5 to 15 s."""
UP_S = 60.0
"""Longest start of a fleet on a machine that is busy; no promise."""
ENGINES = ("e0", "e1", "e2", "e3")


async def ordering(fleet: Fleet, taken: dict[str, int]) -> None:
    """Operators who give both of them orders, until cancelled; `taken` is what was last said to be."""
    for turn in itertools.count():
        engine, door = ENGINES[turn % len(ENGINES)], ("c1", "c2")[turn % 2]
        cap = 40 + turn % 40
        if await fleet.order(door, engine, cap, within_s=3.0) == "taken":
            taken[engine] = cap
        await asyncio.sleep(0.1)


def in_turns(claims: Sequence[tuple[int, str]]) -> int:
    """How many of the claims took the partition from another."""
    return sum(before[1] != after[1] for before, after in itertools.pairwise(claims))


async def recorded(where: str) -> Recorded:
    """Everything in the log."""
    log = await open_log(where, read_only=True)
    try:
        return await read_partition(log, 0)
    finally:
        await log.close()


def histories(applied: Sequence[Applied]) -> Mapping[str, list[tuple[int, int]]]:
    """By engine, the places of what it applied, in the order in which it did."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in applied:
        found[line.target].append((line.version.epoch, line.version.revision))
    return found


@pytest.mark.timeout(600)
async def test_f17_two_controllers_forced_to_lead_1_epoch_active_per_engine_histories_ordered_and_1_alarm_raised(
    tmp_path: Path, kafka_broker: str
) -> None:
    """They claim in turns; engines see one order of versions, each of the claim in force, and the audit says it."""
    where = await new_topics(kafka_broker, partitions=1)
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, where)
        fleet.controller("c1").start()
        fleet.controller("c2", MODULE)
        fleet.engines("engines", ENGINES).start()
        await until("every engine", lambda: fleet.attached(ENGINES), UP_S)
        actors.all["c2"].start()
        taken: dict[str, int] = {}
        giving = asyncio.create_task(ordering(fleet, taken))

        async def contended() -> bool:
            return in_turns((await fleet.claims())[0]) >= CLAIMS

        await until(f"{CLAIMS} claims in turns", contended, UP_S + CLAIMS * CLAIMED_AGAIN_S, every_s=0.5)
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
        actors.all["c2"].kill()
        for engine in ENGINES:
            await fleet.order("c1", engine, 64, within_s=12.0)
        held = await fleet.settles(ENGINES, CLAIMED_AGAIN_S)
        assert 0 == actors.all["c1"].stop()
        assert 0 == actors.all["engines"].stop()

        found, applied = await recorded(where), histories(read_record(fleet.record).applied)
        claims = [offset for offset, _ in (await fleet.claims())[0]]
        verdict = await fleet.judged()
    assert dict.fromkeys(ENGINES, 64) == held
    assert [] == verdict.broken, str(verdict)
    assert set(ENGINES) == applied.keys() == taken.keys()
    for engine, places in applied.items():
        assert sorted(set(places)) == places, f"{engine} did not see one order"
    directives = [one.version for one in found.told if isinstance(one, Directive)]
    assert 2 <= len({one.epoch for one in directives}), "only one of them ever led"
    assert [] == [one for one in directives if one.epoch != max(at for at in claims if at < one.revision)]
    alarms = [one for one in found.audit if isinstance(one, DecisionRecord) and one.kind is RecordKind.ALARM]
    assert [CONTENDED] == [one.summary.partition(":")[0] for one in alarms if "c1" in one.summary][:1]
    report(
        "f17", claims=len(claims), epochs_that_told=len({one.epoch for one in directives}), directives=len(directives)
    )
