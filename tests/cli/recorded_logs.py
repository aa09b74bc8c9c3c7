"""Logs as an owner leaves them behind, and ways to spoil them."""

import asyncio
import shutil
from pathlib import Path
from zlib import crc32

from flyball_cli.bench_fleet import ScriptedPool
from flyball_cli.bench_homes import embedded_log, fill
from flyball_core.inputs import Body
from flyball_log import Record, Topic, open_log, scan
from flyball_log.embedded.records import HEADER, locate
from flyball_proto.codec import decode_input

POOL = "chat"
GATEWAY = "gateway-0"
ENGINES = tuple(f"node-00/engine-{index}" for index in range(4))
SLOW = ENGINES[1]
"""The engine of the scripted pool that is slower than its peers."""
SECONDS = 70


def record_log(folder: Path, seconds: int = SECONDS) -> Path:
    """A log of one pool of four engines that was governed for some seconds."""

    async def live() -> None:
        async with embedded_log(folder) as log:
            await fill(log, ScriptedPool(POOL, nodes=1, per_node=len(ENGINES)), seconds)

    asyncio.run(live())
    return folder


def inputs_of(folder: Path) -> list[Record]:
    """Every input of a log with one partition."""

    async def read() -> list[Record]:
        log = await open_log(str(folder), read_only=True)
        try:
            return [record async for records in scan(log, Topic.INPUTS, 0) for record in records]
        finally:
            await log.close()

    return asyncio.run(read())


def bodies_of(folder: Path) -> list[Body]:
    """What those inputs say, by offset."""
    return [decode_input(record.offset, record.value).body for record in inputs_of(folder)]


def spoiled(log: Path, copy: Path, offset: int, bit: int, *, crc: bool) -> Path:
    """A copy of `log` with one bit of one input's value flipped; `crc`: as if it had been written so."""
    shutil.copytree(log, copy)
    [segment] = sorted((copy / Topic.INPUTS.value / "0").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    at = 0
    while (found := locate(bytes(data[at : at + 512 * 1024]), 0)) is not None:
        end = at + found.end
        if found.offset == offset:
            value_at = at + HEADER.size + len(found.key)
            data[value_at + bit // 8 % (end - value_at)] ^= 1 << bit % 8
            if crc:
                data[at : at + 4] = crc32(data[at + 4 : end]).to_bytes(4, "little")
            segment.write_bytes(data)
            return copy
        at = end
    raise AssertionError(f"no input {offset}")
