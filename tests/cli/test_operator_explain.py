"""`flyball explain` of a running fleet: the same answers as from its log."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from flyball_cli import audit, going_back
from flyball_core.fencing import Version
from flyball_core.inputs import Mode
from flyball_core.outputs import Directive, RoutingTable
from flyball_log import Topic, fold, open_log, scan
from flyball_proto.codec import decode_directive
from flyball_proto.codec.words import fill_setting, fill_version
from flyball_proto.v1.common_pb2 import TARGET_KIND_ENGINE, TARGET_KIND_GATEWAY
from flyball_proto.v1.outputs_pb2 import AuditRecord
from flyball_proto.v1.services_pb2 import TargetStatus
from operator_examples import pool, status
from recorded_logs import GATEWAY, SLOW
from scripted_controller import Script

Flyball = Callable[..., Answer]


def _target(message: Directive | RoutingTable) -> TargetStatus:
    engine = isinstance(message, Directive)
    made = TargetStatus(
        kind=TARGET_KIND_ENGINE if engine else TARGET_KIND_GATEWAY,
        target=message.engine if isinstance(message, Directive) else message.gateway,
        attached=True,
    )
    _tell(made, message.version)
    if isinstance(message, Directive):
        fill_setting(made.wanted, message.values)
    else:
        weights = {f"weight:{route.engine}": route.weight for route in message.routes}
        caps = {f"cap:{route.engine}": route.in_flight_cap for route in message.routes}
        fill_setting(made.wanted, {**weights, **caps})
    return made


def _tell(made: TargetStatus, version: Version) -> None:
    fill_version(made.told, version)
    fill_version(made.acked, version)


@pytest.fixture(scope="module")
def script(recorded: Path) -> Script:
    """A controller that serves a recorded log's audit."""

    async def read() -> tuple[list[AuditRecord], list[TargetStatus]]:
        log = await open_log(str(recorded), read_only=True)
        try:
            records = [
                AuditRecord.FromString(record.value or b"")
                async for handful in scan(log, Topic.DECISIONS, 0)
                for record in handful
            ]
            told = [decode_directive(kept.value or b"") for kept in (await fold(log, Topic.DIRECTIVES, 0)).values()]
        finally:
            await log.close()
        return records, [_target(one) for one in told if isinstance(one, (Directive, RoutingTable))]

    records, targets = asyncio.run(read())
    ticks = [record.tick for record in records if record.HasField("tick")]
    policy = "version: 1\nlanes: {realtime: {priority: 0}, bulk: {priority: 10}}\n"
    serving = pool("chat", targets, mode=Mode.CONTROL)
    serving.time_s, serving.wall_s, serving.regime = ticks[-1].time_s, ticks[-1].wall_s, ticks[-1].regime
    return Script(status(serving), audit=records, policy=policy)


@pytest.fixture
def at(script: Script, script_address: Callable[[Script], str]) -> str:
    """Where it serves."""
    script.over.clear()
    return script_address(script)


def test_a_decision_is_the_same(flyball: Flyball, recorded: Path, at: str) -> None:
    """From the log and from the controller, but for the name of the log."""
    engine = flyball("explain", SLOW, "--log", recorded, "--json", "--last", "100").document
    decision = engine["changes"][0]["decision"]

    here = flyball("explain", decision, "--log", recorded, "--json").document
    there = flyball("explain", decision, "--controller", at, "--json").document

    assert {**here, "log": None} == {**there, "log": None}
    assert flyball("explain", decision, "--controller", at).out == flyball("explain", decision, "--log", recorded).out


def test_an_engine_is_the_same(flyball: Flyball, recorded: Path, at: str) -> None:
    """Its changes, stops and alarms, and what it was told; what it held at its attach only the log knows."""
    here = flyball("explain", SLOW, "--log", recorded, "--json").document
    there = flyball("explain", SLOW, "--controller", at, "--json").document

    for key in ("name", "pool", "mode", "regime", "changes_in_all", "changes", "stopped_by_rule", "alarms", "time_s"):
        assert here[key] == there[key], key
    assert here["told"]["version"] == there["told"]["version"]
    moved = {one["knob"]: one for one in here["settings"] if one["since_s"] is not None}
    assert moved == {one["knob"]: one for one in there["settings"] if one["since_s"] is not None}


def test_only_the_end_is_read(
    flyball: Flyball, recorded: Path, at: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far back as the last changes need: here and there alike, and those changes are told as after reading all."""
    everything = flyball("explain", SLOW, "--controller", at, "--json", "--last", "2").document
    monkeypatch.setattr(going_back, "FIRST_STRETCH", 40)
    monkeypatch.setattr(audit, "FIRST_STRETCH", 40)
    script.stretches.clear()

    there = flyball("explain", SLOW, "--controller", at, "--json", "--last", "2").document
    here = flyball("explain", SLOW, "--log", recorded, "--json", "--last", "2").document
    words = flyball("explain", SLOW, "--controller", at, "--last", "2").out

    assert min(begin for begin, _ in script.stretches) > 0
    assert there["changes"] == everything["changes"] == here["changes"]
    assert 2 == len(there["changes"])
    assert (None, None) == (there["changes_in_all"], here["changes_in_all"])
    assert 0 < there["read_from_s"] <= there["changes"][0]["time_s"]
    assert there["read_from_s"] == here["read_from_s"]
    assert there["stopped_by_rule"] == here["stopped_by_rule"]
    assert "Changes, the last 2:" in words
    assert f"Stopped since {there['read_from_s']:g} s" in words
    attached = [one["knob"] for one in here["settings"] if one["since_s"] is None]
    assert attached, "what it held at its attach is found in the inputs, however far back"


@pytest.mark.parametrize("stretch", [10, 40, 100])
def test_a_decision_is_whole_however_far_back(
    flyball: Flyball, recorded: Path, at: str, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its answers and its outcome, wherever a stretch ends."""
    engine = flyball("explain", SLOW, "--log", recorded, "--json", "--last", "100").document
    decisions = [engine["changes"][place]["decision"] for place in (0, len(engine["changes"]) // 2, -1)]
    wanted = [flyball("explain", one, "--log", recorded, "--json").document for one in decisions]
    monkeypatch.setattr(going_back, "FIRST_STRETCH", stretch)

    here = [flyball("explain", one, "--log", recorded, "--json").document for one in decisions]
    there = [flyball("explain", one, "--controller", at, "--json").document for one in decisions]

    assert wanted == here
    assert wanted == [{**one, "log": wanted[0]["log"]} for one in there]


def test_a_gateway_is_the_same(flyball: Flyball, recorded: Path, at: str) -> None:
    """Its routes and tables; the lanes are the policy document's."""
    here = flyball("explain", GATEWAY, "--log", recorded, "--json").document
    there = flyball("explain", GATEWAY, "--controller", at, "--json").document

    for key in ("name", "pool", "routes", "tables_in_all", "tables"):
        assert here[key] == there[key], key
    assert ["realtime", "bulk"] == [lane["lane"] for lane in there["lanes"]]


def test_the_latest_decision(flyball: Flyball, recorded: Path, at: str) -> None:
    """Of a pool by its name, with `--pool`, or of all without a name; here and there."""
    asked = [flyball("explain", *words, "--controller", at, "--json") for words in ((), ("chat",), ("--pool", "chat"))]
    here = flyball("explain", "chat", "--log", recorded, "--json").document

    assert 1 == len({one.document["decision"] for one in asked})
    assert here["decision"] == asked[0].document["decision"]


def test_unknown_names_and_both_at_once(flyball: Flyball, recorded: Path, at: str) -> None:
    """Exit code 2, with the nearest; a log is read without a controller."""
    slip = flyball("explain", "node-00/engin-1", "--controller", at)
    gone = flyball("explain", "chat@999999", "--controller", at)
    both = flyball("explain", SLOW, "--log", recorded, "--controller", at)

    assert 2 == slip.code == gone.code == both.code
    assert SLOW in slip.err
    assert "did you mean chat@" in gone.err
    assert "not both" in both.err


def test_a_fleet_without_decisions(flyball: Flyball, script_address: Callable[[Script], str]) -> None:
    """Says so, exit code 2."""
    found = flyball("explain", "--controller", script_address(Script(status(pool()))))

    assert 2 == found.code
    assert "has no decision yet" in found.err
