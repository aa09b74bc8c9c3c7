"""Targets: what a process finds on its disk when it starts: logs, spools, receivers' records, boot files.

The promises: opening recovers or refuses with one of Flyball's own errors, and does so soon; a record is read
back as it was written or not at all; no offset is used twice; what could not be read is counted; a receiver
starts with its knobs within their bounds, whatever stood on its disk.
"""

import asyncio
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from flyball_agents.node.life import one_life
from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.errors import FlyballError, LogCorrupt, OffsetGone
from flyball_core.fencing import Version
from flyball_core.ids import BootId, LogId, PoolId
from flyball_core.inputs import AckStatus
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings
from flyball_log.interface import Entry, Log, Record, Topic
from fuzz_bytes import Draw, damaged, edited, says
from receiver_bench import SPECS, Bench

QUICK = EmbeddedSettings(durability=Durability.OS, segment_bytes=400, compact_bytes=600)
RECORDS = 12
MOST_READS = 400
MOST_FILE_CHANGES = 6
ODD_NAMES = (
    "x",
    "99999999999999999999.seg",
    "00000000000000000003-00000000000000000009.seg",
    "\u0661" * 20 + ".seg",
    "y.tmp",
)
ODD_SPOOL_NAMES = (
    "x.seg",
    "\u00b2.seg",
    "000000000009.seg",
    "999999999999999999.seg",
    "000000000001.new",
    "y.bad",
    "boot",
)

Files = dict[str, bytes]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="flyball-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def written(files: Files, folder: Path) -> None:
    """Put files where they belong."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found_in(folder: Path) -> Files:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- the embedded log -----------------------------------------------------------------


@cache
def log_template() -> tuple[Files, dict[Topic, dict[int, Record]]]:
    """A log of some segments in each topic, and what was appended to it."""
    appended: dict[Topic, dict[int, Record]] = {topic: {} for topic in Topic}

    async def fill(folder: Path) -> None:
        log = EmbeddedLog.create(folder, 1, QUICK)
        for number in range(RECORDS):
            for topic in (Topic.INPUTS, Topic.STATE):
                tombstone = topic.compacted and number % 5 == 4
                entry = Entry(b"key-%d" % (number % 3), None if tombstone else b"value %d " % number * 4)
                [offset] = await log.append(topic, 0, [entry])
                appended[topic][offset] = Record(offset, *entry)
        await log.close()

    with scratch() as folder:
        asyncio.run(fill(folder / "log"))
        return found_in(folder / "log"), appended


async def everything(log: Log, topic: Topic) -> list[Record]:
    """Every record that can be read, damaged ones stepped over; ends in a bounded number of reads."""
    bounds = await log.bounds(topic, 0)
    at, records = bounds.begin, list[Record]()
    for _ in range(MOST_READS):
        if at >= bounds.end:
            return records
        try:
            read = await log.read(topic, 0, at, limit=7)
        except LogCorrupt as error:
            at = max(at, error.offset) + 1
            continue
        except OffsetGone as error:
            at = max(at + 1, error.first)
            continue
        if not read:
            return records
        assert [record.offset for record in read] == sorted({record.offset for record in read})
        assert read[0].offset >= at
        records += read
        at = read[-1].offset + 1
    return records  # a hole may be as wide as offsets are; readers stop at its beginning


async def _use(folder: Path, topics: dict[Topic, dict[int, Record]], *, exact: bool, counted: bool) -> None:
    """Read a log that was tampered with, go on writing, and read again."""
    ends = {topic: max(records, default=-1) + 1 for topic, records in topics.items()}
    reader = EmbeddedLog.open(folder, read_only=True, settings=QUICK)
    try:
        for topic, records in topics.items():
            for record in await everything(reader, topic):
                assert not exact or record == records.get(record.offset), "a record that was never appended"
    finally:
        await reader.close()
    for _ in range(2):
        writer = EmbeddedLog.open(folder, settings=QUICK)
        try:
            for topic in topics:
                entries = [Entry(b"new", b"1"), Entry(b"new", b"2" * 100)]
                offsets = await writer.append(topic, 0, entries)
                assert not counted or offsets[0] >= ends[topic], "an offset was used twice"
                ends[topic] = offsets[-1] + 1
                read = await writer.read(topic, 0, offsets[0])
                # Compaction may have taken the first, which the second follows under the same key.
                assert [Record(offset, *entry) for offset, entry in zip(offsets, entries, strict=True)][-1] in read
        finally:
            await writer.close()


def log_folder(data: bytes) -> None:
    """A log's folder with damage of the kinds that disks, crashes and people do."""
    draw = Draw(data)
    template, appended = log_template()
    files = dict(template)
    touched: set[str] = set()
    for _ in range(MOST_FILE_CHANGES):
        if not draw.left:
            break
        name = draw.pick(sorted(template))
        act = draw.byte() % 6
        if act == 0:
            files.pop(name, None)
        elif act == 1:
            files[name] = files.get(name, b"")[: draw.whole() % 600]
        elif act == 2:
            files[name] = files.get(name, b"") + draw.take(draw.byte() % 23)  # too short for a record
        elif act == 3 and not name.endswith(".seg"):
            files[name] = draw.take(draw.byte())
        elif act == 4:
            files[f"inputs/0/{draw.pick(ODD_NAMES)}"] = draw.take(draw.byte() % 23)
        elif name not in touched:  # damage of the same record twice could happen to agree with its CRC
            files[name] = damaged(files.get(name, b""), draw)
        touched.add(name)
    counted = not any(name.endswith("synced") for name in touched)
    topics = {topic: appended[topic] for topic in (Topic.INPUTS, Topic.STATE)}
    with scratch() as folder:
        written(files, folder)
        try:
            asyncio.run(_use(folder, topics, exact=True, counted=counted))
        except FlyballError as error:
            says(error)


def _forged(draw: Draw) -> bytes:
    """Records with sound checksums and unsound everything else, and junk between them."""
    made = b""
    for _ in range(MOST_FILE_CHANGES):
        if not draw.left:
            break
        act = draw.byte() % 4
        if act == 0:
            made += draw.take(draw.byte())
            continue
        offset = draw.byte() if act == 1 else int.from_bytes(draw.take(8), "little")
        batch = len(made) if draw.byte() % 2 else int.from_bytes(draw.take(8), "little")
        key, value = draw.take(draw.byte() % 16), draw.take(draw.byte())
        size = (0xFFFFFFFF if act == 3 and not value else len(value)).to_bytes(4, "little")
        head = b"\xf1B" + len(key).to_bytes(2, "little") + size
        body = head + batch.to_bytes(8, "little")[:4] + offset.to_bytes(8, "little") + key + value
        made += zlib.crc32(body).to_bytes(4, "little") + body
    return made


def log_forged(data: bytes) -> None:
    """A log's folder whose files were written by something else: no wrong kind of error, no end to nothing."""
    draw = Draw(data)
    template, _ = log_template()
    files = {name: content for name, content in template.items() if not name.startswith("inputs/0/")}
    for _ in range(draw.byte() % 3 + 1):
        base = draw.pick((0, 1, 5, 2**32, 2**63 - 1, 2**63, 10**20 - 1))
        covers = draw.pick((None, None, 3, 6, 2**63, 10**20 - 1))
        name = f"{base:020d}.seg" if covers is None else f"{base:020d}-{covers:020d}.seg"
        files[f"inputs/0/{name}"] = _forged(draw)
    end = draw.pick((None, 0, 7, 300, 2**63, 2**64 - 1))
    if end is not None:
        files["inputs/0/synced"] = end.to_bytes(8, "little") + zlib.crc32(end.to_bytes(8, "little")).to_bytes(
            4, "little"
        )
    with scratch() as folder:
        written(files, folder)
        try:
            asyncio.run(_use(folder, {Topic.INPUTS: {}}, exact=False, counted=False))
        except FlyballError as error:
            says(error)


# ---- agents' spools and boots -----------------------------------------------------------

SPOOL = SpoolLimits(most_bytes=4096, segment_bytes=400, fresh_bytes=200)
BOOT, POOL = BootId("1-aaaa"), PoolId("chat")


@cache
def spool_template() -> Files:
    """A spool of a few segments."""
    with scratch() as folder:
        spool = Spool(folder, SPOOL)
        for seq in range(8):
            payload = b"frame %d " % seq * 8
            spool.append(boot=BOOT, pool=POOL, seq=seq, now_s=float(seq), wall_s=1e9 + seq, payload=payload, live=None)
        spool.close()
        return found_in(folder)


def _drained(spool: Spool) -> None:
    """Deliver all that can be read; every frame ends as delivered or dropped."""
    for _ in range(MOST_READS):
        tickets = spool.oldest(5)
        if not tickets:
            break
        spool.delivered([ticket for ticket in tickets if spool.read(ticket) is not None])
    accounting = spool.accounting
    assert spool.waiting == 0
    assert accounting.recovered + accounting.taken == accounting.delivered + sum(accounting.dropped.values())
    assert spool.bytes_on_disk >= 0


def _tamper(folder: Path, draw: Draw) -> None:
    """A spool's files in a folder: some renamed or edited, with folders and dead links among them."""
    files = dict(spool_template())
    for _ in range(MOST_FILE_CHANGES):
        if not draw.left:
            break
        name, act = draw.pick(sorted(files)), draw.byte() % 8
        odd = folder / draw.pick(ODD_SPOOL_NAMES)
        if act == 0:
            files[odd.name] = files.pop(name)
        elif act == 1 and not os.path.lexists(odd):
            odd.mkdir()
        elif act == 2 and not os.path.lexists(odd):
            odd.symlink_to("nowhere")
        else:
            files[name] = edited(files[name], Draw(draw.piece()))
    for name, content in files.items():
        if not os.path.lexists(folder / name):
            (folder / name).write_bytes(content)


def spool_folder(data: bytes) -> None:
    """An agent's spool with damaged files and odd ones."""
    with scratch() as folder:
        _tamper(folder, Draw(data))
        for life in range(2):
            spool = Spool(folder, SPOOL)
            for seq in range(3):
                spool.append(
                    boot=BootId(f"{life}-b"), pool=POOL, seq=seq, now_s=1.0, wall_s=1e9, payload=b"new", live=None
                )
            if life:
                _drained(spool)
            spool.close()


def agent_boot(data: bytes) -> None:
    """The file that counts an agent's starts."""
    with scratch() as folder:
        (folder / "boot").write_bytes(data)
        boots = set()
        for _ in range(2):
            with one_life(folder) as boot:
                boots.add(boot)
                boot.encode()
                assert 0 < len(boot) < 100
        assert len(boots) == 2


# ---- receivers' records -----------------------------------------------------------------


@cache
def receiver_template() -> Files:
    """What a receiver has on disk after it took two directives and refused one."""
    with scratch() as folder:
        bench = Bench(folder)
        bench.offer(1, cap=32)
        bench.offer(2, cap=48)
        bench.offer(3, cap=10**9)
        return {name: content for name, content in found_in(folder).items() if name.startswith("held-")}


def receiver_folder(data: bytes) -> None:
    """A receiver's two slots, damaged, or whole with a body that it never wrote."""
    draw = Draw(data)
    with scratch() as folder:
        for name, content in receiver_template().items():
            how = draw.byte() % 4
            body = edited(content[9:-1], Draw(draw.piece()))
            if how == 0:
                body = content[9:-1]
            elif how == 1:
                (folder / name).write_bytes(edited(content, Draw(draw.piece())))
                continue
            elif how == 2:
                body = _with_field(content[9:-1], draw)
            (folder / name).write_bytes(b"%08x\n%s\n" % (zlib.crc32(body), body))
        bench = Bench(folder, incarnation=draw.pick(("i1", "i2")))
        _in_bounds(bench)
        held = bench.receiver.held.version
        for _ in range(3):
            bench.after(1.0)
            _in_bounds(bench)
        json.dumps(bench.receiver.trouble).encode()
        log_id = bench.receiver.held.log_id or LogId("log-a")
        last = held or Version(log_id=log_id, partition=3, epoch=10, revision=1)
        ack = bench.offer(Version(log_id=log_id, partition=last.partition, epoch=last.epoch + 1, revision=1), cap=17)
        assert ack.status in AckStatus
        _in_bounds(bench)


def _with_field(body: bytes, draw: Draw) -> bytes:
    """The record with one of its fields made something else."""
    fields = json.loads(body)
    name = draw.pick(sorted(fields))
    fields[name] = draw.pick(
        (
            None,
            "",
            "x",
            -1,
            2**70,
            1e308,
            float("nan"),
            True,
            [],
            {},
            [1, 2],
            ["log-a", 3, 10, -5],
            {"cap": [1]},
            {"cap": -7},
        )
    )
    return json.dumps(fields, sort_keys=True).encode()


def _in_bounds(bench: Bench) -> None:
    for spec in SPECS:
        assert spec.refuse(bench.engine.values[spec.name]) is None
