"""`step`: one input in, outputs out. The only way anything in the machine changes.

Inputs are filed; only a tick of the claim in force decides. Nothing is answered before
that claim's first tick, so a new owner publishes nothing before it has decided itself.
"""

import math
import zlib

from flyball_controller.machine import answers, orders
from flyball_controller.machine.admission import MAX_NAME, MAX_POOLS_OF_ONE
from flyball_controller.machine.alarms import look_at_claims
from flyball_controller.machine.filing import file_frame
from flyball_controller.machine.records import Recorder
from flyball_controller.machine.seams import Seams
from flyball_controller.machine.state import PartitionState, PoolState
from flyball_controller.machine.tick import run_tick
from flyball_core.frames import Frame
from flyball_core.inputs import (
    Ack,
    Attach,
    Claim,
    Grant,
    Input,
    Intent,
    Malformed,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Rebase,
    SlowProposal,
    Tick,
)
from flyball_core.outputs import CheckpointDue, Output

LONGEST_INTERVAL_S = 5.0
"""No tick moves the machine's time by more: an owner that slept has not lived that time."""

LONGEST_TAKEOVER_S = 60.0
"""Nor does a takeover, whose interval comes from the wall clock."""

CHECKPOINT_TICKS = 60
MAX_POOLS = 1_024


def step(state: PartitionState, item: Input, seams: Seams) -> list[Output]:
    """Take one input; answer what is to be published. Deterministic; never raises on bad input."""
    body = item.body
    # Every record counts, heeded or not: a bit changed anywhere shows at the next tick.
    state.digest = zlib.crc32(item.checksum.to_bytes(4, "little"), state.digest)
    if type(body) is Tick:
        return _take_tick(state, item.offset, body, seams)
    if type(body) is Frame:
        pool = state.pools.get(body.pool) or _begun(state, body)
        if pool is not None:
            file_frame(pool, body, state.time_s)
    elif isinstance(body, Claim):
        _take_claim(state, item.offset, body)
    elif isinstance(body, Malformed):
        state.count("malformed")
    else:
        _take_order(state, item.offset, body)
    return []


def _begun(state: PartitionState, body: "Frame | _Standing") -> PoolState | None:
    """The pool that begins with this input; None, and counted, if none may."""
    if not 0 < len(body.pool) <= MAX_NAME or len(state.pools) >= MAX_POOLS or not _may_begin(state, body):
        state.count("inputs_without_pool")
        return None
    pool = state.pools[body.pool] = PoolState(pool=body.pool)
    return pool


def _may_begin(state: PartitionState, body: "Frame | _Standing") -> bool:
    """Whether whoever says this has not begun too many; an answer begins nothing."""
    if isinstance(body, Frame):
        return sum(body.agent in pool.agents for pool in state.pools.values()) < MAX_POOLS_OF_ONE
    if isinstance(body, Attach):
        return sum(pool.holding(body.kind, body.target) is not None for pool in state.pools.values()) < MAX_POOLS_OF_ONE
    return not isinstance(body, Ack)


def _take_claim(state: PartitionState, offset: int, body: Claim) -> None:
    if body.log_id != state.log_id:
        state.count("claims_of_another_log")
        return
    state.epoch, state.owner, state.first_tick_done = offset, body.owner, False
    look_at_claims(state, body.owner, offset)


_Said = OverrideSet | OverrideClear | PolicyText | Order | Rebase
_Standing = Attach | Ack | _Said | Intent | Grant | SlowProposal


def _take_order(state: PartitionState, offset: int, body: object) -> None:
    if not isinstance(body, _Standing):
        state.count("inputs_of_unknown_kind")
        return
    pool = state.pools.get(body.pool) or _begun(state, body)
    if pool is None:
        return
    recorder = Recorder(state, pool, offset)
    if isinstance(body, Ack):
        orders.take_ack(pool, body, recorder, state.time_s)
    elif isinstance(body, Attach):
        orders.take_attach(pool, body, recorder, state.time_s)
    elif isinstance(body, Intent):
        orders.take_intent(pool, body)
    elif isinstance(body, Grant):
        orders.take_grant(pool, body)
    elif isinstance(body, SlowProposal):
        answers.take_slow_proposal(pool, body, recorder)
    else:
        _take_operators_word(state, pool, offset, body, recorder)


def _take_operators_word(state: PartitionState, pool: PoolState, offset: int, body: _Said, recorder: Recorder) -> None:
    if isinstance(body, Rebase):
        orders.take_rebase(pool, body, state.wall_s, recorder)
        return
    pool.orders_end = offset + 1  # these are what an intent repeats
    if isinstance(body, OverrideSet):
        orders.take_override(pool, body, recorder)
    elif isinstance(body, OverrideClear):
        orders.clear_override(pool, body, recorder)
    elif isinstance(body, PolicyText):
        orders.take_policy(pool, body, recorder)
    else:
        orders.take_order(pool, body, recorder)


def _take_tick(state: PartitionState, offset: int, body: Tick, seams: Seams) -> list[Output]:
    if body.epoch != state.epoch or state.epoch < 0:
        state.count("ticks_of_another_epoch")
        return []
    takeover = not state.first_tick_done
    interval_s = _elapsed(state, body, takeover=takeover)
    state.first_tick_done = True
    state.time_s += interval_s
    state.wall_before_s, state.wall_s = state.wall_s, body.wall_s if math.isfinite(body.wall_s) else state.wall_s
    state.ticks += 1
    outputs: list[Output] = []
    for name in sorted(state.pools):
        outputs.extend(run_tick(state, state.pools[name], offset, interval_s, seams, takeover=takeover))
    if state.ticks % CHECKPOINT_TICKS == 0:
        # Everybody rebuilds here, whether or not anybody stores a checkpoint.
        for name in sorted(state.pools):
            seams.detector(state.pools[name]).rebuild(state.pools[name].detector)
        outputs.append(CheckpointDue(revision=offset))
    return outputs


def _elapsed(state: PartitionState, body: Tick, *, takeover: bool) -> float:
    """Seconds by which this tick moves the machine's time; NaN and the absurd move it not at all."""
    if not takeover:
        return _clipped(body.interval_s, LONGEST_INTERVAL_S)
    if state.ticks == 0:
        return 0.0
    return _clipped(body.wall_s - state.wall_s, LONGEST_TAKEOVER_S)


def _clipped(value: float, highest: float) -> float:
    return 0.0 if math.isnan(value) else min(max(value, 0.0), highest)
