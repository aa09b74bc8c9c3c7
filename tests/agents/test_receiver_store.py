"""The store: what is written reads back, what is damaged costs one write, and nothing prevents a start."""

import json
import os
import zlib
from pathlib import Path

import pytest

from flyball_agents.receiver_store import Held, ReceiverStore
from flyball_core.ids import Incarnation, LogId
from flyball_core.inputs import AckStatus
from receiver_bench import Bench, version

FULL = Held(
    version=version(5),
    values={"cap": 40, "margin": 0.5, "chunked": True, "order": "fifo"},
    incarnation=Incarnation("i1"),
    log_id=LogId("log-a"),
    wall_s=1.7e9,
    renewed=version(6),
    refused=version(7),
    refusal="why – not",
    eased=True,
)


def test_a_record_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    """Every field, with the types of its values; by this store and by another process's."""
    store = ReceiverStore(tmp_path / "deep" / "folder")
    for held in (FULL, Held(), FULL):
        store.save(held)

        assert held == store.load() == ReceiverStore(store.folder).load()
        assert [type(value) for value in store.load().values.values()] == [
            type(held.values[name]) for name in sorted(held.values)
        ]
    assert store.trouble == ""
    assert {path.name for path in store.folder.iterdir()} == {"held-0.json", "held-1.json"}


def test_the_newest_record_counts_whichever_slot_it_is_in(tmp_path: Path) -> None:
    """Slots are written in turn, also by a store that takes over."""
    for revision in range(1, 8):
        store = ReceiverStore(tmp_path)
        store.load()
        store.save(Held(version=version(revision)))

        assert ReceiverStore(tmp_path).load().version == version(revision)


def test_nothing_saved_is_nothing_held(tmp_path: Path) -> None:
    """A first start finds an empty record and no trouble."""
    store = ReceiverStore(tmp_path / "none")

    assert store.trouble == ""
    assert (store.load(), store.trouble) == (Held(), "")
    assert Held() == Held(
        version=None,
        values={},
        incarnation=Incarnation(""),
        log_id=LogId(""),
        wall_s=float("-inf"),
        renewed=None,
        refused=None,
        refusal="",
        eased=False,
    )


def test_any_damaged_byte_of_the_newest_slot_falls_back_to_the_one_before(tmp_path: Path) -> None:
    """Whatever byte is flipped or cut off, the record before it is read, and the damaged file set aside."""
    store = ReceiverStore(tmp_path)
    store.save(Held(version=version(4)))
    store.save(FULL)
    path = tmp_path / "held-0.json"
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 0x20]) + whole[i + 1 :] for i in range(len(whole))]
    damaged += [whole[:i] for i in range(len(whole))] + [whole + b" ", b"\x00" * len(whole)]
    for data in damaged:
        path.write_bytes(data)
        store = ReceiverStore(tmp_path)

        assert store.load().version == version(4)
        assert store.trouble == "held-0.json cannot be read and was set aside: checksum does not match"
        assert not path.exists()
        assert path.with_suffix(".bad").read_bytes() == data
    store.save(FULL)
    assert ReceiverStore(tmp_path).load() == FULL


def test_after_damage_the_fence_still_stands(tmp_path: Path) -> None:
    """With either slot lost, a version that was taken or refused before is not taken again."""
    for slot in (0, 1):
        for refuse in (False, True):
            bench = Bench(tmp_path / f"{slot}{refuse}")
            bench.offer(4, cap=40)
            bench.offer(5, cap=50)
            if refuse:
                bench.offer(6, cap=999)
            (bench.store.folder / f"held-{slot}.json").write_bytes(b"damaged")
            bench.again(cold=True)

            for late in (4, 5):
                bench.offer(late, cap=60)
                assert bench.engine.values["cap"] != 60
            assert bench.offer(version(6, log_id="log-b"), cap=60).status is AckStatus.NACK
            assert bench.offer(7, cap=60).status is AckStatus.APPLIED


def test_damage_to_one_slot_after_the_other_still_leaves_the_fence(tmp_path: Path) -> None:
    """At each start what is whole is written again: slots damaged one by one lose nothing."""
    for first, second in ((0, 1), (1, 0)):
        bench = Bench(tmp_path / f"{first}")
        bench.offer(4, cap=40)
        for slot in (first, second, first):
            (bench.store.folder / f"held-{slot}.json").write_bytes(b"damaged")
            bench.again(cold=True)

        assert bench.offer(4, cap=60).status is not AckStatus.APPLIED or bench.engine.values["cap"] == 40
        assert bench.engine.values["cap"] != 60
        assert bench.offer(5, cap=60).status is AckStatus.APPLIED


def test_records_of_an_unknown_shape_are_set_aside(tmp_path: Path) -> None:
    """A record of another format, or without a field, is no record, even if its checksum holds."""
    store = ReceiverStore(tmp_path)
    store.save(FULL)
    path = tmp_path / "held-1.json"
    fields = json.loads(path.read_bytes().split(b"\n")[1])
    shapes: list[object] = [{**fields, "format": 2}, {}, [], 7, {**fields, "version": [1]}, {**fields, "refused": 3}]
    needed = fields.keys() - {"hold_s"}  # which 0.1 did not keep
    shapes += [{k: v for k, v in fields.items() if k != name} for name in sorted(needed)]
    for shape in shapes:
        body = json.dumps(shape).encode()
        path.write_bytes(b"%08x\n%s\n" % (zlib.crc32(body), body))
        store = ReceiverStore(tmp_path)

        assert store.load() == Held()
        assert "held-1.json" in store.trouble


def test_a_format_of_another_version_is_named(tmp_path: Path) -> None:
    """The operator learns which format was found."""
    body = b'{"format": 9}'
    (tmp_path / "held-0.json").write_bytes(b"%08x\n%s\n" % (zlib.crc32(body), body))
    store = ReceiverStore(tmp_path)
    store.load()

    assert store.trouble.endswith("format 9, this Flyball reads 1")


def test_what_cannot_even_be_set_aside_is_told(tmp_path: Path) -> None:
    """A folder in place of a slot, or a file in place of the folder, is trouble and not an exception."""
    (tmp_path / "held-0.json").mkdir()
    (tmp_path / "held-0.bad").mkdir()
    (tmp_path / "held-0.bad" / "full").touch()
    store = ReceiverStore(tmp_path)
    assert store.load() == Held()
    assert store.trouble.startswith("held-0.json cannot be read and could not be set aside: ")

    (tmp_path / "file").touch()
    store = ReceiverStore(tmp_path / "file")
    assert store.load() == Held()
    assert "could not be set aside" in store.trouble
    assert not store.off()
    with pytest.raises(OSError, match="file"):
        store.save(Held())


def test_loading_again_forgets_old_trouble(tmp_path: Path) -> None:
    """Trouble tells of the last load."""
    (tmp_path / "held-0.json").write_bytes(b"damaged")
    store = ReceiverStore(tmp_path)
    store.load()
    assert store.trouble != ""
    store.load()
    assert store.trouble == ""


def test_a_save_that_fails_leaves_the_record_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while writing or renaming costs nothing that was saved, and the next save works."""
    store = ReceiverStore(tmp_path)
    store.save(Held(version=version(4)))
    store.save(Held(version=version(5)))

    def broken(*_: object) -> None:
        raise OSError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="broken"):
            store.save(Held(version=version(6)))
    assert ReceiverStore(tmp_path).load().version == version(5)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", broken)
        with pytest.raises(OSError, match="broken"):
            store.save(Held(version=version(6)))
    assert ReceiverStore(tmp_path).load().version == version(5)
    store.save(Held(version=version(7)))
    assert ReceiverStore(tmp_path).load().version == version(7)
    (tmp_path / "held-1.json").write_bytes(b"damaged")
    assert ReceiverStore(tmp_path).load().version == version(5)


def test_a_record_is_synced_before_it_takes_its_place_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, rename, folder: in that order, and no descriptor stays open."""
    store = ReceiverStore(tmp_path)
    store.save(Held())
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    acts: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        acts.append(f"sync {target.name} {target.stat().st_size if target.is_file() else ''}".strip())
        fsync(descriptor)

    def rename(path: Path, to: Path) -> Path:
        acts.append(f"rename {path.name} {to.name}")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    store.save(FULL)
    size = (tmp_path / "held-0.json").stat().st_size

    assert acts == [f"sync held-0.new {size}", "rename held-0.new held-0.json", f"sync {tmp_path.name}"]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_the_audit_is_bounded(tmp_path: Path) -> None:
    """It is rotated once at its bound; every line is whole JSON, the newest last."""
    store = ReceiverStore(tmp_path / "deep" / "new", audit_bytes=500)
    for second in range(50):
        store.audit(float(second), "e1", "took", {"cap": 1, "same": 2}, {"cap": second, "same": 2})
    lines = [json.loads(line) for line in (tmp_path / "deep" / "new" / "audit.jsonl").read_text().splitlines()]
    older = [json.loads(line) for line in (tmp_path / "deep" / "new" / "audit.jsonl.1").read_text().splitlines()]

    assert lines[-1] == {"wall_s": 49.0, "target": "e1", "what": "took", "changes": {"cap": [1, 49]}}
    assert [line["wall_s"] for line in older + lines] == [float(s) for s in range(50 - len(older + lines), 50)]
    assert len(older) > 1
    assert {path.name for path in (tmp_path / "deep" / "new").iterdir()} == {"audit.jsonl", "audit.jsonl.1"}
    assert 500 <= (tmp_path / "deep" / "new" / "audit.jsonl.1").stat().st_size < 600


def test_the_audit_turns_over_at_a_mebibyte_by_default(tmp_path: Path) -> None:
    """Two files of a mebibyte at most."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"x" * ((1 << 20) - 1))
    store = ReceiverStore(tmp_path)
    store.audit(0.0, "e1", "took", {}, {})
    assert not (tmp_path / "audit.jsonl.1").exists()
    assert path.read_text().endswith('x{"changes": {}, "target": "e1", "wall_s": 0.0, "what": "took"}\n')
    path.write_bytes(b"x" * (1 << 20))
    store.audit(0.0, "e1", "took", {}, {})
    assert (tmp_path / "audit.jsonl.1").stat().st_size == 1 << 20


def test_a_simulation_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is not durable writes the same files and syncs nothing."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    store = ReceiverStore(tmp_path, durable=False)
    store.save(FULL)

    assert store.load() == FULL
    assert synced == []
