"""The operator's commands against controllers that give every answer, refusal and silence."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from cli_calls import Answer, installed
from flyball_cli.operating import orders
from flyball_core.inputs import Mode
from flyball_core.knobs import BATCH_CAP, Value
from flyball_proto.v1.inputs_pb2 import OverrideSet
from flyball_proto.v1.services_pb2 import (
    WRITE_OUTCOME_ON_RECORD,
    WRITE_OUTCOME_REFUSED,
    WRITE_OUTCOME_TAKEN,
    WriteResponse,
)
from operator_examples import NOW_S, engine, gateway, override, pool, status
from scripted_controller import Order, Script, closed_port, scripted_controller

Flyball = Callable[..., Answer]
Serve = Callable[[Script], str]

TAKEN = WriteResponse(offset=700, outcome=WRITE_OUTCOME_TAKEN, summary="done", author="alice")
WHY = ("--reason", "incident 4711", "--author", "alice")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a script until the test is over; gives its address."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_controller(script))


@pytest.fixture
def script() -> Script:
    """A controller of a well fleet."""
    return Script(status(pool()))


def test_status_of_a_well_fleet(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Exit code 0, and the first line says that all is well."""
    at = serve(script)

    words = flyball("status", "--controller", at)

    assert 0 == words.code
    assert words.out.startswith("All is well: 1 pool, 2 engines, 1 controller.")
    assert flyball("status", "chat", "--controller", at, "--json").document["healthy"]


def test_status_of_a_troubled_fleet(flyball: Flyball, serve: Serve) -> None:
    """Exit code 1, and the trouble stands in front."""
    at = serve(Script(status(pool("chat", [engine("engine-0", trouble="nack: no")]))))

    found = flyball("status", "--controller", at)

    assert 1 == found.code
    assert found.out.startswith("1 thing needs attention:\n  chat engine-0: nack: no")


def test_two_controllers_are_merged(flyball: Flyball, serve: Serve) -> None:
    """The greatest epoch is believed, and who still speaks with an older one is told."""
    old = serve(Script(status(pool(epoch=5, mode=Mode.ADVISE), controller="a")))
    new = serve(Script(status(pool(epoch=9), controller="b")))

    found = flyball("status", "--controller", old, "--controller", new, "--json")

    assert (1, 9, "control") == (found.code, *[found.document["pools"][0][key] for key in ("epoch", "mode")])
    assert new == found.document["pools"][0]["address"]


def test_one_of_two_may_be_away(flyball: Flyball, serve: Serve, script: Script) -> None:
    """A controller that cannot be reached is listed with the reason; the other's answer counts."""
    away = closed_port()

    found = flyball("status", "--controller", f"{serve(script)},{away}", "--json")

    assert 1 == found.code
    assert "chat" == found.document["pools"][0]["pool"]
    [silent] = [one for one in found.document["controllers"] if not one["answered"]]
    assert (away, "connection refused") == (silent["address"], silent["why_not"])


def test_nobody_answers(flyball: Flyball) -> None:
    """Exit code 2, and the sentence says what to do."""
    away = closed_port()

    found = flyball("status", "--controller", away)

    assert 2 == found.code
    assert f"no controller answered at {away}: connection refused; is `flyball controller` running?" in found.err
    assert "--controller HOST:PORT" in found.err


def test_a_slow_controller_has_its_time(flyball: Flyball, serve: Serve, script: Script) -> None:
    """No longer than the timeout, which is named."""
    script.hang.add("Status")

    found = flyball("status", "--controller", serve(script), "--timeout", "0.2s")

    assert 2 == found.code
    assert "no answer within 0.2 s" in found.err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "does not know who asks (no certificate)"),
        (grpc.StatusCode.PERMISSION_DENIED, "not allowed: no certificate"),
        (grpc.StatusCode.UNIMPLEMENTED, "no Flyball controller"),
        (grpc.StatusCode.INTERNAL, "no certificate"),
    ],
)
def test_who_may_not_look_is_told_why(
    flyball: Flyball, serve: Serve, script: Script, code: grpc.StatusCode, said: str
) -> None:
    """Each refusal in words that say what it is about."""
    script.refuse["Status"] = (code, "no certificate")

    found = flyball("status", "--controller", serve(script))

    assert 2 == found.code
    assert said in found.err


def test_plaintext_stays_on_this_machine(flyball: Flyball) -> None:
    """Beyond loopback certificates are asked for before anything is sent."""
    found = flyball("status", "--controller", "10.0.0.7:7460")

    assert 2 == found.code
    assert "--tls FOLDER" in found.err


@pytest.mark.parametrize("address", ["localhost", "nowhere:port", "http://127.0.0.1:7460", ":7460"])
def test_what_is_no_address_is_refused(flyball: Flyball, address: str) -> None:
    """Exit code 2, and the form is named."""
    found = flyball("status", "--controller", address)

    assert 2 == found.code
    assert address.rpartition("//")[2] in found.err


def test_controllers_come_from_the_environment(
    flyball: Flyball, serve: Serve, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Separated by commas or spaces; the command line goes before, and the services' file named there as well."""
    at, away = serve(script), closed_port()
    monkeypatch.setenv("FLYBALL_CONTROLLERS", f"{at}, {at}")
    file = tmp_path / "flyball.yaml"
    file.write_text(f"tls: none\ncontroller: {{listen: '{away}'}}\n")

    assert 0 == flyball("status").code
    assert away in flyball("status", "--controller", away).err
    assert away in flyball("status", "--config", file).err
    monkeypatch.delenv("FLYBALL_CONTROLLERS")
    monkeypatch.setenv("FLYBALL_CONFIG", str(file))
    assert away in flyball("status").err
    assert 0 == flyball("status", "--controller", at).code


@pytest.mark.parametrize(
    "command",
    [
        ("status", "chet"),
        ("policy", "show", "chet"),
        ("override", "list", "chet"),
        ("pause", "chet", *WHY),
        ("rebase", "chet", "--yes", *WHY),
        ("watch", "chet"),
        ("explain", "--pool", "chet"),
    ],
)
def test_an_unknown_pool(flyball: Flyball, serve: Serve, script: Script, *, command: tuple[str, ...]) -> None:
    """Exit code 2, with the nearest name, for every command that takes a pool."""
    found = flyball(*command, "--controller", serve(script))

    assert 2 == found.code
    assert "did you mean chat?" in found.err


def test_pause_resume_and_mode(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Each is one order with its author and reason, and prints the owner's words."""
    at = serve(script)

    paused = flyball("pause", "chat", *WHY, "--controller", at)
    resumed = flyball("resume", "chat", "--author", "alice", "--controller", at)
    moded = flyball("mode", "chat", "advise", *WHY, "--controller", at, "--json")

    assert [0, 0, 0] == [one.code for one in (paused, resumed, moded)]
    assert "taken: alice: done\n" == paused.out
    first, second, third = script.orders
    assert ("alice", "incident 4711", True) == (first.author, first.reason, first.paused)
    assert (False, "") == (second.paused, second.reason)
    assert not third.HasField("paused")
    assert ("taken", "mode", "alice") == tuple(moded.document[key] for key in ("outcome", "order", "author"))


def test_an_order_that_is_refused_or_not_answered(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Exit code 1 in both cases; they read differently."""
    at = serve(script)
    script.decide = lambda _: WriteResponse(offset=7, outcome=WRITE_OUTCOME_REFUSED, summary="no such thing")
    refused = flyball("pause", "chat", *WHY, "--controller", at)
    script.decide = lambda _: WriteResponse(offset=7, outcome=WRITE_OUTCOME_ON_RECORD)
    waiting = flyball("pause", "chat", *WHY, "--controller", at)

    assert (1, "refused: no such thing\n") == (refused.code, refused.out)
    assert 1 == waiting.code
    assert "on record as input 7 of chat, but its owner has not answered yet" in waiting.out


def test_a_viewer_may_not_write(flyball: Flyball, serve: Serve, script: Script) -> None:
    """The controller's refusal is an error, exit code 2."""
    script.refuse["GiveOrder"] = (grpc.StatusCode.PERMISSION_DENIED, "viewer bob may not write; an operator may")

    found = flyball("pause", "chat", *WHY, "--controller", serve(script))

    assert 2 == found.code
    assert "not allowed: viewer bob may not write" in found.err


def test_an_order_whose_answer_never_came(flyball: Flyball, serve: Serve, script: Script) -> None:
    """It may be on record, and that is said."""
    script.hang.add("GiveOrder")

    found = flyball("pause", "chat", *WHY, "--controller", serve(script), "--timeout", "0.3s")

    assert 2 == found.code
    assert "may be on record all the same" in found.err


def test_orders_go_to_the_owner(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Of several controllers, to the one whose epoch is the greatest."""
    other = Script(status(pool(epoch=4), controller="b"))

    flyball("pause", "chat", *WHY, "--controller", serve(other), "--controller", serve(script))

    assert (0, 1) == (len(other.orders), len(script.orders))


def _acknowledging(script: Script) -> Callable[[Order], WriteResponse]:
    """An owner whose engines hold what they are told at once, as far as engine-0."""

    def decide(order: Order) -> WriteResponse:
        assert isinstance(order, OverrideSet)
        held: dict[str, Value] = {BATCH_CAP: order.value.integer, "variant": "graphs"}
        script.status = status(pool("chat", [engine("engine-0", held=held), engine("engine-1", attached=False)]))
        return TAKEN

    return decide


def test_an_override_is_pinned_and_acknowledged(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Typed by the knob, ending by the controller's clock, and waited for until receivers hold it."""
    script.decide = _acknowledging(script)

    found = flyball("override", "set", "chat", BATCH_CAP, "32", "--for", "30m", *WHY, "--controller", serve(script))

    [order] = script.orders
    assert (32, NOW_S + 1800.0, "", "alice") == (
        order.value.integer,
        order.expires_wall_s,
        order.target,
        order.author,
    )
    assert 0 == found.code
    assert "acknowledged by engine-0 (effective 32)" in found.out
    assert f"override {order.override_id}, until " in found.out


def test_a_weight_is_acknowledged_by_gateways(flyball: Flyball, serve: Serve, script: Script) -> None:
    """They are who holds it."""
    at = serve(script)

    found = flyball("override", "set", "chat", "weight", "128", "--engine", "engine-0", "--for", "1h", *WHY,
                    "--controller", at, "--json")  # fmt: skip

    assert 0 == found.code
    assert [("gateway-0", "weight:engine-0", True)] == [
        (one["name"], one["knob"], one["holds"]) for one in found.document["receivers"]
    ]


def test_an_override_that_is_not_held_in_time(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Exit code 1, and who holds what is told; without waiting it is done when it is taken."""
    at = serve(script)
    asked = ("override", "set", "chat", BATCH_CAP, "32", "--for", "30m", *WHY, "--controller", at)

    found, unwaited = flyball(*asked, "--wait", "0.4s"), flyball(*asked, "--wait", "0")

    assert 1 == found.code
    assert "not yet held by engine-1, which holds 48, on its way there" in found.out
    assert (0, False) == (unwaited.code, "held" in unwaited.out)


@pytest.mark.parametrize(
    ("mode", "paused", "said"),
    [
        (Mode.ADVISE, False, "chat is in advise: nothing is pushed in this mode (flyball mode chat control)"),
        (Mode.OBSERVE, False, "chat is in observe: nothing is pushed"),
        (Mode.CONTROL, True, "chat is paused: nothing is pushed until it is resumed"),
    ],
)
def test_an_override_where_nothing_is_pushed(
    flyball: Flyball, serve: Serve, *, mode: Mode, paused: bool, said: str
) -> None:
    """It is in force and nobody is told: that is said, and not waited for."""
    at = serve(Script(status(pool(mode=mode, paused=paused))))

    found = flyball("override", "set", "chat", BATCH_CAP, "32", "--for", "30m", *WHY, "--controller", at)

    assert 0 == found.code
    assert said in found.out


def test_the_owner_refuses_with_its_bounds(flyball: Flyball, serve: Serve, script: Script) -> None:
    """Exit code 1 and its sentence."""
    summary = "override o-1 of alice refused: max_active_requests must be 4 to 256, not 999"
    script.decide = lambda _: WriteResponse(offset=7, outcome=WRITE_OUTCOME_REFUSED, summary=summary)

    found = flyball("override", "set", "chat", BATCH_CAP, "999", "--for", "30m", *WHY, "--controller", serve(script))

    assert (1, f"refused: {summary}\n") == (found.code, found.out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((BATCH_CAP, "many", "--for", "30m"), "takes a whole number of requests, not 'many'"),
        (("max_active_request", "3", "--for", "30m"), "did you mean max_active_requests?"),
        ((BATCH_CAP, "3"), "say --for SPAN or --until TIME"),
        ((BATCH_CAP, "3", "--for", "30m", "--until", "2030-01-01T00:00:00Z"), "and not both"),
        ((BATCH_CAP, "3", "--until", "2020-01-01T00:00:00Z"), "is past"),
        ((BATCH_CAP, "3", "--for", "30m", "--engine", "engine-7"), "did you mean engine-"),
    ],
)
def test_an_override_that_cannot_be_meant(
    flyball: Flyball, serve: Serve, script: Script, *, arguments: tuple[str, ...], said: str
) -> None:
    """Bad input is refused before anything is ordered."""
    found = flyball("override", "set", "chat", *arguments, *WHY, "--controller", serve(script))

    assert (2, []) == (found.code, script.orders)
    assert said in found.err


def test_overrides_are_listed(flyball: Flyball, serve: Serve) -> None:
    """Of all pools or one, those that end first in front."""
    late, soon = override("o-late", 32, target="engine-0"), override("o-soon", 48, left_s=60.0)
    at = serve(Script(status(pool(overrides=[late, soon]), pool("batch"))))

    words = flyball("override", "list", "--controller", at).out

    assert ["o-soon", "o-late"] == [line.split()[1] for line in words.splitlines()]
    assert "no override\n" == flyball("override", "list", "batch", "--controller", at).out
    assert 2 == len(flyball("override", "list", "chat", "--controller", at, "--json").document["overrides"])


def test_overrides_are_lifted(flyball: Flyball, serve: Serve) -> None:
    """One by its id, or all; one that there is none of is refused by the owner."""
    script = Script(status(pool(overrides=[override("o-1", 32), override("o-2", 32)])))
    at = serve(script)

    assert 0 == flyball("override", "clear", "chat", "--all", "--author", "alice", "--controller", at).code
    assert ["o-1", "o-2"] == [one.override_id for one in script.orders]
    assert 2 == flyball("override", "clear", "chat", "--controller", at).code
    script.decide = lambda _: WriteResponse(outcome=WRITE_OUTCOME_REFUSED, summary="there is none")
    assert 1 == flyball("override", "clear", "chat", "o-9", "--controller", at).code
    script.status = status(pool())
    assert "chat has no override\n" == flyball("override", "clear", "chat", "--all", "--controller", at).out


def test_a_rebase_names_whom_it_concerns(flyball: Flyball, serve: Serve) -> None:
    """And is not done without a yes, for which there must be somebody to ask."""
    bound = engine("engine-1", trouble="nack: foreign_log: log 1b2c is held; `flyball rebase` changes that")
    foreign = [engine("engine-0", trouble="holds another log: 1b2c"), bound, gateway("gateway-0", ["engine-0"])]
    script = Script(status(pool("chat", foreign)))
    at = serve(script)

    unasked = flyball("rebase", "chat", *WHY, "--controller", at)
    wrong = flyball("rebase", "chat", "--target", "engine-9", "--yes", *WHY, "--controller", at)
    assert (2, 2, []) == (unasked.code, wrong.code, script.orders)
    done = flyball("rebase", "chat", "--yes", *WHY, "--controller", at)
    document = flyball("rebase", "chat", "--target", "gateway-0", "--yes", *WHY, "--controller", at, "--json").document

    assert (0, ["engine-0, engine-1"]) == (done.code, [one.strip() for one in done.out.splitlines()[0].split(":")[1:]])
    assert ([], "gateway-0") == (document["holding_another_log"], script.orders[-1].target)


def test_a_rebase_is_asked_for_at_a_terminal(
    flyball: Flyball, serve: Serve, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A no does nothing, exit code 1; a yes gives the order."""
    monkeypatch.setattr(orders, "is_terminal", lambda: True)
    at = serve(script)
    for answer, code in ((False, 1), (True, 0)):
        monkeypatch.setattr("click.confirm", lambda *_, answer=answer, **__: answer)

        assert code == flyball("rebase", "chat", *WHY, "--controller", at).code
        assert int(answer) == len(script.orders)


def test_the_installed_command(serve: Serve, script: Script) -> None:
    """The entry point gives the same, and its environment counts."""
    found = installed("status", "--controller", serve(script), "--json")

    assert (0, "flyball.status/1") == (found.code, json.loads(found.out)["schema"])


def test_status_at_a_terminal_is_coloured(serve: Serve, script: Script) -> None:
    """The first line is green or red there, and plain where output is piped."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("flyball")), "status", "--controller", serve(script)]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm"}) as running:
        os.close(theirs)
        first = os.read(ours, 4096)
        assert 0 == running.wait(timeout=30)
    os.close(ours)

    assert b"\x1b[32m" in first
