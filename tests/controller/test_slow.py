"""The runner of slow policies: a deadline for each, answers or reasons, and never a wait for the owner."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.machine import Seams
from flyball_controller.owner import Owner
from flyball_controller.slow import SlowDesk, SlowRunner
from flyball_core.ids import OwnerId
from flyball_core.inputs import Proposal, SlowProposal, TargetKind
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import Snapshot
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Topic
from flyball_policies.seam import Memory, PoolView
from flyball_proto.codec import decode_input, encode_input
from harness.logged_pool import LoggedPool, logged_pool
from harness.odd_logs import QUICK, Failing, records_of
from harness.scripted_pool import PRINT, WALL_S, scripted_pool


class Thinking:
    """A policy that does as the test says, in its own time."""

    def __init__(self, name: str, think: Callable[[Memory], list[Proposal]]) -> None:
        self.name = name
        self._think = think

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Whatever the test says."""
        del view
        return self._think(memory)


def wish(policy: str, value: float = 50) -> Proposal:
    """A sound proposal."""
    return Proposal(policy=policy, kind=TargetKind.ENGINE, target="e0-0", knob=BATCH_CAP, value=value, reason="r")


def snapshot_for(*policies: str) -> Snapshot:
    """A snapshot as `step` gives it out."""
    pool = scripted_pool(seams=Seams(slots=(), slow=policies))
    return next(o for o in reversed(pool.run(3)) if isinstance(o, Snapshot))


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a policy waits for; opened at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def test_an_answer_in_time_is_an_input() -> None:
    """The proposals come back under the snapshot's tick, fit for the wire."""
    snapshot = snapshot_for("quick")
    [answer] = await SlowRunner([Thinking("quick", lambda _m: [wish("quick")])], deadline_s=5.0).answer(snapshot)

    assert (
        SlowProposal(
            pool=snapshot.pool, policy="quick", tick_revision=snapshot.tick_revision, proposals=(wish("quick"),)
        )
        == answer
    )
    assert answer == decode_input(0, encode_input(answer)).body


async def test_a_deadline_passed_is_a_miss(gate: threading.Event) -> None:
    """A policy that takes too long has missed, and the reason says by how much."""

    def slow(_memory: Memory) -> list[Proposal]:
        gate.wait(30.0)
        return []

    [answer] = await SlowRunner([Thinking("slow", slow)], deadline_s=0.01).answer(snapshot_for("slow"))

    assert "no answer within 0.01 s" == answer.missed
    assert () == answer.proposals


async def test_one_at_work_is_not_asked_again(gate: threading.Event) -> None:
    """Until it has ended it misses at once, without a second thread; then it is asked as before."""
    asked: list[int] = []

    def slow(_memory: Memory) -> list[Proposal]:
        asked.append(1)
        gate.wait(30.0)
        return []

    runner, snapshot = SlowRunner([Thinking("slow", slow)], deadline_s=0.01), snapshot_for("slow")
    await runner.answer(snapshot)
    [second] = await runner.answer(snapshot)

    assert f"still at work on the snapshot of input {snapshot.tick_revision}" == second.missed
    assert 1 == len(asked)
    gate.set()
    for _ in range(200):
        [later] = await runner.answer(snapshot)
        if not later.missed:
            break
        await asyncio.sleep(0.005)

    assert "" == later.missed


async def test_the_owner_is_never_kept_waiting(gate: threading.Event) -> None:
    """While a policy blocks, the loop goes on, and others answer."""

    def slow(_memory: Memory) -> list[Proposal]:
        gate.wait(30.0)
        return []

    policies = [Thinking("slow", slow), Thinking("quick", lambda _m: [wish("quick")])]
    runner = SlowRunner(policies, deadline_s=0.1)
    task = asyncio.create_task(runner.answer(snapshot_for("slow", "quick")))
    turns, start = 0, time.monotonic()
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    answers = {answer.policy: answer for answer in await task}

    assert turns > 10
    assert time.monotonic() - start < 5.0
    assert "" == answers["quick"].missed
    assert "" != answers["slow"].missed


@pytest.mark.parametrize(
    ("think", "words"),
    [
        (lambda _m: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda _m: None, "TypeError"),
        (lambda _m: ["nonsense"], "proposed a str"),
        (lambda _m: [wish("p", float("nan"))], "proposed nan for max_active_requests of e0-0"),
        (lambda _m: [wish("another")], "proposed max_active_requests of e0-0 in another's name"),
        (lambda _m: (_ for _ in ()).throw(ValueError("\ud800" * 500)), "ValueError"),
    ],
)
async def test_whatever_it_does_wrong_is_a_reason(think: Callable[[Memory], list[Proposal]], words: str) -> None:
    """An exception or nonsense is a miss with its reason, fit for the wire."""
    [answer] = await SlowRunner([Thinking("p", think)], deadline_s=5.0).answer(snapshot_for("p"))

    assert words in answer.missed
    assert answer == decode_input(0, encode_input(answer)).body


async def test_a_policy_that_does_not_run_here_misses() -> None:
    """A snapshot may ask for what this controller does not have."""
    [answer] = await SlowRunner([]).answer(snapshot_for("elsewhere"))

    assert "no such policy runs here" == answer.missed


async def test_memory_is_per_pool_and_stays() -> None:
    """What a policy remembers at one snapshot it has at the next."""
    seen: list[int] = []

    def counting(memory: Memory) -> list[Proposal]:
        memory["n"] = memory.get("n", 0) + 1
        seen.append(memory["n"])
        return []

    runner, snapshot = SlowRunner([Thinking("p", counting)], deadline_s=5.0), snapshot_for("p")
    for _ in range(3):
        await runner.answer(snapshot)

    assert [1, 2, 3] == seen
    assert ("p",) == runner.names


async def slow_life(folder: Path, policy: Thinking, *, deadline_s: float = 5.0) -> tuple[LoggedPool, Owner, SlowDesk]:
    """A pool over a log, whose owner asks one slow policy."""
    log = Failing(EmbeddedLog.create(folder / "log", 1, QUICK))
    pool, _ = await logged_pool(log)
    owner = Owner(log, OwnerId("c2"), lambda: Seams(slots=(), slow=(policy.name,)), PRINT)
    await owner.take(0, WALL_S)
    await pool.run(owner, 5)
    return pool, owner, SlowDesk(log, SlowRunner([policy], deadline_s=deadline_s))


async def answers_in(pool: LoggedPool) -> list[SlowProposal]:
    """The answers that stand in the inputs."""
    bodies = [decode_input(r.offset, r.value).body for r in await records_of(pool.log, Topic.INPUTS, 0)]
    return [body for body in bodies if isinstance(body, SlowProposal)]


async def test_the_desk_brings_answers_into_the_inputs_of_the_pool(tmp_path: Path) -> None:
    """The owner's last snapshot is taken, and its answer stands in the log under the pool's key."""
    pool, owner, desk = await slow_life(tmp_path, Thinking("p", lambda _m: [wish("p", 50)]))
    asked = owner.owned[0].snapshots["chat"].tick_revision
    desk.take(owner.owned[0].snapshots)
    await desk.settled()
    [answer] = await answers_in(pool)

    assert {} == owner.owned[0].snapshots
    assert (asked, (wish("p", 50),)) == (answer.tick_revision, answer.proposals)
    assert b"chat" == (await records_of(pool.log, Topic.INPUTS, 0))[-1].key
    await pool.run(owner, 2)  # the gateways' caps first, then the engine's
    assert 50 == pool.scripted.engines["e0-0"].setting[BATCH_CAP]
    await pool.log.close()


async def test_the_desk_returns_before_the_policy_does(tmp_path: Path, gate: threading.Event) -> None:
    """While a policy works the owner ticks on; what comes too late for its tick is counted, not used."""

    def slow(_memory: Memory) -> list[Proposal]:
        gate.wait(30.0)
        return [wish("p", 50)]

    pool, owner, desk = await slow_life(tmp_path, Thinking("p", slow), deadline_s=30.0)
    desk.take(owner.owned[0].snapshots)
    await pool.run(owner, 5)
    gate.set()
    await desk.settled()
    await pool.run(owner, 1)

    assert ["p"] == [answer.policy for answer in await answers_in(pool)]
    assert 1 == owner.owned[0].state.pools["chat"].counts["proposal_out_of_date"]
    assert 64 == pool.scripted.engines["e0-0"].setting[BATCH_CAP]
    await pool.log.close()


async def test_an_answer_that_is_too_long_for_the_log_is_a_miss(tmp_path: Path) -> None:
    """Thousands of long proposals: the reason says how long they were."""
    many = [replace(wish("p"), reason="r" * 900) for _ in range(1000)]
    pool, owner, desk = await slow_life(tmp_path, Thinking("p", lambda _m: many))
    desk.take(owner.owned[0].snapshots)
    await desk.settled()
    [answer] = await answers_in(pool)

    assert answer.missed.startswith("answered in 9")
    assert 0 == desk.lost
    await pool.log.close()


async def test_an_answer_that_the_log_does_not_take_is_counted(tmp_path: Path) -> None:
    """An outage costs the answer and nothing else; the next tick asks anew."""
    pool, owner, desk = await slow_life(tmp_path, Thinking("p", lambda _m: [wish("p")]))
    assert isinstance(pool.log, Failing)
    pool.log.refusing = frozenset({Topic.INPUTS})
    desk.take(owner.owned[0].snapshots)
    await desk.settled()
    pool.log.refusing = frozenset()
    await pool.run(owner, 1)
    desk.take(owner.owned[0].snapshots)
    await desk.settled()

    assert 1 == desk.lost
    assert [""] == [answer.missed for answer in await answers_in(pool)]
    await pool.log.close()
