"""`flyball bench twin`: what it reports, not how fast it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_cli import bench_twin
from flyball_cli.bench_twin import Sizes
from flyball_cli.bench_twin_runs import WEEK_REQUESTS, WEEK_S, run_bare, workload
from flyball_core.errors import Rejected

Flyball = Callable[..., Answer]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench of some seconds of virtual time."""
    monkeypatch.setattr(bench_twin, "SHORT", Sizes(turns=1, single_s=60.0, fleet_s=120.0, beats=8))


def test_its_document_is_the_documented_one(flyball: Flyball, small: None) -> None:
    """Every figure is there and positive, what was scaled up says so, and the keys are those of the page."""
    found = flyball("bench", "twin", "--short", "--json").document

    same_shape("bench-twin", found)
    for figures in (found["requests_per_s"], found["week_s"], *found["beats"]):
        assert all(figure > 0 for figure in figures.values())
    assert {"bare": "extrapolated from 120 s", "controlled": "extrapolated from 8 s"} == found["week_is"]
    assert found["leap_vs_step"] > 0
    assert found["peak_rss_mb"] > 0.9 * max(figures["after_4x"] for figures in found["rss_mb"].values())
    assert [1.0, 5.0] == [beat["beat_s"] for beat in found["beats"]]


def test_its_words(flyball: Flyball, small: None) -> None:
    """The table says what was measured, on what, and what it was scaled up from."""
    words = flyball("bench", "twin", "--short").out

    for said in ("a week on 8 engines", "extrapolated from 120 s", "leaping over stepping", "by the clock"):
        assert said in words


def test_the_bundled_day_is_played_at_the_rate_of_the_week() -> None:
    """Without a trace of one's own, the engines get as many requests a second as in the week."""
    bundled = workload(None)
    played = run_bare(bundled, 1, 300.0)

    assert WEEK_REQUESTS / WEEK_S == pytest.approx(bundled.requests / bundled.length_s)
    assert 0.5 * WEEK_REQUESTS / WEEK_S < played.requests / played.slice_s < 2.0 * WEEK_REQUESTS / WEEK_S


def test_a_trace_of_a_week_is_played_in_full(tmp_path: Path) -> None:
    """A trace that lasts a week counts as the week, whatever is in it; a shorter one does not."""
    week, day = tmp_path / "week.csv", tmp_path / "day.csv"
    for path, last_s in ((week, WEEK_S - 1.0), (day, 86_400.0)):
        path.write_text(f"arrival_s,prompt_tokens,output_tokens\n0.0,10,2\n{last_s},10,2\n")

    assert (True, 1.0) == (workload(week).is_the_week, workload(week).speed)
    assert not workload(day).is_the_week


def test_stepping_plays_the_same(small: None) -> None:
    """What leaps and what steps serve the same requests in the same time, to a thousandth."""
    load = workload(None)
    leapt, stepped = run_bare(load, 1, 120.0), run_bare(load, 1, 120.0, stepped=True)

    assert leapt.requests == stepped.requests
    assert leapt.busy_share == pytest.approx(stepped.busy_share, rel=1e-3)


def test_a_trace_that_is_none_is_refused(tmp_path: Path) -> None:
    """A trace that is missing is refused by its name."""
    with pytest.raises(Rejected, match=r"none\.parquet"):
        workload(tmp_path / "none.parquet")
