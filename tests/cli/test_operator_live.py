"""The operator's commands against a real controller with an engine attached."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli_calls import Answer
from flyball_core.fencing import Version
from flyball_core.ids import LogId
from live_controller import POOL, ScriptedReceiver, live_controller

Flyball = Callable[..., Answer]

POLICY = """\
version: 1
mode: control
lanes:
  realtime: {ttft: 2s, tpot: 40ms}
knobs:
  max_active_requests: {min: 8, max: 200}
"""
BY = ("--reason", "a test", "--author", "alice")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A controller that is ready, with engine-0 attached to it."""
    with (
        live_controller(tmp_path_factory.mktemp("live"), POLICY) as address,
        ScriptedReceiver("engine-0").attached(address),
    ):
        yield address


def until(ask: Callable[[], Answer], enough: Callable[[Answer], bool]) -> Answer:
    """Ask again until the answer is enough, for some seconds at most."""
    end = time.monotonic() + 15.0
    while True:
        answer = ask()
        if enough(answer) or time.monotonic() > end:
            return answer


@pytest.fixture(scope="module", autouse=True)
def _ready(at: str) -> None:
    """Wait until the pool has its policy and its engine."""
    from cli_calls import call

    found = until(
        lambda: call("status", "--controller", at, "--json"),
        lambda answer: (
            answer.code != 2 and any(pool["mode"] == "control" and pool["engines"] for pool in answer.document["pools"])
        ),
    )
    assert found.code in (0, 1), found.err


def test_status(flyball: Flyball, at: str) -> None:
    """The engine, what it holds, and that it has no telemetry."""
    found = flyball("status", POOL, "--controller", at, "--json").document

    [pool] = found["pools"]
    [engine] = pool["engines"]
    assert ("engine-0", True, "control", "live") == (
        engine["name"],
        engine["attached"],
        pool["mode"],
        pool["owner"],
    )
    assert "pool chat: control, regime " in flyball("status", "--controller", at).out


def test_an_unknown_pool(flyball: Flyball, at: str) -> None:
    """Known pools are named, for looking and for orders."""
    for command in (("status", "chet"), ("pause", "chet", *BY)):
        found = flyball(*command, "--controller", at)

        assert 2 == found.code
        assert "did you mean chat?" in found.err


def test_an_override_from_beginning_to_end(flyball: Flyball, at: str) -> None:
    """Taken, led to its value by the guard, acknowledged, listed, lifted; out of bounds it is refused by the owner."""
    asked = ("override", "set", POOL, "max_active_requests")
    done = flyball(*asked, "32", "--for", "30m", *BY, "--controller", at, "--json")
    assert (0, "taken") == (done.code, done.document["outcome"]), done.out
    assert [("engine-0", 32, True)] == [
        (one["name"], one["effective"], one["holds"]) for one in done.document["receivers"]
    ]
    listed = flyball("override", "list", POOL, "--controller", at, "--json").document["overrides"]
    assert [done.document["override"]] == [one["override"] for one in listed]

    refused = flyball(*asked, "250", "--for", "30m", *BY, "--controller", at)
    assert 1 == refused.code
    assert "max_active_requests must be 8 to 200, not 250" in refused.out

    clear = ("override", "clear", POOL, done.document["override"], "--author", "alice", "--controller", at)
    assert [0, 1] == [flyball(*clear).code, flyball(*clear).code]


def test_pause_and_resume(flyball: Flyball, at: str) -> None:
    """Each shows in the status at once."""
    for command, paused in (("pause", True), ("resume", False)):
        assert 0 == flyball(command, POOL, *BY, "--controller", at).code
        shown = flyball("status", "--controller", at, "--json")

        assert paused is shown.document["pools"][0]["paused"]


def test_the_policy_in_force(flyball: Flyball, at: str, tmp_path: Path) -> None:
    """Shown as it was written, compared, and replaced by another."""
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("max: 200", "max: 128"))

    assert POLICY == flyball("policy", "show", POOL, "--controller", at).out
    assert 1 == flyball("policy", "diff", POOL, other, "--controller", at).code
    applied = flyball("policy", "apply", POOL, other, "--author", "alice", "--controller", at)
    assert 0 == applied.code
    assert "knobs.max_active_requests.maximum: 200.0 -> 128.0" in applied.out
    assert 0 == flyball("policy", "diff", POOL, other, "--controller", at).code


def test_a_decision_is_explained(flyball: Flyball, at: str) -> None:
    """The latest, and the engine whose it was."""
    flyball("override", "set", POOL, "max_active_requests", "40", "--for", "30m", *BY, "--controller", at)

    engine = flyball("explain", "engine-0", "--controller", at)
    latest = flyball("explain", POOL, "--controller", at)

    assert 0 == engine.code == latest.code
    assert "why: override:" in engine.out
    assert "Proposed, and what the guard made of it:" in latest.out


def test_a_receiver_of_another_log_is_rebased(flyball: Flyball, at: str) -> None:
    """Status names it with its remedy, and the remedy is taken."""
    foreign = Version(log_id=LogId("11111111-2222-4333-8444-555555555555"), partition=0, epoch=9, revision=9)
    with ScriptedReceiver("engine-9", held=foreign).attached(at):
        found = until(
            lambda: flyball("status", "--controller", at, "--json"),
            lambda answer: any(one["remedy"] for one in answer.document["attention"]),
        )
        [remedy] = [one["remedy"] for one in found.document["attention"] if one["remedy"]]
        done = flyball("rebase", POOL, "--target", "engine-9", "--yes", *BY, "--controller", at, "--json")

    assert "flyball rebase chat --target engine-9 --reason WHY" == remedy
    assert (0, ["engine-9"]) == (done.code, done.document["holding_another_log"])


def test_certificates_decide_who_may_what(flyball: Flyball, tmp_path: Path) -> None:
    """A viewer looks and may not order; what an operator orders stands under the certificate's name."""
    certs = tmp_path / "certs"
    assert 0 == flyball("certs", "dev", certs, "live=controller", "eve=viewer", "alice=operator", "node=agent").code
    with live_controller(tmp_path, POLICY, tls="{folder: certs}") as address:
        viewer, operator, agent = (
            ("--tls", certs / folder, "--controller", address)
            for folder in ("viewer-eve", "operator-alice", "agent-node")
        )
        seen = until(lambda: flyball("status", *viewer, "--json"), lambda answer: bool(answer.document["pools"]))
        denied = flyball("pause", POOL, "--reason", "no", *viewer)
        stranger = flyball("status", *agent)
        ordered = flyball("pause", POOL, "--reason", "yes", *operator, "--json")

    assert [POOL] == [pool["pool"] for pool in seen.document["pools"]]
    assert (2, 2) == (denied.code, stranger.code)
    assert "not allowed: this takes role operator; the certificate says viewer" in denied.err
    assert "the certificate says agent" in stranger.err
    assert (0, "alice") == (ordered.code, ordered.document["author"])
