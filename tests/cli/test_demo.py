"""The demo, played as a user plays it: the installed command, its document, its log."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flyball_controller.replay import Verdict
from flyball_log import open_log
from harness.invariants import check_log
from kafka_broker import kafka_broker as kafka_broker
from played_runs import FLYBALL, interrupted, verdict_of


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run([FLYBALL, *arguments], capture_output=True, text=True, timeout=110, check=False)


def play(out: Path, *arguments: str) -> dict[str, Any]:
    """Play a demo into `out`; its document."""
    done = run("demo", "--json", "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One whole demo on the embedded log."""
    return play(tmp_path_factory.mktemp("demo") / "full")


def test_the_document_has_the_documented_keys(full: dict[str, Any]) -> None:
    """The example of docs/commands.md has the keys of what is printed, at every level."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- shape: demo -->\n```json\n(.*?)```", text, re.DOTALL)
    assert found is not None
    documented = json.loads(found[1])

    assert set(documented) == set(full)
    for part in ("scenario", "frames"):
        assert set(documented[part]) == set(full[part])
    for part in ("regime_shifts", "changes"):
        assert set(documented[part][0]) == set(full[part][0])
    assert set(documented["fleets"]["static"]) == set(full["fleets"]["static"]) == set(full["fleets"]["flyball"])
    assert set(documented["fleets"]["static"]["lanes"]["realtime"]) == set(full["fleets"]["static"]["lanes"]["bulk"])


def test_both_fleets_report_the_documented_figures(full: dict[str, Any]) -> None:
    """Each fleet has goodput, attainment per lane and latency percentiles in seconds, over the same arrivals."""
    assert {"static", "flyball"} == set(full["fleets"])
    for fleet in full["fleets"].values():
        assert {"realtime", "bulk"} == set(fleet["attainment"])
        assert all(0.0 <= share <= 1.0 for share in fleet["attainment"].values())
        assert fleet["slo_goodput_rps"] > 0
        assert 0 < fleet["tpot_p50_s"] <= fleet["tpot_p99_s"] < 10
        assert 0 < fleet["ttft_p50_s"] <= fleet["ttft_p99_s"]
        assert fleet["attained"] == pytest.approx(fleet["slo_goodput_rps"] * full["scenario"]["duration_s"])
    assert full["fleets"]["static"]["arrivals"] == full["fleets"]["flyball"]["arrivals"] > 10_000


def test_the_governed_fleet_keeps_more_objectives(full: dict[str, Any]) -> None:
    """Most where a GPU is slow; it costs bulk nothing, and chat on healthy GPUs is left as good as it was."""
    static, governed = (full["fleets"][name]["phases"] for name in ("static", "flyball"))
    gains = {name: governed[name]["attainment"]["realtime"] - static[name]["attainment"]["realtime"] for name in static}

    assert gains["chat, one GPU slow"] > 0.05
    assert gains["chat again"] > 0.05
    assert gains["chat"] > -0.01
    assert gains["long context"] > -0.1
    assert full["fleets"]["flyball"]["attainment"]["bulk"] > 0.99


def test_what_is_assumed_is_said(full: dict[str, Any]) -> None:
    """Both kernel variants of the demo are assumed, and the document says what of them."""
    said = full["assumed"]

    assert {"graphs (assumed)", "splitkv (assumed)"} == {kind.rsplit(", ", 1)[1] for kind in said}
    assert all(any(one.startswith("variant ") for one in lines) for lines in said.values())


def test_caps_weights_and_variants_all_change_and_are_acknowledged(full: dict[str, Any]) -> None:
    """Batch caps, token budgets, weights and a variant are decided, and each change is seen to hold."""
    acked = {change["knob"] for change in full["changes"] if change["acked_at_s"] is not None}

    assert {"max_active_requests", "max_batched_tokens", "weight", "variant"} <= acked
    for change in full["changes"]:
        assert {"target", "knob", "old", "new", "decided_at_s", "acked_at_s"} <= set(change)
        assert change["acked_at_s"] is None or change["acked_at_s"] >= change["decided_at_s"]


def test_a_variant_counts_as_acknowledged_only_when_the_new_incarnation_runs(full: dict[str, Any]) -> None:
    """Drain and cold start lie between the decision for another variant and its acknowledgement."""
    variants = [change for change in full["changes"] if change["knob"] == "variant"]

    assert variants
    assert all(change["acked_at_s"] - change["decided_at_s"] >= 40 for change in variants)


def test_the_static_fleet_is_never_changed(full: dict[str, Any]) -> None:
    """The fleet that is only observed gets no change at all."""
    assert {"chat"} == {change["pool"] for change in full["changes"]}
    assert {"chat", "static-chat"} == {shift["pool"] for shift in full["regime_shifts"]}


def test_long_context_is_recognised_and_left(full: dict[str, Any]) -> None:
    """The governed pool is named long_context while that traffic plays, and interactive again after it."""
    shifts = [(shift["to"], shift["at_s"]) for shift in full["regime_shifts"] if shift["pool"] == "chat"]
    entered = next(at_s for name, at_s in shifts if name == "long_context")

    assert 480 <= entered <= 540
    assert any(name == "interactive" and at_s > 840 for name, at_s in shifts)


def test_every_frame_is_accounted_for(full: dict[str, Any]) -> None:
    """Sent frames are delivered, duplicate, rejected or dropped, and nothing else."""
    frames = full["frames"]

    assert frames["sent"] == frames["delivered"] + frames["duplicate"] + frames["rejected"] + frames["dropped"] > 4_000


async def test_the_log_of_a_demo_keeps_the_promises(full: dict[str, Any]) -> None:
    """The invariant monitor finds nothing lost, unexpected, out of bounds, too fast or unaccounted for."""
    log = await open_log(full["log"], read_only=True)
    try:
        found = await check_log(log)
    finally:
        await log.close()

    assert [] == found.all


async def test_the_log_of_a_demo_replays_identically(full: dict[str, Any]) -> None:
    """Every decision of the recorded demo comes out again, bit for bit."""
    assert Verdict.IDENTICAL is await verdict_of(full["log"])


def test_the_picture_is_a_png(full: dict[str, Any]) -> None:
    """The timeline is there and is what its name says."""
    assert b"\x89PNG" == Path(full["picture"]).read_bytes()[:4]


async def test_kafka_and_the_embedded_log_give_the_same_decisions(
    full: dict[str, Any], kafka_broker: str, tmp_path: Path
) -> None:
    """The same trace and seed give the same decisions through real Kafka, version numbers aside, and it replays."""
    other = play(tmp_path / "kafka", "--log", f"kafka://{kafka_broker}")

    def decided(document: dict[str, Any]) -> list[dict[str, Any]]:
        return [{name: value for name, value in change.items() if name != "decision"} for change in document["changes"]]

    assert decided(full) == decided(other)
    assert full["fleets"] == other["fleets"]
    assert full["regime_shifts"] == other["regime_shifts"]
    assert Verdict.IDENTICAL is await verdict_of(other["log"])


def test_an_interrupted_demo_leaves_a_log_that_replays(tmp_path: Path) -> None:
    """Ctrl-C ends it with exit code 130, says where the log lies, and what is there replays."""
    out = tmp_path / "cut"
    ended = interrupted("demo", out=out)

    assert 130 == ended.code, ended.said
    assert str(out / "log") in ended.said.split("Stopped.")[-1]
    assert "Traceback" not in ended.said
    assert Verdict.IDENTICAL is asyncio.run(verdict_of(str(out / "log")))


def test_plain_lines_end_in_a_table_and_say_where_the_log_lies(tmp_path: Path) -> None:
    """Without a terminal the demo prints lines, then the figures, then what to try next."""
    done = run("demo", "--until", "90", "--out", tmp_path / "plain")

    assert 0 == done.returncode, done.stderr
    assert "requests/s within objective" in done.stdout
    assert f"flyball replay {tmp_path / 'plain' / 'log'}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "/dev/null/here"), "cannot write to the output folder"),
        (("--policy", "/nowhere/policy.yaml"), "cannot read the policy document"),
        (("--log", "kafka://127.0.0.1:9"), "127.0.0.1:9"),
        (("--log", "elsewhere"), "say embedded, or kafka://HOST:PORT"),
        (("--until", "-1"), "nothing can be played in -1 s"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments: tuple[str, str], said: str, tmp_path: Path) -> None:
    """What cannot be played is refused with its reason, without a traceback."""
    rest = () if arguments[0] == "--out" else ("--out", str(tmp_path / "out"))
    done = run("demo", *arguments, *rest)

    assert 2 == done.returncode
    assert said in done.stderr
    assert 1 == len(done.stderr.strip().splitlines())


def test_a_wrong_policy_document_names_line_and_nearest_key(tmp_path: Path) -> None:
    """An unknown key is refused with its place and the key that was probably meant."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nmode: control\nlane: {}\n", encoding="utf-8")
    done = run("demo", "--policy", policy, "--out", tmp_path / "out")

    assert 2 == done.returncode
    assert f"{policy}:3:1: unknown key 'lane'" in done.stderr
    assert "did you mean 'lanes'?" in done.stderr
