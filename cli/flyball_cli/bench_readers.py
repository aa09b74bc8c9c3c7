"""The two readers that are compared: one that only reads frames, and one that governs by them.

Both consume the same log through the same interface. The bare reader is what somebody would
write over the generated classes who needs every field and must not take missing for zero; it
keeps nothing. The stepping reader does what an owner does, up to the bytes it would publish.
The clock starts with the first record, so that no home is charged for finding the beginning.
"""

from collections.abc import AsyncIterator
from time import perf_counter

from google.protobuf.message import Message

from flyball_controller.machine import PartitionState, standard_seams, step
from flyball_controller.owner import publication
from flyball_core.frames import ENGINE_NUMBERS, GPU_NUMBERS
from flyball_log.interface import Log, Record, Topic
from flyball_proto.codec import decode_input
from flyball_proto.v1.inputs_pb2 import InputRecord
from flyball_proto.v1.telemetry_pb2 import EngineSample, GpuSample, TelemetryFrame

READ_AT_ONCE = 500


async def consume(log: Log, partition: int, end: int) -> AsyncIterator[list[Record]]:
    """The inputs of a partition from the first, which comes alone, to `end`, in handfuls."""
    at = 0
    while at < end:
        records = await log.read(Topic.INPUTS, partition, at, limit=READ_AT_ONCE if at else 1, wait_s=1.0)
        if not records:
            return
        yield records
        at = records[-1].offset + 1


async def read_bare(log: Log, partition: int, end: int, *, presence: bool = True) -> float:
    """Consume and parse every input and read every field of every frame; seconds taken.

    `presence=False` takes a missing number for zero, which no controller may.
    """
    read_engine, read_gpu = (_engine, _gpu) if presence else (_engine_or_zero, _gpu_or_zero)
    began = 0.0
    async for records in consume(log, partition, end):
        began = began or perf_counter()
        for record in records:
            message = InputRecord.FromString(record.value or b"")
            if message.WhichOneof("body") == "frame":
                frame = message.frame
                _header(frame)
                for gpu in frame.gpus:
                    read_gpu(gpu)
                for engine in frame.engines:
                    read_engine(engine)
    return perf_counter() - began


def _header(frame: TelemetryFrame) -> tuple[object, ...]:
    return frame.agent, frame.boot, frame.pool, frame.seq, frame.wall_s, frame.monotonic_s, frame.backlog


def _engine(sample: EngineSample) -> tuple[object, ...]:
    names = (sample.engine, sample.incarnation, sample.rank, tuple(sample.gpus), sample.variant)
    return names, _present(sample, ENGINE_NUMBERS)


def _gpu(sample: GpuSample) -> tuple[object, ...]:
    names = (sample.gpu_index, sample.uuid, sample.hbm_bandwidth_source, sample.throttle_reasons)
    return names, _present(sample, GPU_NUMBERS)


def _present(message: Message, names: tuple[str, ...]) -> list[float | None]:
    return [getattr(message, name) if message.HasField(name) else None for name in names]


def _engine_or_zero(sample: EngineSample) -> tuple[object, ...]:
    names = (sample.engine, sample.incarnation, sample.rank, tuple(sample.gpus), sample.variant)
    return names, [getattr(sample, name) for name in ENGINE_NUMBERS]


def _gpu_or_zero(sample: GpuSample) -> tuple[object, ...]:
    names = (sample.gpu_index, sample.uuid, sample.hbm_bandwidth_source, sample.throttle_reasons)
    return names, [getattr(sample, name) for name in GPU_NUMBERS]


async def read_stepping(log: Log, partition: int, end: int) -> tuple[float, PartitionState]:
    """Consume, decode and step every input, and encode what would be published; seconds taken, and the state."""
    state, seams = PartitionState(log_id=log.log_id, partition=partition), standard_seams()
    began = 0.0
    async for records in consume(log, partition, end):
        began = began or perf_counter()
        for record in records:
            for output in step(state, decode_input(record.offset, record.value), seams):
                publication(output)
    return perf_counter() - began, state
