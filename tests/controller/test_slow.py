"""The runner of slow policies: a deadline for each, answers or reasons, and never a wait for the owner."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from flyball_controller.machine import Seams
from flyball_controller.slow import SlowRunner
from flyball_core.inputs import Proposal, SlowProposal, TargetKind
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import Snapshot
from flyball_policies.seam import Memory, PoolView
from flyball_proto.codec import decode_input, encode_input
from harness.scripted_pool import scripted_pool


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
