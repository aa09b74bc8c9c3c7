"""The owner of partitions: claims, reads inputs, steps, publishes what was decided.

It has no clock of its own: whoever drives it says when to tick and what time it is, a
loop in life and a simulator in virtual time. It cannot reach an engine: that is `pusher`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flyball_controller.checkpoints import SLOTS, checkpoint_entries, find_checkpoint
from flyball_controller.machine import PartitionState, Seams, step
from flyball_controller.machine.orders import INTENTS_OUT_OF_DATE, standing_intent
from flyball_core.errors import LogExchanged, OffsetGone, Rejected
from flyball_core.ids import OwnerId, PoolId
from flyball_core.inputs import Claim, Fingerprint, Input, Malformed, Tick
from flyball_core.outputs import (
    CheckpointDue,
    DecisionRecord,
    Output,
    Snapshot,
    TickRecord,
    Tombstone,
    compacted_key,
)
from flyball_log.interface import Entry, Log, Topic
from flyball_log.limits import MAX_KEY_BYTES, MAX_RECORD_BYTES
from flyball_proto.codec import decode_input, encode_audit, encode_directive, encode_input

READ_AT_ONCE = 500

MOST_AUDIT_BYTES = MAX_RECORD_BYTES - MAX_KEY_BYTES
SHORT_SUMMARY = 1_000

INTENT_EVERY_S = 6 * 3600.0
"""How often the standing orders are repeated: a quarter of a retention of a day."""


@dataclass(slots=True)
class Owned:
    """One partition in this owner's hands."""

    state: PartitionState
    seams: Seams
    next_offset: int
    epoch: int
    end: int = 0
    """Where the inputs end, as far as is known here."""
    lost: bool = False
    """A later claim was read: nothing is done for this partition any more."""
    lost_to: str = ""
    """Whose claim that was."""
    refused: tuple[str, ...] = ()
    old_checkpoints: tuple[bytes, ...] = ()
    checkpoints: int = 0
    intent_s: float = 0.0
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    """By pool, what policies outside `step` were last asked; an older question is not worth an answer."""
    unreadable: int = 0
    """Inputs read here that nobody can read."""
    last_unreadable: str = ""
    """Where the last of them stands, and what is wrong with it."""
    unpublished: list[tuple[Topic, Entry]] = field(default_factory=list)
    """What the log did not take yet; it is offered again before anything later."""


def publication(output: Output) -> tuple[Topic, Entry] | None:
    """Where an output goes and as what; None for what stays in the process."""
    if isinstance(output, (DecisionRecord, TickRecord)):
        return Topic.DECISIONS, Entry(output.pool.encode(), _audit(output))
    if isinstance(output, Tombstone):
        return Topic.DIRECTIVES, Entry(output.key.encode(), None)
    if isinstance(output, (Snapshot, CheckpointDue)):
        return None
    return Topic.DIRECTIVES, Entry(compacted_key(output).encode(), encode_directive(output))


def _audit(output: DecisionRecord | TickRecord) -> bytes:
    """The record's bytes; of one that quotes more than the log takes, its beginning and how long it was."""
    value = encode_audit(output)
    if len(value) <= MOST_AUDIT_BYTES or isinstance(output, TickRecord):
        return value
    summary = f"{output.summary[:SHORT_SUMMARY]} (cut short: {len(value)} bytes in all)"
    return encode_audit(replace(output, summary=summary, verdicts=(), published=(), effective={}))


class Owner:
    """Owns partitions of one log. One task drives it, or one for each partition; no two for the same."""

    def __init__(self, log: Log, owner: OwnerId, new_seams: Callable[[], Seams], fingerprint: Fingerprint) -> None:
        self._log = log
        self._owner = owner
        self._new_seams = new_seams
        self._fingerprint = fingerprint
        self.owned: dict[int, Owned] = {}

    async def take(self, partition: int, wall_s: float) -> Owned:
        """Restore the partition's state, claim it, and repeat its standing orders."""
        restored = await find_checkpoint(self._log, partition)
        owned = Owned(
            state=restored.state,
            seams=self._new_seams(),
            next_offset=restored.revision + 1,
            epoch=-1,
            refused=restored.refused,
            old_checkpoints=restored.keys,
        )
        await self._read_past(owned, partition)
        claim = Claim(owner=self._owner, log_id=self._log.log_id, fingerprint=self._fingerprint, wall_s=wall_s)
        [owned.epoch] = await self._log.append(Topic.INPUTS, partition, [Entry(b"", encode_input(claim))])
        self.owned[partition] = owned
        await self._repeat_orders(owned, partition)
        return owned

    def drop(self, partition: int) -> None:
        """Let go of a partition, as a rebalance asks."""
        self.owned.pop(partition, None)

    async def tick(self, partition: int, interval_s: float, wall_s: float) -> None:
        """Append the owner's beat and take what it answers, all inputs before it included."""
        owned = self.owned[partition]
        if owned.lost:
            return
        if owned.state.time_s - owned.intent_s >= INTENT_EVERY_S:
            await self._repeat_orders(owned, partition)
        tick = Tick(epoch=owned.epoch, interval_s=interval_s, wall_s=wall_s)
        [offset] = await self._log.append(Topic.INPUTS, partition, [Entry(b"", encode_input(tick))])
        if 0 <= offset < owned.next_offset:
            said = f"a tick of partition {partition} stands at {offset}, and {owned.next_offset} inputs were read"
            raise LogExchanged(f"{self._log.where} is another log than it was: {said}")
        await self._step_to(owned, partition, offset + 1)

    async def poll(self, partition: int) -> int:
        """Step through what is new in the inputs and publish the answers; the number of inputs read."""
        bounds = await self._log.bounds(Topic.INPUTS, partition)
        return await self._step_to(self.owned[partition], partition, bounds.end)

    async def _step_to(self, owned: Owned, partition: int, end: int) -> int:
        """As `poll`, up to an offset: what comes in meanwhile, however much, must not keep a tick from its end."""
        owned.end = max(owned.end, end)
        taken = 0
        await self._publish(owned, partition)
        while not owned.lost and owned.next_offset < end:
            records = await self._log.read(Topic.INPUTS, partition, owned.next_offset, limit=READ_AT_ONCE)
            if not records:
                return taken
            for record in records:
                owned.next_offset = record.offset + 1
                made = self._step(owned, decode_input(record.offset, record.value))
                if made is None:
                    break
                owned.unpublished.extend(made)
            taken += len(records)
            await self._publish(owned, partition)
            await asyncio.sleep(0)  # heartbeats of a group run on the same event loop
        return taken

    def _step(self, owned: Owned, item: Input) -> list[tuple[Topic, Entry]] | None:
        """What one input has this owner publish; None if it is another's later claim."""
        if isinstance(item.body, Claim) and item.offset > owned.epoch and item.body.log_id == self._log.log_id:
            owned.lost, owned.lost_to = True, item.body.owner
            return None
        if isinstance(item.body, Malformed):
            owned.unreadable += 1
            owned.last_unreadable = f"input {item.offset}: {item.body.reason}"
        outputs = step(owned.state, item, owned.seams)
        publications = []
        for output in outputs:
            if owned.state.epoch != owned.epoch:
                continue  # an earlier owner's answer, read on the way to our claim
            made = publication(output)
            if made is not None:
                publications.append(made)
            elif isinstance(output, CheckpointDue):
                publications.extend(self._checkpoint(owned, output.revision))
            elif isinstance(output, Snapshot):
                owned.snapshots[output.pool] = output
        return publications

    def _checkpoint(self, owned: Owned, revision: int) -> list[tuple[Topic, Entry]]:
        slot = owned.checkpoints % SLOTS
        try:
            made = [(Topic.STATE, entry) for entry in checkpoint_entries(owned.state, revision, slot)]
        except Rejected as error:  # a policy remembers what cannot be kept; the inputs still can
            owned.refused = (*owned.refused[-8:], f"no checkpoint at {revision}: {error}")
            return []
        owned.checkpoints += 1
        if owned.checkpoints == SLOTS:  # two of our own stand: those of earlier epochs may go
            made.extend((Topic.STATE, Entry(key, None)) for key in owned.old_checkpoints)
            owned.old_checkpoints = ()
        return made

    async def _publish(self, owned: Owned, partition: int) -> None:
        for topic in (Topic.DECISIONS, Topic.DIRECTIVES, Topic.STATE):
            entries = [entry for where, entry in owned.unpublished if where is topic]
            if entries:
                await self._log.append(topic, partition, entries)
                owned.unpublished = [made for made in owned.unpublished if made[0] is not topic]

    async def _repeat_orders(self, owned: Owned, partition: int) -> None:
        """Append the standing orders of every pool, and again if an order overtook them."""
        owned.intent_s = owned.state.time_s
        overtaken = True
        while overtaken and not owned.lost:
            await self.poll(partition)
            before = _intents_out_of_date(owned.state)
            intents = [
                Entry(PoolId(name).encode(), encode_input(intent))
                for name in sorted(owned.state.pools)
                if (intent := standing_intent(owned.state.pools[name], owned.next_offset)) is not None
            ]
            if intents and not owned.lost:
                offsets = await self._log.append(Topic.INPUTS, partition, intents)
                await self._step_to(owned, partition, offsets[-1] + 1)
            overtaken = _intents_out_of_date(owned.state) > before

    async def _read_past(self, owned: Owned, partition: int) -> None:
        """Bring the restored state up to the end of the log; its answers were published by others."""
        bounds = await self._log.bounds(Topic.INPUTS, partition)
        if not bounds.begin <= owned.next_offset <= bounds.end:
            reason = f"the state is as of input {owned.next_offset - 1}, and the log ends at {bounds.end}"
            if owned.next_offset < bounds.begin:
                reason = f"the state is older than the inputs kept: {OffsetGone(owned.next_offset, bounds.begin)}"
            owned.refused += (reason,) if owned.next_offset else ()
            owned.state = PartitionState(log_id=self._log.log_id, partition=partition)
            owned.seams = self._new_seams()
            owned.next_offset = bounds.begin
        while owned.next_offset < bounds.end:
            records = await self._log.read(Topic.INPUTS, partition, owned.next_offset, limit=READ_AT_ONCE)
            if not records:
                return
            for record in records:
                step(owned.state, decode_input(record.offset, record.value), owned.seams)
            owned.next_offset = records[-1].offset + 1
            await asyncio.sleep(0)


def _intents_out_of_date(state: PartitionState) -> int:
    return sum(pool.counts.get(INTENTS_OUT_OF_DATE, 0) for pool in state.pools.values())
