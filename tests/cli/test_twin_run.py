"""`flyball twin run`, as a user calls it: a scenario through the control plane or bare, under one seed or several."""

import asyncio
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli_calls import Answer, call
from documented_shapes import same_shape
from flyball_cli.live import Screen
from flyball_cli.twin_playing import new_log, play
from flyball_controller.replay import Verdict
from flyball_twin.scenario.reading import scenario_of
from flyball_twin.scenario.shortening import shortened
from played_runs import interrupted, verdict_of

Flyball = Callable[..., Answer]

SMALL = """
version: 1
title: A small fleet
duration: 30s
grace: 5s
seeds: [1, 2, 3]
pools:
  chat:
    engines:
      - {count: 2, gpu: h100_sxm, model: llama-3.1-8b, variant: graphs}
    policy:
      version: 1
      mode: control
      lanes:
        realtime: {ttft: 1s, tpot: 9ms}
traffic:
  - mmpp:
      states: [{rate: 25, stay: 30s}]
      prompt: {median: 800, spread: 0.5}
      output: {median: 60, spread: 0.5}
faults:
  - {bandwidth: engine-1, factor: 40%, from: 10s}
phases:
  - {name: one slow, from: 10s}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario in a file."""
    path = tmp_path_factory.mktemp("scenario") / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def governed(file: Path) -> dict[str, Any]:
    """The document of a governed run beside an ungoverned one."""
    document: dict[str, Any] = call("twin", "run", file, "--json", "--out", file.parent / "out").document
    return document


def test_the_document_is_as_documented(governed: dict[str, Any], file: Path) -> None:
    """Governed and compared, `--json` prints the documented document and nothing else, and keeps it beside the log."""
    found = governed

    same_shape("twin-run", {**found, **_example(found)})
    assert found == json.loads((file.parent / "out" / "result.json").read_text(encoding="utf-8"))
    assert {"static", "flyball"} == set(found["runs"][0]["fleets"])
    assert any("variant graphs" in said for said in found["assumed"]["llama-3.1-8b on h100_sxm, graphs (assumed)"])
    assert b"\x89PNG" == Path(found["runs"][0]["picture"]).read_bytes()[:4]


def _example(found: dict[str, Any]) -> dict[str, Any]:
    """The parts that the page shows of one fleet only, likewise."""
    [run] = found["runs"]
    fleets = {"static": {"chat": {}}, "flyball": run["fleets"]["flyball"]}
    summary = {"static": {"chat": {"realtime": {}}}, "flyball": found["summary"]["flyball"]}
    return {"runs": [{**run, "fleets": fleets}], "summary": summary}


def test_figures_hang_together(governed: dict[str, Any]) -> None:
    """Lanes, phases and bins count the same arrivals; goodput is what was attained by time and GPUs; frames add up."""
    [run] = governed["runs"]
    frames = run["frames"]
    for fleet in run["fleets"].values():
        pool = fleet["chat"]
        lane, bins = pool["lanes"]["realtime"], pool["timeline"]

        assert pool["arrivals"] == lane["arrivals"] == sum(bins["arrivals"]) > 500
        assert pool["attained"] == sum(bins["attained"])
        assert pool["arrivals"] == pool["finished"] + sum(pool["unfinished"].values())
        assert pool["slo_goodput_rps"] == pytest.approx(pool["attained"] / 30.0)
        assert pool["slo_goodput_per_gpu_h"] == pytest.approx(pool["attained"] / (2 * 30.0 / 3600.0))
        assert 0.4 * pool["arrivals"] < pool["phases"]["one slow"]["arrivals"] < 0.9 * pool["arrivals"]
        assert 1 == len({len(column) for name, column in bins.items() if name != "bin_s"})
    assert frames["sent"] == frames["delivered"] + frames["duplicate"] + frames["rejected"] + frames["dropped"]
    assert run["changes_per_knob"]["chat"]
    assert sum(run["regime_s"]["chat"].values()) == pytest.approx(35.0, abs=2.0)


def test_a_bare_run_has_engines_alone(flyball: Flyball, governed: dict[str, Any], file: Path, tmp_path: Path) -> None:
    """No agents, no log, nothing decided; what is asked and how engines serve it is the ungoverned fleet's."""
    bare = flyball("twin", "run", file, "--json", "--bare", "--out", tmp_path / "bare").document["runs"][0]
    left = {path.name for path in (tmp_path / "bare").iterdir()}
    beside = governed["runs"][0]["fleets"]["static"]["chat"]

    assert {"timeline.png", "result.json"} == left
    assert ["static"] == list(bare["fleets"])
    assert (bare["frames"], bare["log"], bare["changes_per_knob"]) == (None, None, {"chat": {}})
    assert {**bare["fleets"]["static"]["chat"], "timeline": 0} == {**beside, "timeline": 0}


def test_all_seeds_give_mean_and_spread(flyball: Flyball, file: Path, tmp_path: Path) -> None:
    """Each seed has a folder and a run of its own; the summary is their mean, least and greatest."""
    found = flyball("twin", "run", file, "--json", "--bare", "--seeds", "all", "--out", tmp_path / "out").document
    values = [run["fleets"]["static"]["chat"]["lanes"]["realtime"]["tpot_p50_s"] for run in found["runs"]]
    spread = found["summary"]["static"]["chat"]["realtime"]["tpot_p50_s"]

    assert [1, 2, 3] == [run["seed"] for run in found["runs"]]
    assert 3 == len(set(values)) or 3 == len({run["fleets"]["static"]["chat"]["arrivals"] for run in found["runs"]})
    assert spread == {"mean": pytest.approx(sum(values) / 3), "low": min(values), "high": max(values)}
    assert {"seed-1", "seed-2", "seed-3", "result.json"} == {path.name for path in (tmp_path / "out").iterdir()}


def test_the_same_seed_gives_the_same_figures(flyball: Flyball, file: Path, tmp_path: Path) -> None:
    """`--seed` plays that one; twice it is the same but for places and the machine's time."""
    once, twice = (
        flyball("twin", "run", file, "--json", "--seed", "7", "--until", "10", "--out", tmp_path / name).document
        for name in ("once", "twice")
    )
    for found in (once, twice):
        for place in ("log", "picture", "wall_s"):
            del found["runs"][0][place]

    assert 7 == once["runs"][0]["seed"]
    assert 10.0 == once["scenario"]["duration_s"]
    assert once == twice


def test_without_json_it_prints_lines_and_tables(flyball: Flyball, file: Path, tmp_path: Path) -> None:
    """Progress, the figures of both fleets side by side, what was done, what is assumed, and where things lie."""
    said = flyball("twin", "run", file, "--until", "10", "--out", tmp_path / "out").out

    for words in (
        "Playing 15 s of small through the control plane, seed 1",
        "chat: 2 engines",
        "realtime: within objective, per GPU-hour",
        "Changes in chat:",
        "Regimes of chat:",
        "Frames: ",
        "graphs (assumed)",
        f"Picture: {tmp_path / 'out' / 'timeline.png'}",
        f"Log: {tmp_path / 'out' / 'log'}",
    ):
        assert words in said


def test_a_terminal_has_a_screen(tmp_path: Path) -> None:
    """It shows every engine of both fleets, and gives the terminal back."""
    scenario = shortened(scenario_of(SMALL, Path("small.yaml")), 3.0)
    shown = io.StringIO()

    async def watch() -> None:
        log = await new_log("embedded", tmp_path, "small")
        view = Screen(Console(file=shown, force_terminal=True, width=160))
        await play(scenario, 1, tmp_path, log, view)

    asyncio.run(watch())

    for words in ("static", "flyball", "engine-0", "engine-1", "of 8 s", "latest 200", "decisions"):
        assert words in shown.getvalue()
    assert "\x1b[?25h" in shown.getvalue()  # the cursor is back


def test_several_pools_are_drawn_beside_each_other(flyball: Flyball, tmp_path: Path) -> None:
    """Each pool has its table and its column, governed or bare."""
    out = tmp_path / "governed"
    said = flyball("twin", "run", "two-models", "--until", "5", "--out", out).out
    flyball("twin", "run", "two-models", "--until", "5", "--bare", "--out", tmp_path / "bare")
    sizes = [_size(folder / "timeline.png") for folder in (out, tmp_path / "bare")]

    assert "chat: 2 engines" in said
    assert "answers: 2 engines" in said
    assert sizes[0][0] == sizes[1][0] > 1210  # wider than that of one pool
    assert sizes[0][1] > sizes[1][1]  # knobs are below


def _size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return int(width), int(height)


def test_an_interrupted_run_leaves_a_log_that_replays(tmp_path: Path) -> None:
    """Ctrl-C ends it with exit code 130, says where the log lies, and what is there replays."""
    out = tmp_path / "cut"
    ended = interrupted("twin", "run", "demo", out=out)

    assert 130 == ended.code, ended.said
    assert str(out / "log") in ended.said.split("Stopped.")[-1]
    assert "Traceback" not in ended.said
    assert Verdict.IDENTICAL is asyncio.run(verdict_of(str(out / "log")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "no file and no scenario of the library is called 'nowhere'"),
        (("demo", "--seed", "1", "--seeds", "all"), "say --seed or --seeds, not both"),
        (("demo", "--bare", "--log", "embedded"), "--log is for a run with control"),
        (("demo", "--until", "0"), "nothing can be played in 0 s"),
        (("demo", "--log", "elsewhere"), "say embedded, or kafka://HOST:PORT"),
        (("demo", "--out", "/dev/null/here"), "cannot write to the output folder"),
    ],
)
def test_what_cannot_be_played_is_one_clear_line(
    flyball: Flyball, arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """With exit code 2 and the reason."""
    rest = () if "--out" in arguments else ("--out", str(tmp_path / "out"))
    done = flyball("twin", "run", *arguments, *rest)

    assert 2 == done.code
    assert said in done.err
    assert 1 == len(done.err.strip().splitlines())


def test_a_scenario_that_is_wrong_names_its_line(flyball: Flyball, tmp_path: Path) -> None:
    """A mistake in the document is told with file, line and column before anything is played."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SMALL.replace("duration: 30s", "duration: 30"), encoding="utf-8")
    done = flyball("twin", "run", wrong, "--out", tmp_path / "out")

    assert 2 == done.code
    assert f"{wrong}:4:" in done.err
    assert not (tmp_path / "out").exists()


def test_a_pool_that_is_asked_for_nothing_is_drawn_all_the_same(tmp_path: Path) -> None:
    """Nothing is known of its attainment; a dollar in a title is a dollar, and a letter without a glyph no warning."""
    path = tmp_path / "quiet.yaml"
    title = "title: '$\\frac{ of \u65e5\u672c'"
    path.write_text(
        SMALL.replace("title: A small fleet", title).replace("  - mmpp", "  - from: 20s\n    to: 20.001s\n    mmpp"),
        encoding="utf-8",
    )
    answer = call("twin", "run", path, "--bare", "--json", "--out", tmp_path / "out")
    (run,) = answer.document["runs"]
    lane = run["fleets"]["static"]["chat"]["lanes"]["realtime"]

    assert (0, "") == (answer.code, answer.err)
    assert (0, None) == (lane["arrivals"], lane["attainment"])
    assert (tmp_path / "out" / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_of_many_pools_the_first_are_drawn(tmp_path: Path) -> None:
    """A picture stays one that can be looked at, and that is drawn in seconds."""
    pools = "".join(
        f"  p{number}: {{engines: [{{gpu: h100_sxm, model: llama-3.1-8b}}], lanes: {{x: {{ttft: 1s}}}}}}\n"
        for number in range(10)
    )
    shares = ", ".join(f"p{number}: 1%" for number in range(10))
    head, _, tail = SMALL.partition("pools:\n")
    traffic = tail[tail.index("traffic:") : tail.index("faults:")]
    path = tmp_path / "many.yaml"
    path.write_text(f"{head}pools:\n{pools}{traffic}    pools: {{{shares}}}\n", encoding="utf-8")
    answer = call("twin", "run", path, "--bare", "--until", "5", "--out", tmp_path / "out")
    width, _ = struct.unpack(">II", (tmp_path / "out" / "timeline.png").read_bytes()[16:24])

    assert 0 == answer.code
    assert "p9: 1 engine\n" in "\n".join(line.rstrip() for line in answer.out.splitlines())
    assert 6000 < width < 7000
