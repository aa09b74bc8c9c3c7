"""Slow policies: those with no bound on their time, run beside the owner on snapshots.

Each has a deadline. What it answered by then goes into the inputs as a `SlowProposal`; a
miss, with its reason, does so too, because replay must know it. It never makes the owner
wait: a policy works in a thread of its own, gets nothing new until it has ended, and is
left behind if it never does. `SlowRunner` only answers; `SlowDesk` carries snapshots in and
answers to the log.
"""

import asyncio
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress

from flyball_controller.machine.answers import ask
from flyball_core.errors import FlyballError
from flyball_core.inputs import Proposal, SlowProposal
from flyball_core.outputs import Snapshot
from flyball_log.interface import Entry, Log, Topic
from flyball_log.limits import MAX_KEY_BYTES, MAX_RECORD_BYTES
from flyball_policies.seam import Memory, Policy, PoolView
from flyball_proto.codec import encode_input

DEADLINE_S = 0.2
"""How long a policy may take for one snapshot."""

MOST_BYTES = MAX_RECORD_BYTES - MAX_KEY_BYTES
"""How long an answer may be."""

_Outcome = tuple[list[Proposal], str]


class SlowRunner:
    """Asks named policies about snapshots. What they remember lives here, not in the machine's state."""

    def __init__(self, policies: Sequence[Policy], *, deadline_s: float = DEADLINE_S) -> None:
        self._policies: Mapping[str, Policy] = {policy.name: policy for policy in policies}
        self._deadline_s = deadline_s
        self._memory: dict[tuple[str, str], Memory] = {}
        self._at_work: dict[tuple[str, str], int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The policies' names, as `Seams.slow` wants them."""
        return tuple(self._policies)

    async def answer(self, snapshot: Snapshot) -> list[SlowProposal]:
        """An answer of every policy that the snapshot asks, at the latest after the deadline."""
        return list(await asyncio.gather(*(self._ask(snapshot, name) for name in snapshot.policies)))

    async def _ask(self, snapshot: Snapshot, name: str) -> SlowProposal:
        key = (str(snapshot.pool), name)
        policy, view = self._policies.get(name), snapshot.view
        if policy is None or not isinstance(view, PoolView):
            return _missed(snapshot, name, "no such policy runs here")
        if key in self._at_work:
            return _missed(snapshot, name, f"still at work on the snapshot of input {self._at_work[key]}")
        self._at_work[key] = snapshot.tick_revision
        done = self._start(policy, view, key)
        try:
            async with asyncio.timeout(self._deadline_s):
                proposals, fault = await asyncio.shield(done)
        except TimeoutError:
            return _missed(snapshot, name, f"no answer within {self._deadline_s:g} s")
        if fault:
            return _missed(snapshot, name, fault)
        return SlowProposal(
            pool=snapshot.pool, policy=name, tick_revision=snapshot.tick_revision, proposals=tuple(proposals)
        )

    def _start(self, policy: Policy, view: PoolView, key: tuple[str, str]) -> "asyncio.Future[_Outcome]":
        """Let the policy work in a thread; the future is done when it ends, however late."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_Outcome] = loop.create_future()
        memory = self._memory.setdefault(key, {})

        def finish(outcome: _Outcome) -> None:
            self._at_work.pop(key, None)
            if not done.done():
                done.set_result(outcome)

        def work() -> None:
            outcome = ask(policy, view, memory)
            with suppress(RuntimeError):  # the loop has ended meanwhile; nobody waits any more
                loop.call_soon_threadsafe(finish, outcome)

        # A daemon: one that never ends must not keep the process from ending.
        threading.Thread(target=work, name=f"slow-{policy.name}", daemon=True).start()
        return done


class SlowDesk:
    """Brings an owner's snapshots to a runner and its answers into the inputs, beside the owner's loop."""

    def __init__(self, log: Log, runner: SlowRunner) -> None:
        self._log = log
        self._runner = runner
        self._under_way: set[asyncio.Task[None]] = set()
        self.lost = 0
        """Answers that the log did not take. Nobody waits for them: the next tick asks anew."""

    def take(self, snapshots: MutableMapping[str, Snapshot]) -> None:
        """Empty an owner's snapshots and begin on them; returns at once."""
        for pool in sorted(snapshots):
            task = asyncio.get_running_loop().create_task(self._answer(snapshots.pop(pool)))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def settled(self) -> None:
        """Wait until everything begun is answered, which takes no longer than the deadline."""
        await asyncio.gather(*self._under_way)

    async def _answer(self, snapshot: Snapshot) -> None:
        answers = await self._runner.answer(snapshot)
        entries = [Entry(snapshot.pool.encode(), _written(answer, snapshot)) for answer in answers]
        try:
            await self._log.append(Topic.INPUTS, self._log.partition_of(snapshot.pool), entries)
        except FlyballError:  # whatever ails the log, its owner meets and reports it
            self.lost += len(answers)


def _written(answer: SlowProposal, snapshot: Snapshot) -> bytes:
    value = encode_input(answer)
    if len(value) <= MOST_BYTES:
        return value
    return encode_input(_missed(snapshot, answer.policy, f"answered in {len(value)} bytes; {MOST_BYTES} are taken"))


def _missed(snapshot: Snapshot, name: str, why: str) -> SlowProposal:
    return SlowProposal(pool=snapshot.pool, policy=name, tick_revision=snapshot.tick_revision, missed=why)
