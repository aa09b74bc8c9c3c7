"""Hypothesis strategies for inputs of every kind: plausible ones, and ones that nobody would send."""

import math

from hypothesis import strategies as st

from flyball_core.fencing import Version
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GatewaySample, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, LogId, OwnerId, PoolId
from flyball_core.inputs import (
    Ack,
    AckStatus,
    Attach,
    Body,
    Claim,
    Fingerprint,
    Grant,
    Intent,
    Mode,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Proposal,
    Rebase,
    SlowProposal,
    TargetKind,
    Tick,
)
from flyball_core.knobs import BATCH_CAP, VARIANT, KnobClass, KnobKind, KnobSpec
from harness.scripted_pool import LOG_ID, POLICY, WALL_S

_TEXTS = st.sampled_from(["", "x", "é😀", "a" * 300, "e0-0", "\x00", "override:o1"])
_NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 5.0, WALL_S, WALL_S + 100, 1e18, 1e308, -1e308, 5e-324]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.floats(),
)
_MAYBE = st.none() | _NUMBERS

_TABLE = (None, None, 0.0, 0.5, 1.0, 7.0, 1e4, 1e9, 1e17, 5e-324, -1.0, 1e25, 1e308, math.nan, math.inf, -math.inf)


def _row(length: int) -> st.SearchStrategy[list[float | None]]:
    """Numbers of a sample: drawn in one go, because a frame has many, and one of them any float there is."""

    def make(picks: bytes, number: float, mostly_sound: int) -> list[float | None]:
        row = [_TABLE[pick % (10 if mostly_sound else len(_TABLE))] for pick in picks]
        row[picks[0] % length] = number
        return row

    return st.builds(make, st.binary(min_size=length, max_size=length), st.floats(), st.integers(0, 2))


_POOLS = st.sampled_from([PoolId("chat"), PoolId("chat"), PoolId("chat"), PoolId("other"), PoolId("")])
_ENGINES = st.sampled_from(["e0-0", "e0-1", "e1-0", "e9", ""])
_KNOBS = st.sampled_from([BATCH_CAP, VARIANT, "weight", "nothing", ""])
_OFFSETS = st.integers(0, 60) | st.integers(0, 2**64 - 1)
_VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 300), _NUMBERS, st.booleans(), _TEXTS)
_SETTINGS = st.dictionaries(st.sampled_from([BATCH_CAP, VARIANT, "cap:e0-0", "x"]), _VALUES, max_size=3)
_INCARNATIONS = st.sampled_from([Incarnation("i0"), Incarnation("g0"), Incarnation("i7"), Incarnation("")])

VERSIONS = st.builds(
    Version,
    log_id=st.sampled_from([LOG_ID, LogId("another")]),
    partition=st.sampled_from([0, 0, 3]),
    epoch=_OFFSETS,
    revision=_OFFSETS,
)

_ENGINE_SAMPLES = st.builds(
    lambda engine, incarnation, rank, gpus, numbers: EngineSample(
        EngineId(engine), incarnation, rank, gpus, "graphs", *numbers
    ),
    _ENGINES,
    _INCARNATIONS,
    st.sampled_from([0, 0, 1, 2**32 - 1]),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    _row(24),
)
_GPU_SAMPLES = st.builds(
    lambda index, reasons, numbers: GpuSample(index, "u", BandwidthSource.GPM, reasons, *numbers),
    st.integers(0, 9),
    st.integers(0, 2**64 - 1),
    _row(11),
)
_GATEWAY_SAMPLES = st.builds(
    lambda numbers: GatewaySample(GatewayId("gw0"), Incarnation("g0"), "bulk", *numbers),
    _row(5),
)

FRAMES = st.builds(
    Frame,
    agent=st.sampled_from([AgentId("a0"), AgentId("a1"), AgentId("a9"), AgentId("")]),
    boot=st.sampled_from([BootId("b0"), BootId("b1"), BootId("")]),
    pool=_POOLS,
    seq=_OFFSETS,
    wall_s=_NUMBERS,
    monotonic_s=_NUMBERS,
    backlog=st.booleans(),
    gpus=st.lists(_GPU_SAMPLES, max_size=2).map(tuple),
    engines=st.lists(_ENGINE_SAMPLES, max_size=3).map(tuple),
    gateways=st.lists(_GATEWAY_SAMPLES, max_size=1).map(tuple),
)


def _sound(knob: KnobSpec) -> bool:
    """Whether the wire would carry it: the codec refuses a knob whose own safe value does not fit it."""
    return knob.refuse(knob.safe) is None


_SPECS = st.builds(
    KnobSpec,
    name=_KNOBS,
    knob_class=st.sampled_from(KnobClass),
    kind=st.sampled_from(KnobKind),
    safe=_VALUES,
    minimum=_MAYBE,
    maximum=_MAYBE,
    choices=st.sampled_from([(), ("graphs",), ("graphs", "splitkv")]),
    unit=_TEXTS,
)
_KINDS = st.sampled_from(TargetKind)
_TARGETS = st.one_of(_ENGINES, st.just("gw0"))
_OVERRIDES = st.builds(
    OverrideSet,
    pool=_POOLS,
    override_id=st.sampled_from(["o1", "o2", ""]),
    target=_ENGINES,
    knob=_KNOBS,
    value=_VALUES,
    expires_wall_s=_NUMBERS,
    reason=_TEXTS,
    author=_TEXTS,
)
_POLICIES = st.sampled_from(["slow", "caps-aimd", "stranger", ""])
_PROPOSALS = st.builds(
    Proposal,
    policy=_POLICIES,
    kind=_KINDS,
    target=_TARGETS,
    knob=_KNOBS,
    value=_VALUES,
    reason=_TEXTS,
    propensity=_NUMBERS,
)
_DOCUMENTS = st.sampled_from(
    [
        POLICY,
        POLICY + "guard: {raise_dwell: 1s, changes_per_hour: 0}\n",
        POLICY.replace("max: 128", "max: 20"),
        POLICY.replace("mode: control", "mode: advise"),
        "",
        "version: 1",
        "version: 2",
        "a: [",
        "\x00",
        "é" * 40_000,
    ]
)

BODIES: st.SearchStrategy[Body] = st.one_of(
    FRAMES,
    st.builds(
        Tick,
        epoch=st.sampled_from([0, 0, 0, 1, 2**64 - 1]),
        interval_s=st.just(1.0) | _NUMBERS,
        wall_s=st.just(WALL_S) | _NUMBERS,
    ),
    st.builds(
        Claim,
        owner=st.just(OwnerId("c9")),
        log_id=st.sampled_from([LogId("another"), LogId("")]),
        fingerprint=st.just(Fingerprint(flyball="", numpy="", river="", cpu=())),
        wall_s=_NUMBERS,
    ),
    st.builds(
        Attach,
        pool=_POOLS,
        kind=_KINDS,
        target=_TARGETS,
        incarnation=_INCARNATIONS,
        attached=st.booleans(),
        capability_hash=_TEXTS,
        knobs=st.lists(_SPECS.filter(_sound), max_size=2).map(tuple),
        held=st.none() | VERSIONS,
        effective=_SETTINGS,
    ),
    st.builds(
        Ack,
        pool=_POOLS,
        kind=_KINDS,
        target=_TARGETS,
        incarnation=_INCARNATIONS,
        version=VERSIONS,
        status=st.sampled_from(AckStatus),
        reason=_TEXTS,
        effective=_SETTINGS,
    ),
    _OVERRIDES,
    st.builds(OverrideClear, pool=_POOLS, override_id=st.sampled_from(["o1", "x"]), author=_TEXTS),
    st.builds(PolicyText, pool=_POOLS, text=_DOCUMENTS, author=_TEXTS),
    st.builds(
        Order,
        pool=_POOLS,
        author=_TEXTS,
        reason=_TEXTS,
        mode=st.none() | st.sampled_from(Mode),
        paused=st.none() | st.booleans(),
        reset_policy=st.none() | _POLICIES,
    ),
    st.builds(Rebase, pool=_POOLS, target=_TARGETS | st.just(""), author=_TEXTS, reason=_TEXTS),
    st.builds(
        Intent,
        pool=_POOLS,
        policy_text=_DOCUMENTS,
        policy_author=_TEXTS,
        mode=st.sampled_from(Mode),
        paused=st.booleans(),
        overrides=st.lists(_OVERRIDES, max_size=2).map(tuple),
        as_of=_OFFSETS,
    ),
    st.builds(Grant, pool=_POOLS, name=_TEXTS, amount=_NUMBERS, expires_wall_s=_NUMBERS),
    st.builds(
        SlowProposal,
        pool=_POOLS,
        policy=_POLICIES,
        tick_revision=_OFFSETS,
        missed=_TEXTS,
        proposals=st.lists(_PROPOSALS, max_size=2).map(tuple),
    ),
)
"""Any input of the contract, as it can come off the wire."""
