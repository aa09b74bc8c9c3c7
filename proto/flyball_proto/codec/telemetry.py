"""Telemetry frames, both ways. The hottest code of a controller's edge.

Proto3 presence costs a call per field. A number that reads back other than zero is
present for certain, so presence is asked only of zeros.
"""

from collections.abc import Sequence
from operator import attrgetter

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
    zeros = numbers.count(0.0)
    if not zeros:
        return numbers
    found: list[float | None] = list(numbers)
    at = -1
    for _ in range(zeros):
        at = numbers.index(0.0, at + 1)
        if not message.HasField(names[at]):
            found[at] = None
    return found


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


def _fill_numbers(message: Message, names: tuple[str, ...], numbers: tuple[float | None, ...]) -> None:
    for name, number in zip(names, numbers, strict=True):
        if number is not None:
            setattr(message, name, number)


def fill_frame(message: pb.TelemetryFrame, frame: Frame) -> None:
    """Write a frame; `Rejected` if a number does not fit its field."""
    try:
        message.agent, message.boot, message.pool, message.seq = frame.agent, frame.boot, frame.pool, frame.seq
        message.wall_s, message.monotonic_s, message.backlog = frame.wall_s, frame.monotonic_s, frame.backlog
        for gpu in frame.gpus:
            made = message.gpus.add(
                gpu_index=gpu.gpu_index,
                uuid=gpu.uuid,
                hbm_bandwidth_source=pb.BandwidthSource.ValueType(int(gpu.hbm_bandwidth_source)),
                throttle_reasons=gpu.throttle_reasons,
            )
            _fill_numbers(made, GPU_NUMBERS, gpu[4:])
        for engine in frame.engines:
            sample = message.engines.add(
                engine=engine.engine,
                incarnation=engine.incarnation,
                rank=engine.rank,
                gpus=engine.gpus,
                variant=engine.variant,
            )
            _fill_numbers(sample, ENGINE_NUMBERS, engine[5:])
        for gateway in frame.gateways:
            row = message.gateways.add(gateway=gateway.gateway, incarnation=gateway.incarnation, lane=gateway.lane)
            _fill_numbers(row, GATEWAY_NUMBERS, gateway[3:])
    except (TypeError, ValueError) as error:
        raise Rejected(
            f"frame {frame.agent}/{frame.boot}/{frame.pool}/{frame.seq} does not fit the contract: {error}"
        ) from error
