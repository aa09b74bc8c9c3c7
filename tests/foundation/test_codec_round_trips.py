"""What is encoded is decoded as it was: above all, what is missing stays missing and zero stays zero."""

import math
from typing import TypeVar

import pytest
from hypothesis import given, strategies as st

from flyball_core.errors import Rejected
from flyball_core.frames import (
    ENGINE_NUMBERS,
    GATEWAY_NUMBERS,
    GPU_NUMBERS,
    BandwidthSource,
    EngineSample,
    Frame,
    GatewaySample,
    GpuSample,
)
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, PoolId
from flyball_core.inputs import Body, Malformed, OverrideSet
from flyball_core.knobs import Value
from flyball_proto.codec import decode_input, encode_frame, encode_input

T = TypeVar("T")

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
REALS = st.floats(allow_nan=False)
NUMBERS = st.none() | st.just(0.0) | REALS
INDICES = st.integers(0, 2**32 - 1)
VALUES: st.SearchStrategy[Value] = st.booleans() | st.integers(-(2**63), 2**63 - 1) | REALS | TEXTS


def row(names: tuple[str, ...]) -> st.SearchStrategy[tuple[float | None, ...]]:
    """Numbers for the numeric tail of a sample, some of them missing."""
    return st.tuples(*(NUMBERS for _ in names))


@st.composite
def gpu_samples(draw: st.DrawFn) -> GpuSample:
    """GPU samples with holes."""
    mask = draw(st.integers(0, 2**64 - 1))
    return GpuSample(draw(INDICES), draw(TEXTS), draw(st.sampled_from(BandwidthSource)), mask, *draw(row(GPU_NUMBERS)))


@st.composite
def engine_samples(draw: st.DrawFn) -> EngineSample:
    """Engine samples with holes."""
    gpus = tuple(draw(st.lists(INDICES, max_size=8)))
    who = EngineId(draw(TEXTS)), Incarnation(draw(TEXTS)), draw(INDICES), gpus, draw(TEXTS)
    return EngineSample(*who, *draw(row(ENGINE_NUMBERS)))


@st.composite
def gateway_samples(draw: st.DrawFn) -> GatewaySample:
    """Gateway samples with holes."""
    who = GatewayId(draw(TEXTS)), Incarnation(draw(TEXTS)), draw(TEXTS)
    return GatewaySample(*who, *draw(row(GATEWAY_NUMBERS)))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Frames of few samples, with missing numbers and zeros."""
    return Frame(
        AgentId(draw(TEXTS)),
        BootId(draw(TEXTS)),
        PoolId(draw(TEXTS)),
        draw(st.integers(0, 2**64 - 1)),
        draw(REALS),
        draw(REALS),
        draw(st.booleans()),
        tuple(draw(st.lists(gpu_samples(), max_size=2))),
        tuple(draw(st.lists(engine_samples(), max_size=2))),
        tuple(draw(st.lists(gateway_samples(), max_size=2))),
    )


def again(body: Body) -> Body:
    """`body` after a journey over the wire."""
    return decode_input(0, encode_input(body)).body


@given(frames())
def test_frames_come_back(frame: Frame) -> None:
    """A frame comes back as it was, and its bytes do not depend on how often it travelled."""
    back = again(frame)

    assert frame == back
    assert encode_input(frame) == encode_input(back)


@given(frames())
def test_both_forms_of_a_frame_are_what_each_would_be_alone(frame: Frame) -> None:
    """A frame written live and as backlog in one go has the bytes of each written by itself."""
    alone = encode_input(frame._replace(backlog=False)), encode_input(frame._replace(backlog=True))

    assert alone == encode_frame(frame)


@given(frames())
def test_missing_stays_missing(frame: Frame) -> None:
    """Each number that was missing is missing, and each that was zero is zero, not missing."""
    back = again(frame)
    assert isinstance(back, Frame)

    for sent, got in zip(
        (*frame.gpus, *frame.engines, *frame.gateways), (*back.gpus, *back.engines, *back.gateways), strict=True
    ):
        assert [value is None for value in sent] == [value is None for value in got]


def test_not_a_number_travels_as_such() -> None:
    """NaN and the infinities are neither dropped nor turned into something else on the way: `step` judges them."""
    numbers = math.nan, math.inf, -math.inf
    engine = EngineSample(EngineId("e"), Incarnation("i"), 0, (), "", *numbers)
    back = again(Frame(AgentId("a"), BootId("b"), PoolId("p"), 0, 0.0, 0.0, backlog=False, gpus=(), engines=(engine,)))

    assert isinstance(back, Frame)
    assert [str(number) for number in numbers] == [str(number) for number in back.engines[0][5:8]]


@given(VALUES)
def test_values_keep_value_and_type(value: Value) -> None:
    """A knob's value comes back with its type: True is not 1, and 1 is not 1.0."""
    pin = OverrideSet(
        pool=PoolId("p"), override_id="o", target="", knob="k", value=value, expires_wall_s=0.0, reason="", author=""
    )
    back = again(pin)

    assert pin == back
    assert isinstance(back, OverrideSet)
    assert type(value) is type(back.value)


@pytest.mark.parametrize("seq", [-1, 2**64])
def test_a_frame_that_does_not_fit_is_refused(seq: int) -> None:
    """A sequence number that the contract has no room for is refused in one sentence."""
    with pytest.raises(Rejected, match=r"frame a/b/p/.* does not fit the contract"):
        encode_input(Frame(AgentId("a"), BootId("b"), PoolId("p"), seq, 0.0, 0.0, backlog=False, gpus=(), engines=()))


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    """A value that the contract has no room for is refused."""
    pin = OverrideSet(
        pool=PoolId("p"), override_id="o", target="", knob="k", value=2**63, expires_wall_s=0.0, reason="", author=""
    )

    with pytest.raises(Rejected, match="does not fit 64 bits"):
        encode_input(pin)


def test_what_was_malformed_is_not_sent() -> None:
    """`Malformed` is a finding, not a message."""
    with pytest.raises(Rejected, match="not an input that can be sent"):
        encode_input(Malformed(reason="tombstone"))
