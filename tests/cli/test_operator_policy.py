"""`flyball policy`: check, show, diff, apply, reset."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from flyball_cli.operating.policy_difference import changed_meaning, meaning
from flyball_policies.document import PolicyDocument
from operator_examples import pool, status
from scripted_controller import Script, scripted_controller

Flyball = Callable[..., Answer]

OLD = "version: 1\nmode: control\nlanes:\n  realtime: {ttft: 3s, tpot: 40ms}\ncaps: {backoff: 0.8}\n"
NEW = "version: 1\nmode: control\nlanes:\n  realtime: {ttft: 2s, tpot: 40ms}\n  bulk: {priority: 10}\n"
SAME = f"# by hand\n{OLD}"
BY = ("--author", "bob")


@pytest.fixture
def script() -> Script:
    """A controller of a pool in which a policy is in force."""
    return Script(status(pool(quarantined={"caps-aimd": "ValueError: no"})), policy=OLD, policy_author="alice")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Another document, in a file."""
    file = tmp_path / "new.yaml"
    file.write_text(NEW)
    return file


def test_meaning_is_compared_field_by_field() -> None:
    """Comments and defaults written out change nothing, nor what has no value in either; lanes go by their names."""
    assert [] == changed_meaning(OLD, SAME)
    found = {one["field"]: (one["old"], one["new"]) for one in changed_meaning(OLD, NEW) or ()}

    assert (3.0, 2.0) == found["lanes.realtime.ttft_s"]
    assert (None, 10) == found["lanes.bulk.priority"]
    assert "caps.backoff" not in found
    assert "lanes.bulk.ttft_s" not in found


def test_no_document_means_all_defaults() -> None:
    """The empty text stands for them; a text of a newer version cannot be compared."""
    assert [("mode", "advise", "control")] == [
        (one["field"], one["old"], one["new"]) for one in changed_meaning("", "version: 1\nmode: control\n") or ()
    ]
    assert None is changed_meaning("version: 2\nhovercraft: 3\n", NEW)


def test_meaning_covers_every_field() -> None:
    """Nothing of a document is left out of a comparison."""
    found = meaning(PolicyDocument())

    assert {"mode", "pools", "hold_s", "guard.slew_up", "weights.nominal", "variants.relaunch"} <= found.keys()


def test_check(flyball: Flyball, new: Path, tmp_path: Path) -> None:
    """A sound document, one with a fault in its place, and a file that is not there."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nmodes: control\n")

    sound, faulty, gone = (flyball("policy", "check", file) for file in (new, wrong, tmp_path / "gone.yaml"))

    assert (0, 1, 2) == (sound.code, faulty.code, gone.code)
    assert "sound; mode control, lanes realtime, bulk, for pools any" in sound.out
    assert "wrong.yaml:2:1: unknown key 'modes'" in faulty.out
    assert "did you mean 'mode'?" in faulty.out
    problem = flyball("policy", "check", wrong, "--json").document["problem"]
    assert (2, 1, "did you mean 'mode'?") == (problem["line"], problem["column"], problem["hint"])


def test_show(flyball: Flyball, script: Script) -> None:
    """The text and nothing else, so that it can be written to a file; nothing where there is none."""
    with scripted_controller(script) as at:
        assert OLD == flyball("policy", "show", "chat", "--controller", at).out
        assert "alice" == flyball("policy", "show", "chat", "--controller", at, "--json").document["author"]
        script.policy = ""
        none = flyball("policy", "show", "chat", "--controller", at)

    assert (0, "") == (none.code, none.out)
    assert "no policy was ever applied to chat" in none.err


def test_diff(flyball: Flyball, script: Script, new: Path, tmp_path: Path) -> None:
    """Lines and meaning; exit code 1 if they differ, 0 if they are the same, 2 for a wrong document."""
    same, wrong = tmp_path / "same.yaml", tmp_path / "wrong.yaml"
    same.write_text(OLD)
    wrong.write_text("version: 1\nmode: contrl\n")
    with scripted_controller(script) as at:
        differs, equal, bad = (flyball("policy", "diff", "chat", f, "--controller", at) for f in (new, same, wrong))

    assert (1, 0, 2) == (differs.code, equal.code, bad.code)
    assert "-  realtime: {ttft: 3s, tpot: 40ms}" in differs.out.splitlines()
    assert "  lanes.realtime.ttft_s: 3.0 -> 2.0" in differs.out.splitlines()
    assert "the same\n" == equal.out


def test_apply(flyball: Flyball, script: Script, new: Path) -> None:
    """What changes is told, and the document goes to the owner under the author's name."""
    with scripted_controller(script) as at:
        found = flyball("policy", "apply", "chat", new, *BY, "--controller", at)

    [order] = script.orders
    assert (0, NEW, "bob") == (found.code, order.text, order.author)
    assert "  lanes.realtime.ttft_s: 3.0 -> 2.0" in found.out
    assert found.out.endswith("taken: bob: done\n")


def test_apply_tells_of_another_mode(flyball: Flyball, script: Script, tmp_path: Path) -> None:
    """A document that does not say its mode puts a governed pool into `advise`: that must not go unsaid."""
    file = tmp_path / "quiet.yaml"
    file.write_text("version: 1\n")
    with scripted_controller(script) as at:
        found = flyball("policy", "apply", "chat", file, *BY, "--controller", at)

    assert "The pool goes from control to advise, as the document says." in found.out


def test_apply_is_refused_here_first(flyball: Flyball, script: Script, tmp_path: Path) -> None:
    """A wrong document, and one for other pools, never reach the owner."""
    wrong, other = tmp_path / "wrong.yaml", tmp_path / "other.yaml"
    wrong.write_text("version: 1\nhold: 30\n")
    other.write_text("version: 1\npools: [batch]\n")
    with scripted_controller(script) as at:
        found = [flyball("policy", "apply", "chat", file, *BY, "--controller", at) for file in (wrong, other)]

    assert ([2, 2], []) == ([one.code for one in found], script.orders)
    assert "wrong.yaml:2:7" in found[0].err
    assert "is for pools batch, not for chat" in found[1].err


def test_reset(flyball: Flyball, script: Script) -> None:
    """Only what is quarantined can be allowed again."""
    with scripted_controller(script) as at:
        done = flyball("policy", "reset", "chat", "caps-aimd", *BY, "--controller", at)
        wrong = flyball("policy", "reset", "chat", "caps-aimed", *BY, "--controller", at)

    assert (0, 2) == (done.code, wrong.code)
    assert ["caps-aimd"] == [one.reset_policy for one in script.orders]
    assert "did you mean caps-aimd?" in wrong.err
