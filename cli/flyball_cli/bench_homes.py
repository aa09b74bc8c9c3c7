"""A log of each home, filled with the same traffic, for as long as a bench needs it.

The broker is a private one, started by the project's own script in a folder of its own and
stopped afterwards: a bench leaves no topics on a broker that somebody else uses.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from flyball_cli.bench_fleet import START_WALL_S, ScriptedPool
from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.owner import Owner
from flyball_core.errors import LogUnavailable, Rejected
from flyball_core.frames import Frame
from flyball_core.ids import OwnerId
from flyball_core.inputs import Ack, Attach, PolicyText
from flyball_log import Entry, Log, Topic, open_log
from flyball_log.embedded import EmbeddedLog
from flyball_proto.codec import decode_directive, encode_input

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kafka_broker.py"
_PREFIX = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A log with everything a pool said and was told in some seconds of its life."""

    log: Log
    partition: int
    frames: int
    ticks: int
    end: int
    """The offset after the last input."""


@asynccontextmanager
async def embedded_log(folder: Path) -> AsyncIterator[Log]:
    """A new embedded log in an empty folder."""
    log = EmbeddedLog.create(folder, partitions=1)
    try:
        yield log
    finally:
        await log.close()


@asynccontextmanager
async def kafka_log(folder: Path) -> AsyncIterator[Log]:
    """New topics on a private broker. Raises `LogUnavailable` with the reason if there can be none."""
    from flyball_log.kafka import create_topics, settings_for

    try:
        address = await _broker("start", folder)
        where = f"kafka://{address}/{_PREFIX}"
        await create_topics(settings_for(where), partitions=1, replication=1, dev=True)
        log = await open_log(where)
        try:
            yield log
        finally:
            await log.close()
    finally:
        await _broker("stop", folder)


async def _broker(verb: str, folder: Path) -> str:
    if not _SCRIPT.is_file():
        raise LogUnavailable("no Kafka: the script that starts a broker comes with a checkout, and this is none")
    command = (sys.executable, str(_SCRIPT), "--dir", str(folder), verb)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    said, wrong = await process.communicate()
    if process.returncode:
        raise LogUnavailable(f"no Kafka: {wrong.decode().strip() or 'the broker script failed'}")
    return said.decode().strip()


async def fill(log: Log, pool: ScriptedPool, seconds: int) -> Filled:
    """Let `pool` live through `seconds` under an owner, everything through `log` as in life."""
    partition = log.partition_of(pool.pool)
    owner = Owner(log, OwnerId("bench"), standard_seams, own_fingerprint())
    await owner.take(partition, START_WALL_S)
    await _append(log, partition, pool, list(pool.opening()))
    read = frames = 0
    for second in range(seconds):
        sampled = pool.frames(second)
        frames += len(sampled)
        await _append(log, partition, pool, sampled)
        await owner.tick(partition, 1.0 if second else 0.0, START_WALL_S + second)
        records = await log.read(Topic.DIRECTIVES, partition, read, limit=5000)
        read = records[-1].offset + 1 if records else read
        messages = [decode_directive(record.value) for record in records if record.value is not None]
        await _append(log, partition, pool, pool.answers(messages))
    end = (await log.bounds(Topic.INPUTS, partition)).end
    if owner.owned[partition].lost:
        raise Rejected("another owner took the bench's log")
    return Filled(log=log, partition=partition, frames=frames, ticks=seconds, end=end)


async def _append(
    log: Log, partition: int, pool: ScriptedPool, bodies: list[Frame] | list[Ack] | list[PolicyText | Attach]
) -> None:
    if bodies:
        key = pool.pool.encode()
        await log.append(Topic.INPUTS, partition, [Entry(key, encode_input(body)) for body in bodies])
