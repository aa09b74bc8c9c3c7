"""Stored states and recorded logs between two installed versions, one minor apart."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import state_shape
from flyball_controller.checkpoints import find_checkpoint
from flyball_controller.machine import PartitionState, standard_seams, step
from flyball_controller.machine.export import OLDEST_SCHEMA, SCHEMA
from flyball_core.ids import PoolId
from flyball_core.inputs import Mode, Order, OverrideClear
from flyball_core.outputs import DecisionRecord, Directive, RoutingTable
from flyball_log import open_log, scan
from flyball_log.interface import Log, Topic
from flyball_proto.codec import decode_input, encode_input
from harness.state_text import state_text
from installed_versions import Installed, Versions

Shapes = tuple[dict[str, Any], dict[str, Any]]
Decided = DecisionRecord | Directive | RoutingTable

DEMO_S = 75
"""Of the demo, in virtual time: two checkpoints and some changes of regime."""

FIND_CHECKPOINT = """\
import asyncio, json, sys
from flyball_controller.checkpoints import find_checkpoint
from flyball_log import open_log

async def main():
    log = await open_log(sys.argv[1], read_only=True)
    found = await find_checkpoint(log, 0)
    print(json.dumps({"revision": found.revision, "refused": found.refused}))
    await log.close()

asyncio.run(main())
"""

READ_INPUTS = """\
import sys
from flyball_controller.machine import PartitionState, standard_seams, step
from flyball_core.ids import LogId
from flyball_proto.codec import decode_input

for log in sys.argv[1:]:
    state, seams = PartitionState(log_id=LogId("log"), partition=0), standard_seams()
    for offset, text in enumerate(log.split()):
        step(state, decode_input(offset, bytes.fromhex(text)), seams)
    print(state.counts, [(pool.pool, pool.mode.value, pool.paused) for pool in state.pools.values()])
"""
"""What becomes of some logs of inputs, each one argument."""

NEW_FIELD = b"\xf2\x3e\x03new"
"""Field 1006, three bytes long: nobody has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A log of each version."""

    older: Path
    newer: Path


def record(version: Installed, folder: Path) -> Path:
    """The log of a demo that this version played."""
    said = version.call("demo", "--log", "embedded", "--out", folder, "--until", str(DEMO_S), "--json")
    assert 0 == said.code, said.err
    return folder / "log"


@pytest.fixture(scope="module")
def recorded(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A log that each version recorded by itself."""
    folder = tmp_path_factory.mktemp("recorded")
    return Recorded(older=record(versions.older, folder / "older"), newer=record(versions.newer, folder / "newer"))


@pytest.fixture(scope="module")
def shapes(versions: Versions) -> Shapes:
    """The shape of the state in the older and in the newer version."""
    program = Path(state_shape.__file__).read_text()
    older, newer = (json.loads(one.python(program)) for one in (versions.older, versions.newer))
    return older, newer


def test_two_versions_are_installed_and_neither_is_the_tree(versions: Versions) -> None:
    """Each runs its own code, says its own version, and they are one minor apart."""
    for version in (versions.older, versions.newer):
        assert f"flyball, version {version.version}\n" == version.call("--version").out
        for package in ("core", "proto", "log", "controller", "agents", "twin", "cli"):
            place = version.python(f"import flyball_{package}; print(flyball_{package}.__file__)")
            assert Path(place).is_relative_to(version.folder)
    (older_major, older_minor), (major, minor) = [
        [int(part) for part in one.version.split(".")[:2]] for one in (versions.older, versions.newer)
    ]
    assert (older_major, older_minor + 1) == (major, minor)


def test_another_shape_of_the_state_is_another_schema(versions: Versions, shapes: Shapes) -> None:
    """A class or field of the state that differs from the release before needs a SCHEMA raised by one."""
    older, newer = shapes
    changed = differences(older["kinds"], newer["kinds"])

    assert newer["schema"] == SCHEMA
    assert newer["schema"] - older["schema"] in (0, 1)
    assert not changed or newer["schema"] > older["schema"], (
        f"the state has another shape than in {versions.older.version} ({'; '.join(changed)}): raise SCHEMA in "
        "flyball_controller/machine/export.py by one, and decide what OLDEST_SCHEMA is"
    )


def test_what_is_read_of_an_older_state_has_all_its_fields(shapes: Shapes) -> None:
    """Where the older schema is read, nothing of it was taken away or retyped, and what came later has a default."""
    older, newer = shapes
    if older["schema"] < OLDEST_SCHEMA:
        return
    assert [] == unsound(older["kinds"], newer["kinds"]), "raise OLDEST_SCHEMA to SCHEMA: such a state is not readable"


def differences(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """In words, where two shapes differ."""
    flat = [{(kind, name): what for kind, all_ in one.items() for name, what in all_.items()} for one in (older, newer)]
    return [
        f"{kind}.{name}: {flat[0].get((kind, name), 'was not there')} -> {flat[1].get((kind, name), 'is gone')}"
        for kind, name in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get((kind, name)) != flat[1].get((kind, name))
    ]


def unsound(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """What keeps a state of the older shape from being read as one of the newer."""
    found = []
    for kind, known in older.items():
        now = newer.get(kind, {})
        found += [f"{kind}.{name} is gone or another" for name, was in known.items() if now.get(name) != was]
        found += [
            f"{kind}.{name} has no default"
            for name, what in now.items()
            if name not in known and not what["default"] and kind not in ("KnobClass", "KnobKind", "Mode", "RecordKind")
        ]
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kinds: kinds["PoolState"].pop("paused"), "PoolState.paused is gone"),
        (lambda kinds: kinds["PoolState"]["paused"].update(type="str"), "PoolState.paused is gone or another"),
        (lambda kinds: kinds["PoolState"].update(new={"type": "int", "default": ""}), "PoolState.new has no default"),
        (lambda kinds: kinds["Mode"].pop("ADVISE"), "Mode.ADVISE is gone"),
    ],
    ids=["gone", "retyped", "without default", "enum"],
)
def test_the_rule_notices_what_breaks_it(shapes: Shapes, change: Callable[[Any], object], words: str) -> None:
    """A field that went, changed its type, or came without a default is found by its name."""
    kinds = shapes[0]["kinds"]
    changed = json.loads(json.dumps(kinds))
    change(changed)

    assert [] == unsound(kinds, kinds) == differences(kinds, kinds)
    assert words in "; ".join(unsound(kinds, changed))
    assert differences(kinds, changed)


async def test_the_newer_reads_the_olders_state_as_its_own(recorded: Recorded, shapes: Shapes) -> None:
    """Led on from the older's checkpoint it decides as after all inputs, and knows all that the older knew."""
    log = await open_log(str(recorded.older), read_only=True)
    found = await find_checkpoint(log, 0)
    measured = {name for pool in found.state.pools.values() for name in pool.features}
    restored, decided = await led_on(log, found.state, found.revision)
    rebuilt, all_decided = await led_on(log, PartitionState(log_id=log.log_id, partition=0), -1)
    await log.close()
    for state in (restored, rebuilt):  # what only the newer measures begins when it takes over
        for pool in state.pools.values():
            pool.features = {name: value for name, value in pool.features.items() if name in measured}

    assert () == found.refused
    assert found.revision > 0
    assert decided
    assert decided == [one for one in all_decided if one.version.revision > found.revision]
    known = shapes[0]["kinds"]
    assert as_known(json.loads(state_text(restored)), known) == as_known(json.loads(state_text(rebuilt)), known)


async def led_on(log: Log, state: PartitionState, revision: int) -> tuple[PartitionState, list[Decided]]:
    """The state once all inputs after this one are taken, and what was decided and told meanwhile."""
    seams, decided = standard_seams(), list[Decided]()
    async for records in scan(log, Topic.INPUTS, 0, start=revision + 1):
        for item in records:
            outputs = step(state, decode_input(item.offset, item.value), seams)
            decided += [one for one in outputs if isinstance(one, (DecisionRecord, Directive, RoutingTable))]
    return state, decided


def as_known(value: Any, kinds: dict[str, Any]) -> Any:
    """An exported state without the fields that these kinds lack: what came later begins with its default."""
    if isinstance(value, list):
        return [as_known(one, kinds) for one in value]
    if not isinstance(value, dict):
        return value
    if "$c" in value:
        known = kinds[value["$c"]]
        return {name: as_known(one, kinds) for name, one in value["v"].items() if name in known}
    return {name: as_known(one, kinds) for name, one in value.items()}


def test_the_older_refuses_the_newers_state_in_a_sentence(
    versions: Versions, recorded: Recorded, shapes: Shapes
) -> None:
    """It says that a newer Flyball wrote it, and begins with the inputs instead."""
    found = json.loads(versions.older.python(FIND_CHECKPOINT, recorded.newer))
    older = shapes[0]["schema"]
    said = f"the state is of schema {SCHEMA}, written by a newer Flyball; this one knows {older}"

    if older == SCHEMA:
        assert found["revision"] > 0  # nothing of the state changed between the two: nothing is to be refused
    else:
        assert -1 == found["revision"]
        assert found["refused"]
        assert all(reason.endswith(said) for reason in found["refused"])


def test_each_replays_a_log_of_the_other_within_tolerance_and_says_so(versions: Versions, recorded: Recorded) -> None:
    """Another fingerprint is no reason to call a log different: exit code 3, with both versions in the words.

    The older one may name a feature that it did not know: code 1.
    """
    for reader, writer, log in (
        (versions.newer, versions.older, recorded.older),
        (versions.older, versions.newer, recorded.newer),
    ):
        said = reader.call("replay", log)
        own = writer.call("replay", log)

        if reader is versions.newer:
            assert 3 == said.code, said.out
            assert said.out.startswith("within tolerance, recorded under another fingerprint: ")
        else:
            assert 3 == said.code or (1, True) == (said.code, "what      features." in said.out), said.out
        assert f"flyball {writer.version}, here {reader.version}" in said.out
        assert (0, True) == (own.code, own.out.startswith("identical"))


def from_the_future(record: bytes) -> bytes:
    """The same record with a field that nobody knows yet, in the record and in the message in it."""
    kind, length, message = record[0], record[1], record[2:]
    assert len(message) == length < 0x7F - len(NEW_FIELD)
    return bytes([kind, length + len(NEW_FIELD)]) + message + NEW_FIELD + NEW_FIELD


def test_what_only_a_newer_knows_is_data_to_both(versions: Versions) -> None:
    """A kind of input from the future is counted as malformed; a field from the future is not seen at all."""
    orders = [
        encode_input(Order(pool=PoolId("chat"), author="alice", mode=Mode.ADVISE, paused=True)),
        encode_input(OverrideClear(pool=PoolId("chat"), override_id="o1", author="alice")),
    ]
    logs = [orders, [from_the_future(order) for order in orders], [NEW_FIELD]]
    known = "{} [('chat', 'advise', True)]"
    for version in (versions.older, versions.newer):
        said = version.python(READ_INPUTS, *[" ".join(one.hex() for one in log) for log in logs])

        assert [known, known, "{'malformed': 1} []"] == said.splitlines()
