"""Telemetry frames, both ways. The hottest code of a controller's edge.

Proto3 presence costs a call per field. A number that reads back other than zero is
present for certain, so presence is asked only of zeros.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from google.protobuf.message import Message

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
from flyball_core.ids import AgentId, BootId, PoolId
from flyball_proto.v1 import telemetry_pb2 as pb

_engine_numbers = attrgetter(*ENGINE_NUMBERS)
_gpu_numbers = attrgetter(*GPU_NUMBERS)
_gateway_numbers = attrgetter(*GATEWAY_NUMBERS)
_SOURCES = {int(source): source for source in BandwidthSource}


def _absent_to_none(message: Message, names: tuple[str, ...], numbers: tuple[float, ...]) -> Sequence[float | None]:
    """The numbers as read, None where the message carries none."""
    if 0.0 not in numbers:
        return numbers
    present = message.HasField
    return [number if number or present(name) else None for name, number in zip(names, numbers, strict=True)]


def _read_engine(message: pb.EngineSample) -> EngineSample:
    numbers = _absent_to_none(message, ENGINE_NUMBERS, _engine_numbers(message))
    return EngineSample._make(
        (message.engine, message.incarnation, message.rank, tuple(message.gpus[:]), message.variant, *numbers)
    )


def _read_gpu(message: pb.GpuSample) -> GpuSample:
    numbers = _absent_to_none(message, GPU_NUMBERS, _gpu_numbers(message))
    # A source that a newer agent knows and we do not is no source we can rely on.
    source = _SOURCES.get(message.hbm_bandwidth_source, BandwidthSource.NONE)
    return GpuSample._make((message.gpu_index, message.uuid, source, message.throttle_reasons, *numbers))


def _read_gateway(message: pb.GatewaySample) -> GatewaySample:
    numbers = _absent_to_none(message, GATEWAY_NUMBERS, _gateway_numbers(message))
    return GatewaySample._make((message.gateway, message.incarnation, message.lane, *numbers))


def read_frame(message: pb.TelemetryFrame) -> Frame:
    """The frame of a message. Nothing is judged here: that is `step`'s business."""
    return Frame(
        AgentId(message.agent),
        BootId(message.boot),
        PoolId(message.pool),
        message.seq,
        message.wall_s,
        message.monotonic_s,
        message.backlog,
        tuple([_read_gpu(gpu) for gpu in message.gpus]),
        tuple([_read_engine(engine) for engine in message.engines]),
        tuple([_read_gateway(gateway) for gateway in message.gateways]) if message.gateways else (),
    )


def _fields(sample: GpuSample | EngineSample | GatewaySample) -> dict[str, Any]:
    """What a sample says, by field; they are called alike in the message. What is missing stays missing."""
    return {name: value for name, value in zip(sample._fields, sample, strict=True) if value is not None}


def fill_frame(message: pb.TelemetryFrame, frame: Frame) -> None:
    """Write a frame; `Rejected` if a number does not fit its field."""
    try:
        message.agent, message.boot, message.pool, message.seq = frame.agent, frame.boot, frame.pool, frame.seq
        message.wall_s, message.monotonic_s, message.backlog = frame.wall_s, frame.monotonic_s, frame.backlog
        for gpu in frame.gpus:
            message.gpus.add(**_fields(gpu))
        for engine in frame.engines:
            message.engines.add(**_fields(engine))
        for gateway in frame.gateways:
            message.gateways.add(**_fields(gateway))
    except (TypeError, ValueError) as error:
        raise Rejected(
            f"frame {frame.agent}/{frame.boot}/{frame.pool}/{frame.seq} does not fit the contract: {error}"
        ) from error
