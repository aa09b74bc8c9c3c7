"""The demo at real time, played as a user plays it: processes, sockets, and what clients measured."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli_calls import call
from documented_shapes import same_shape
from flyball_cli.live_plane import LivePlane, choose_places, config_text
from flyball_cli.live_traffic import (
    BULK,
    CHAT_PHASE,
    LONG_PHASE,
    REALTIME,
    Measured,
    Planned,
    Timing,
    figures,
    phases_of,
    plan,
)
from flyball_cli.processes import Processes
from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.replay import Verdict, replay_log
from flyball_core.errors import Fatal
from flyball_log import open_log
from flyball_service.reading import read_config
from flyball_twin.fleet.scoring import Slo

FLYBALL = Path(sys.executable).with_name("flyball")
SECONDS = 20


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that were started with a file in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended
            continue
        if str(folder / "flyball.yaml") in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the show of the module leaves."""
    return tmp_path_factory.mktemp("live") / "kept"


@pytest.fixture(scope="module")
def shown(kept: Path) -> dict[str, Any]:
    """The document of one short show."""
    command: list[str | Path] = [FLYBALL, "demo", "--live", "--seconds", str(SECONDS), "--json", "--keep", kept]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert 0 == done.returncode, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_document_has_the_documented_shape(shown: dict[str, Any]) -> None:
    """What is printed is what docs/commands.md describes."""
    same_shape("demo-live", shown)


def test_clients_are_served_in_both_phases(shown: dict[str, Any]) -> None:
    """Requests of both lanes finish in both halves, none fails, and latencies are those of the engines' physics."""
    assert [CHAT_PHASE, LONG_PHASE] == [phase["name"] for phase in shown["phases"]]
    assert [] == shown["failures"]
    for phase in shown["phases"]:
        for lane in (REALTIME, BULK):
            found = phase["lanes"][lane]
            assert found["requests"] == found["finished"] > 0
            # A decode step of these engines takes some 14 ms at least.
            assert 0.010 < found["tpot_p50_s"] < 0.5
            assert 0.010 < found["ttft_p50_s"] < 10.0


def test_the_regime_shifts_with_the_load(shown: dict[str, Any]) -> None:
    """Chat is named interactive, and the documents that follow long context."""
    shifts = [(shift["to"], shift["at_s"] - shown["began_s"]) for shift in shown["regime_shifts"]]

    assert "interactive" in [name for name, _ in shifts]
    entered = [at_s for name, at_s in shifts if name == "long_context"]
    assert entered
    assert entered[0] > SECONDS / 2


def test_settings_are_changed_and_seen_to_hold(shown: dict[str, Any]) -> None:
    """Flyball changes something, says why, and the receivers read it back."""
    assert shown["changes"]
    assert all(change["reason"] for change in shown["changes"])
    assert any(change["acked_at_s"] is not None for change in shown["changes"])
    assert {"engine-0", "engine-1"} == {engine["engine"] for engine in shown["engines"]}


async def test_the_log_of_the_show_replays_identically(shown: dict[str, Any]) -> None:
    """What a controller decided under real time comes out again bit for bit."""
    log = await open_log(f"{shown['kept']}/log", read_only=True)
    try:
        assert Verdict.IDENTICAL is (await replay_log(log, standard_seams, own_fingerprint())).verdict
    finally:
        await log.close()


def test_nothing_runs_on(shown: dict[str, Any], kept: Path) -> None:
    """Every process that was started has ended, without an error in its lines."""
    assert [] == left_running(kept)
    assert {"agent.log", "controller.log", "engines.log", "gateway.log"} <= {one.name for one in kept.iterdir()}
    assert not [one.name for one in kept.glob("*.log") if "Traceback" in one.read_text()]


def test_an_interrupted_show_ends_everything(tmp_path: Path) -> None:
    """Ctrl-C at a terminal, where it reaches all processes, and SIGTERM to the command end it and leave none."""
    for number, asked in enumerate((signal.SIGINT, signal.SIGTERM)):
        folder = tmp_path / f"cut-{number}"
        with subprocess.Popen(
            [FLYBALL, "demo", "--live", "--keep", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as show:
            while not (folder / "engines.log").exists():
                assert show.poll() is None
                time.sleep(0.05)
            time.sleep(4.0 - 4.0 * number)
            if asked is signal.SIGINT:
                os.killpg(show.pid, asked)
            else:
                show.send_signal(asked)
            said, _ = show.communicate(timeout=40)

        assert 130 == show.returncode, said
        assert "Traceback" not in said
        assert [] == left_running(folder)


async def test_a_part_that_does_not_come_up_is_named_with_its_last_lines(tmp_path: Path) -> None:
    """Somebody else has the gateway's port: the gateway is named, and what it wrote last is told."""
    with Processes(tmp_path) as processes:
        plane = LivePlane(processes, tmp_path)
        host, _, port = plane.places.gateway.rpartition(":")
        with socket.create_server((host, int(port))), pytest.raises(Fatal, match="gateway ended") as raised:
            await plane.start()

    assert plane.places.gateway in str(raised.value)
    assert [] == left_running(tmp_path)


def test_a_folder_that_is_not_empty_is_not_written_to(tmp_path: Path) -> None:
    """Nor is an absurd length played, nor are the options of the other demo taken."""
    (tmp_path / "something").write_text("mine")
    for arguments, said in (
        (("--live", "--keep", tmp_path), "is not empty"),
        (("--live", "--seconds", "1"), "takes 4 to 3600"),
        (("--live", "--seconds", "nan"), "takes 4 to 3600"),
        (("--live", "--until", "5"), "--until does not go with --live"),
        (("--keep", tmp_path), "--keep goes with --live only"),
    ):
        done = call("demo", *arguments)
        assert (2, True) == (done.code, said in done.err), done.err


def test_the_configuration_that_is_written_is_sound(tmp_path: Path) -> None:
    """It reads back with every service in it, at ports that are all different."""
    places = choose_places()
    file = tmp_path / "flyball.yaml"
    file.write_text(config_text(places))
    config = read_config(file)

    assert None not in (config.controller, config.agent, config.gateway, config.twin)
    assert 7 == len(
        {places.grpc, places.controller, places.agent, places.gateway, places.gateway_http, *places.engines.values()}
    )


def test_the_load_is_the_same_for_a_seed_and_changes_half_way() -> None:
    """Arrivals are in order, at about their rates, and the long prompts come in the second half alone."""
    phases = phases_of(60.0)
    planned = plan(phases)

    assert planned == plan(phases)
    assert planned != plan(phases, seed=2)
    assert [one.due_s for one in planned] == sorted(one.due_s for one in planned)
    assert 200 < sum(one.phase == CHAT_PHASE and one.lane == REALTIME for one in planned) < 280
    long = [one for one in planned if one.prompt_tokens >= 7000]
    assert 30 < len(long) < 70
    assert min(one.due_s for one in long) > 30.0


def test_figures_count_what_did_not_finish() -> None:
    """Failures and requests under way stay in the count; percentiles are over the finished ones alone."""

    def one(lane: str = REALTIME) -> Measured:
        return Measured(planned=Planned(due_s=0.0, phase="x", lane=lane, prompt_tokens=1, output_tokens=2))

    quick, slow, failed, under_way = one(), one(), one(), one()
    quick.timing = Timing(ttft_s=0.1, tpot_s=0.02, e2e_s=1.0)
    slow.timing = Timing(ttft_s=0.2, tpot_s=0.05, e2e_s=2.0)
    failed.failure = "status 503"
    found = figures([quick, slow, failed, under_way], Slo(lane=REALTIME, ttft_s=3.0, tpot_s=0.04))

    assert (4, 2, 1, 1) == (found.requests, found.finished, found.failed, found.attained)
    assert (0.1, 0.2, 0.02, 0.05) == (found.ttft_p50_s, found.ttft_p99_s, found.tpot_p50_s, found.tpot_p99_s)
    assert figures([], Slo(lane=REALTIME)).ttft_p50_s is None
