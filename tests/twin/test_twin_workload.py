"""Workloads are read exactly, spliced on one clock, and never made up."""

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.workload import AZURE_CHAT, DATA, MOONCAKE, Segment, load_trace, splice

HEADER = "arrival_s,prompt_tokens,output_tokens\n"
LANES = {"realtime": 0.7, "bulk": 0.3}


def write(folder: Path, text: str, name: str = "t") -> None:
    """A trace file."""
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))


def test_the_bundled_traces_are_what_their_readme_says() -> None:
    """Row counts, spans and sizes of both."""
    chat, long = load_trace(AZURE_CHAT), load_trace(MOONCAKE)

    assert (len(chat), chat[0].arrival_s, chat[-1].arrival_s) == (9739, 0.0, 1750.8459)
    assert (len(long), max(row.prompt_tokens for row in long)) == (2714, 123192)
    assert long[-1].arrival_s < 900.0


def test_batches_of_equal_arrivals_were_spread_out() -> None:
    """No two Mooncake requests arrive at once, though its publisher stamped them in batches."""
    arrivals = [row.arrival_s for row in load_trace(MOONCAKE)]

    assert len(set(arrivals)) == len(arrivals)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    """One clear line with the file's name."""
    with pytest.raises(Rejected, match=r"trace nowhere\.csv\.gz is missing: no file .*nowhere\.csv\.gz$"):
        load_trace("nowhere", tmp_path)


def test_a_damaged_trace_is_named(tmp_path: Path) -> None:
    """Cut off, flipped or no gzip at all: never an empty or shorter workload."""
    whole = (DATA / f"{MOONCAKE}.csv.gz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    for damaged in (whole[:-100], bytes(flipped), b"not a gzip file", b""):
        path = tmp_path / "t.csv.gz"
        path.write_bytes(damaged)
        with pytest.raises(Rejected, match=r"t\.csv\.gz"):
            load_trace("t", tmp_path)
        path.unlink()
        load_trace.__globals__["_load"].cache_clear()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("arrival,prompt,output\n0,1,1\n", 1),
        ("", 1),
        (HEADER, 1),
        (HEADER + "0.0,5,5\nx,5,5\n", 3),
        (HEADER + "0.0,5\n", 2),
        (HEADER + "0.0,5,5,5\n", 2),
        (HEADER + "0.0,0,5\n", 2),
        (HEADER + "0.0,5,-1\n", 2),
        (HEADER + "nan,5,5\n", 2),
        (HEADER + "inf,5,5\n", 2),
        (HEADER + "1.0,5,5\n0.5,5,5\n", 3),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    """A header, number, count or order that is wrong is an error at its line."""
    write(tmp_path, text)
    with pytest.raises(InvalidDocument) as caught:
        load_trace("t", tmp_path)

    assert caught.value.line == line
    assert caught.value.file.endswith("t.csv.gz")


def test_segments_follow_each_other_on_one_clock(tmp_path: Path) -> None:
    """Each starts where the one before ends, at its own speed; its edges are from, and up to without, its bounds."""
    write(tmp_path, HEADER + "".join(f"{second}.0,{second + 1},7\n" for second in range(10)))
    requests = splice(
        [Segment(trace="t", from_s=2.0, to_s=6.0, speed=2.0), Segment(trace="t", from_s=0.0, to_s=3.0)],
        {"realtime": 1.0},
        seed=1,
        folder=tmp_path,
    )

    assert [request.arrival_s for request in requests] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    assert [request.prompt_tokens for request in requests] == [3, 4, 5, 6, 1, 2, 3]
    assert [request.id for request in requests] == list(range(7))


@settings(max_examples=30, deadline=None)
@given(keep=st.floats(0.01, 1.0))
def test_thinning_keeps_exactly_its_share(keep: float) -> None:
    """The count is the share of the rows rounded down, and every row kept is one of the trace."""
    segment = Segment(trace=MOONCAKE, from_s=0.0, to_s=900.0, keep=keep)
    kept = splice([segment], LANES, seed=1)
    rows = {(row.arrival_s, row.prompt_tokens) for row in load_trace(MOONCAKE)}

    assert len(kept) == int(2714 * keep)
    assert {(request.arrival_s, request.prompt_tokens) for request in kept} <= rows


def test_lanes_follow_their_shares_and_the_seed_alone() -> None:
    """The same seed gives the same workload, another seed other lanes for the same requests."""
    segment = Segment(trace=AZURE_CHAT, from_s=0.0, to_s=600.0)
    first, again, other = (splice([segment], LANES, seed=seed) for seed in (1, 1, 2))
    lanes = Counter(request.lane for request in first)

    assert first == again
    assert [request.lane for request in first] != [request.lane for request in other]
    assert [request.prompt_tokens for request in first] == [request.prompt_tokens for request in other]
    assert lanes["bulk"] / len(first) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    "segment",
    [
        Segment(trace=AZURE_CHAT, from_s=5.0, to_s=5.0),
        Segment(trace=AZURE_CHAT, from_s=-1.0, to_s=5.0),
        Segment(trace=AZURE_CHAT, from_s=0.0, to_s=float("nan")),
        Segment(trace=AZURE_CHAT, from_s=0.0, to_s=5.0, keep=0.0),
        Segment(trace=AZURE_CHAT, from_s=0.0, to_s=5.0, keep=1.1),
        Segment(trace=AZURE_CHAT, from_s=0.0, to_s=5.0, speed=0.0),
        Segment(trace=AZURE_CHAT, from_s=5000.0, to_s=6000.0),
    ],
)
def test_a_segment_that_makes_no_sense_is_refused(segment: Segment) -> None:
    """Backwards, empty, out of the trace, or with a share or speed that is none."""
    with pytest.raises(Rejected):
        splice([segment], LANES, seed=1)


@pytest.mark.parametrize("lanes", [{}, {"a": -1.0, "b": 2.0}, {"a": 0.0}, {"a": float("nan")}])
def test_lane_shares_that_make_no_sense_are_refused(lanes: dict[str, float]) -> None:
    """None at all, negative ones, or nothing in sum."""
    with pytest.raises(Rejected, match="shares"):
        splice([Segment(trace=AZURE_CHAT, from_s=0.0, to_s=60.0)], lanes, seed=1)
