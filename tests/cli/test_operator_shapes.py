"""The operator's JSON documents are as docs/commands.md says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_cli.operating.following import Followed, Recorded
from flyball_cli.operating.watch import Lines, event_document
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.outputs import DecisionRecord, RecordKind
from operator_examples import LOG_ID, NOW_S, engine, gateway, override, pool, status
from scripted_controller import Script, closed_port

Flyball = Callable[..., Answer]

BY = ("--reason", "why", "--author", "alice", "--json")


@pytest.fixture
def script() -> Script:
    """A controller of a pool that has one of everything."""
    targets = [engine("engine-0", trouble="holds another log: 1b2c"), gateway("gateway-0", ["engine-0"])]
    return Script(
        status(
            pool(
                "chat",
                targets,
                overrides=[override("o-1", 48)],
                quarantined={"caps-aimd": "no"},
                relaunching=["engine-0 to splitkv: draining"],
            )
        ),
        policy="version: 1\n",
        policy_author="alice",
    )


@pytest.fixture
def at(script: Script, script_address: Callable[[Script], str]) -> str:
    """Where it answers."""
    return script_address(script)


def test_status(flyball: Flyball, at: str) -> None:
    """With controllers that answer and one that does not."""
    found = flyball("status", "--controller", at, "--controller", closed_port(), "--json").document

    same_shape("status", found)
    assert found["controllers"][0].keys() == found["controllers"][1].keys()


def test_overrides(flyball: Flyball, at: str) -> None:
    """Set, listed, lifted."""
    asked = ("override", "set", "chat", "max_active_requests", "48", "--for", "30m", "--controller", at)

    same_shape("override-set", flyball(*asked, *BY).document)
    same_shape("override-list", flyball("override", "list", "--controller", at, "--json").document)
    cleared = flyball("override", "clear", "chat", "--all", "--author", "a", "--controller", at, "--json")
    same_shape("override-clear", cleared.document)


def test_orders(flyball: Flyball, at: str) -> None:
    """Standing orders share a document; a rebase says whom it concerns."""
    for command in (("pause",), ("resume",), ("policy", "reset")):
        words = ("caps-aimd",) if command[0] == "policy" else ()
        same_shape("order", flyball(*command, "chat", *words, *BY, "--controller", at).document)
    same_shape("order", flyball("mode", "chat", "advise", *BY, "--controller", at).document)
    same_shape("rebase", flyball("rebase", "chat", "--yes", *BY, "--controller", at).document)


def test_policies(flyball: Flyball, at: str, tmp_path: Path) -> None:
    """Checked, shown, compared, applied."""
    good, wrong = tmp_path / "good.yaml", tmp_path / "wrong.yaml"
    good.write_text("version: 1\nmode: control\n")
    wrong.write_text("version: 1\nmodes: control\n")
    by = ("--author", "alice", "--json", "--controller", at)

    same_shape("policy-check", flyball("policy", "check", wrong, "--json").document)
    same_shape("policy-show", flyball("policy", "show", "chat", "--json", "--controller", at).document)
    same_shape("policy-diff", flyball("policy", "diff", "chat", good, "--json", "--controller", at).document)
    same_shape("policy-apply", flyball("policy", "apply", "chat", good, *by).document)
    assert "control" == flyball("policy", "check", good, "--json").document["meaning"]["mode"]


def test_watch(flyball: Flyball, at: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A record, what needs attention, the connection, silence: a document a line."""
    record = DecisionRecord(
        pool=PoolId("chat"),
        kind=RecordKind.ACK,
        version=Version(log_id=LogId(LOG_ID), partition=0, epoch=5, revision=9),
        decision="chat@9",
        time_s=9.0,
        wall_s=NOW_S,
        mode="control",
        regime="idle",
        confidence=1.0,
        summary="engine-0: applied",
        target_kind=TargetKind.ENGINE,
        target="engine-0",
    )
    found = flyball("status", "--controller", at, "--json").document
    lines = Lines(as_json=True)
    lines.status(found)
    lines.silence("nobody")

    attention, silence = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    same_shape("watch-attention", attention)
    same_shape("watch-silence", silence)
    same_shape("watch-record", event_document(Recorded(offset=1, record=record)))
    same_shape("watch-followed", event_document(Followed(what="pool chat", address=at, missed=False)))
