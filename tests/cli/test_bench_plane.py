"""`flyball bench plane`: that it measures what it says, not how quick this machine is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from documented_shapes import documented, same_shape
from flyball_cli import bench_plane
from flyball_cli.bench_acks import Recorded, answers_within
from flyball_cli.bench_plane import PlaneCost, scripted_pool
from flyball_cli.bench_plane_report import plane_lines, spread_ms
from flyball_cli.bench_sockets import Appended, Ran
from flyball_cli.bench_watching import seen
from flyball_core.errors import Rejected
from flyball_core.inputs import AckStatus

Flyball = Callable[..., Answer]


@pytest.fixture
def recorded() -> Recorded:
    """Ticks at 100, 101 and 102 s; four directives, one of them never answered and one refused."""
    return Recorded(
        ticks={10: 100.0, 20: 101.0, 30: 102.0},
        directives={(10, "e0"), (20, "e0"), (20, "e1"), (20, "e2")},
        acks={
            (10, "e0"): (12, AckStatus.APPLIED),
            (20, "e0"): (22, AckStatus.APPLIED),
            (20, "e1"): (25, AckStatus.NACK),
        },
    )


def test_acks_are_timed_from_their_tick_to_being_durable(recorded: Recorded) -> None:
    """An ack counts from the moment at which the log's synced end has passed it; the unanswered has no time."""
    durable = [(11, 100.01), (13, 100.05), (21, 101.01), (23, 101.04), (26, 101.25)]

    found = answers_within(recorded, durable, 100.5, 103.0)

    assert {20: 101.0, 30: 102.0} == found.ticks
    assert (3, 1) == (found.directives, found.nacks)
    assert {(20, "e0"): pytest.approx(0.04), (20, "e1"): pytest.approx(0.25)} == found.tick_to_ack_s


def test_an_ack_that_was_not_seen_durable_has_no_time(recorded: Recorded) -> None:
    """What was not watched is not guessed at."""
    found = answers_within(recorded, [(13, 100.05)], 100.5, 103.0)

    assert 3 == found.directives
    assert not found.tick_to_ack_s


def test_the_append_before_the_tick_is_added(recorded: Recorded) -> None:
    """Of the node's appends the newest that had ended at the tick counts, not one from another node or from later."""
    ran = Ran(began_s=100.0)
    ran.appends = [
        Appended(node=0, ended_s=100.2, took_s=0.5),
        Appended(node=0, ended_s=100.9, took_s=0.003),
        Appended(node=1, ended_s=100.95, took_s=0.7),
        Appended(node=0, ended_s=101.2, took_s=0.9),
    ]
    answers = answers_within(recorded, [(23, 101.04)], 100.5, 103.0)
    cost = PlaneCost(
        engines=3, ran=ran, answers=answers, node_of={"e0": 0, "e1": 0, "e2": 1}, controller_peak_rss_bytes=1
    )

    assert [pytest.approx(0.043)] == cost.frame_to_ack_s


def test_percentiles_are_times_that_were_measured() -> None:
    """By nearest rank: of a hundred values the ninety-ninth; of none there is none."""
    assert {"p50": 50.0, "p99": 99.0, "max": 100.0} == spread_ms([number / 1000 for number in range(100, 0, -1)])
    assert {"p50": 7.0, "p99": 7.0, "max": 7.0} == spread_ms([0.007])
    assert {"p50": None, "p99": None, "max": None} == spread_ms([])


def test_what_was_watched_reads_back(tmp_path: Path) -> None:
    """Offsets and times, as they were written."""
    (tmp_path / "durable").write_text("3 100.250000\n7 101.000000\n")

    assert [(3, 100.25), (7, 101.0)] == seen(tmp_path / "durable")


@pytest.mark.parametrize(("engines", "nodes"), [(1, 1), (8, 1), (10, 2), (13, 13), (200, 25)])
def test_pools_have_the_engines_asked_for(engines: int, nodes: int) -> None:
    """Spread evenly over as few nodes as hold eight at most."""
    pool = scripted_pool(engines)

    assert (engines, nodes) == (len(pool.engines), pool.nodes)


def test_no_engines_make_no_pool() -> None:
    """Zero engines are refused."""
    with pytest.raises(Rejected, match="no pool"):
        scripted_pool(0)


def test_it_measures_over_real_sockets(flyball: Flyball, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every directive is answered, every append durable, the agent has read each GPU and each engine; as documented."""
    monkeypatch.setattr(bench_plane, "SIZES", (16,))
    monkeypatch.setattr(bench_plane, "SETTLE_S", 2.0)

    found = flyball("bench", "plane", "--json", "--seconds", "3", "--runs", "1").document

    same_shape("bench-plane", found)
    [size], agent = found["sizes"], found["agent"]
    [run], [agent_run] = size["runs"], agent["runs"]
    assert 16 == size["engines"]
    assert 0 < run["acks"] == run["directives"]
    assert 0 == run["nacks"] == run["failed_appends"]
    assert run["appends"] >= 2
    assert 0 < run["tick_to_ack_ms"]["p50"] < run["frame_to_ack_ms"]["max"]
    assert {"16"} == found["frame_to_ack_ms"].keys()
    assert 0 < found["controller_cpu_share"] < 2
    assert agent_run["frames"] >= 1
    assert 8 * agent_run["frames"] == agent_run["gpu_samples"] == agent_run["engine_samples"]
    assert agent_run["page_bytes"] > 45_000
    assert 0 < found["agent_cpu_share"] < 2
    assert found["agent_rss_mb"] > 20


def test_its_words() -> None:
    """The table says what was measured, what is aimed at, and what was left out."""
    words = "\n".join(plane_lines(documented("bench-plane")))

    assert "frame to ack (aim: p99 250)" in words
    assert "28 / 39" in words
    assert "2.0% of a core (aim: 10%), 67 MB at most (aim: 90 MB)" in words
    assert "waits on purpose, not counted: 2 s for late frames" in words
