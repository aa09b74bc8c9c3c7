"""Traces are read exactly, played as told, never made up, and a long one takes no more room than a short one."""

import gzip
import tracemalloc
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from pyarrow.parquet import write_table

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.scenario.model import TraceSource
from flyball_twin.traffic.asking import Draft, play_trace
from flyball_twin.traffic.files import DATA, bundled, find_trace
from flyball_twin.traffic.recorded import read_sessions
from flyball_twin.traffic.traces import open_trace

HEADER = "arrival_s,prompt_tokens,output_tokens\n"
INF = float("inf")


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    """A trace file."""
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def counting(folder: Path, rows: int = 10) -> Path:
    """A trace of one request a second, with prompts of 1, 2, 3, … tokens."""
    return written(folder, HEADER + "".join(f"{second}.0,{second + 1},7\n" for second in range(rows)))


def played(path: Path, seed: int = 1, most: int = 1000, **source: Any) -> list[Draft]:
    """The first drafts of a source over that file."""
    described = TraceSource(trace=path.name, **source)
    return list(islice(play_trace(described, open_trace(path), Random(seed)), most))


def test_the_bundled_traces_are_what_their_readme_says() -> None:
    """Rows and spans of each are on the page beside them, and all of them are small."""
    page = (DATA / "README.md").read_text()
    for name in bundled():
        path = find_trace(name, Path())
        assert path.stat().st_size < 100_000
        if name == "claude_code_sessions":
            sessions = read_sessions(path)
            assert (
                f"`{path.name}` ({len(sessions)} sessions, {sum(len(one.steps) for one in sessions)} requests)" in page
            )
        else:
            assert f"`{path.name}` ({open_trace(path).requests:,} requests" in page


def test_batches_of_equal_arrivals_were_spread_out() -> None:
    """No two bundled Mooncake requests arrive at once, though its publisher stamped them in batches."""
    arrivals = [draft[0] for draft in played(find_trace("mooncake_conversation", Path()), most=5000)]

    assert 2714 == len(arrivals) == len(set(arrivals))


def test_csv_and_parquet_of_the_same_rows_are_the_same_trace(tmp_path: Path) -> None:
    """Packed or not, in one group or several: the same drafts, with sessions, turns and prefixes."""
    text = (
        "arrival_s,prompt_tokens,output_tokens,session_id,turn,prefix_hashes,source\n"
        "0.5,1100,3,a,0,0-1 9,x\n1.0,5,3,,,,x\n2.5,2000,1,a,1,0-1 20-21,x\n"
    )
    write_table(
        pa.table(
            {
                "arrival_s": [0.5, 1.0, 2.5],
                "prompt_tokens": [1100, 5, 2000],
                "output_tokens": [3, 3, 1],
                "session_id": ["a", None, "a"],
                "turn": [0, None, 1],
                "prefix_hashes": [[0, 1, 9], None, [0, 1, 20, 21]],
                "client": [1, 2, 3],
            }
        ),
        tmp_path / "t.parquet",
        row_group_size=2,
    )
    wanted = [
        (0.5, 1100, 3, "a", 0, (0, 1)),
        (1.0, 5, 3, "", 0, ()),
        (2.5, 2000, 1, "a", 1, (0, 1, 20)),
    ]

    assert wanted == played(written(tmp_path, text))
    assert wanted == played(written(tmp_path, text, "t.csv.gz"))
    assert wanted == played(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("arrival,prompt,output\n0,1,1\n", 1, "without arrival_s, prompt_tokens, output_tokens"),
        ("", 1, "without arrival_s"),
        (HEADER + "0.0,5,5\nx,5,5\n", 3, "arrival_s is 'x'"),
        (HEADER + "0.0,5\n", 2, "2 cells under 3 columns"),
        (HEADER + "0.0,5,5,5\n", 2, "4 cells under 3 columns"),
        (HEADER + "0.0,0,5\n", 2, "prompt_tokens is 0"),
        (HEADER + "0.0,5,-1\n", 2, "output_tokens is -1"),
        (HEADER + "0.0,5,1.5\n", 2, "output_tokens is '1.5'"),
        (HEADER + "0.0,9223372036854775808,1\n", 2, "prompt_tokens is 9223372036854775808"),
        (HEADER + "0.0,5," + "9" * 5000 + "\n", 2, "output_tokens is '999999999999..."),
        (HEADER + "nan,5,5\n", 2, "arrival_s is 'nan'"),
        (HEADER + "inf,5,5\n", 2, "arrival_s is 'inf'"),
        (HEADER + "1.0,5,5\n0.5,5,5\n", 3, "before the row above"),
        ("arrival_s,prompt_tokens,output_tokens,prefix_hashes\n0,5,5,7-2\n", 2, "prefix_hashes has '7-2'"),
        ("arrival_s,prompt_tokens,output_tokens,turn\n0,5,5,one\n", 2, "turn is 'one'"),
    ],
)
def test_a_wrong_row_of_a_csv_is_named_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    """File, line, column and what is in it."""
    with pytest.raises(InvalidDocument, match=r"t\.csv") as caught:
        open_trace(written(tmp_path, text))

    assert (line, True) == (caught.value.line, said in caught.value.problem)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("arrival_s", [0.0, 1.0, 0.5, 2.0], "row 3, column arrival_s: 0.5"),
        ("arrival_s", [0.0, 1.0, float("nan"), 2.0], "row 3, column arrival_s: nan"),
        ("arrival_s", [0.0, 1.0, None, 2.0], "row 3, column arrival_s: a hole"),
        ("arrival_s", ["a", "b", "c", "d"], "column arrival_s holds object"),
        ("prompt_tokens", [1, 1, 0, 1], "row 3, column prompt_tokens: 0"),
        ("output_tokens", [1, 1, None, 1], "row 3, column output_tokens: a hole"),
        ("output_tokens", [1.0, 1.0, 1.5, 1.0], "row 3, column output_tokens: 1.5"),
        ("output_tokens", [1, 1, 2**62, 1], "row 3, column output_tokens: 4611686018427387904"),
        ("output_tokens", [1.0, 1.0, float("nan"), 1.0], "row 3, column output_tokens: nan"),
        ("session_id", [1, 1, 2, 2], "column session_id holds int64; names are texts"),
        ("turn", [0.0, 1.0, 0.0, 1.0], "column turn holds double; turns are whole numbers"),
        ("prefix_hashes", [1, 2, 3, 4], "column prefix_hashes holds int64; names of blocks are lists"),
        ("prefix_hashes", [["a"], ["b"], [], []], "lists of whole numbers"),
        ("prefix_hashes", [[1], [2], [3, None], []], "row 3, column prefix_hashes: a hole between names"),
    ],
)
def test_a_wrong_row_of_a_parquet_file_is_named(
    tmp_path: Path, column: str, values: Sequence[object], said: str
) -> None:
    """File, row counted through all groups, column and what would be right."""
    columns: dict[str, Sequence[object]] = {
        "arrival_s": [0.0, 1.0, 2.0, 3.0],
        "prompt_tokens": [1] * 4,
        "output_tokens": [1] * 4,
        column: values,
    }
    write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=2)
    with pytest.raises(Rejected, match=r"t\.parquet") as caught:
        played(tmp_path / "t.parquet")

    assert said in str(caught.value)


def test_a_file_that_is_missing_damaged_or_empty_is_named(tmp_path: Path) -> None:
    """Never an empty or shorter workload."""
    whole = (DATA / "azure2023_code_h1.csv.gz").read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-100])
    (tmp_path / "no.parquet").write_bytes(b"no parquet")
    write_table(pa.table({"arrival_s": [0.0], "prompt_tokens": [1]}), tmp_path / "less.parquet")
    rows: dict[str, Sequence[object]] = {"arrival_s": [0.0], "prompt_tokens": [1], "output_tokens": [1], "turn": [0]}
    write_table(pa.table(rows).append_column("turn", [[0]]), tmp_path / "twice.parquet")
    for name, said in (
        ("nowhere.csv", "missing"),
        ("cut.csv.gz", "damaged"),
        ("no.parquet", "damaged"),
        ("less.parquet", "no column output_tokens"),
        ("twice.parquet", "column turn is there twice"),
    ):
        with pytest.raises(Rejected, match=said):
            open_trace(tmp_path / name)
    with pytest.raises(Rejected, match="no requests"):
        open_trace(written(tmp_path, HEADER))


def test_a_name_that_is_no_trace_gets_the_nearest(tmp_path: Path) -> None:
    """A bundled one by name, a file by its ending."""
    with pytest.raises(Rejected, match="did you mean 'azure2023_conv_h1'"):
        find_trace("azure2023_con_h1", tmp_path)
    with pytest.raises(Rejected, match="there is no trace"):
        find_trace("mine.parquet", tmp_path)


def test_a_cut_is_played_at_its_speed_from_zero(tmp_path: Path) -> None:
    """From its beginning up to without its end, twice as fast."""
    drafts = played(counting(tmp_path), from_s=2.0, to_s=6.0, speed=2.0)

    assert [(0.0, 3), (0.5, 4), (1.0, 5), (1.5, 6)] == [draft[:2] for draft in drafts]


def test_what_is_repeated_follows_at_the_traces_own_pace(tmp_path: Path) -> None:
    """The first again comes a mean gap after the last; a cut repeats at its length."""
    assert [0, 1, 2, 3, 4, 5] == [round(d[0], 6) for d in played(counting(tmp_path, 3), repeat=True, most=6)]
    cut = played(counting(tmp_path), from_s=1.0, to_s=3.5, repeat=True, most=6)
    assert [0.0, 1.0, 2.0, 2.5, 3.5, 4.5] == [draft[0] for draft in cut]


@settings(max_examples=25, deadline=None)
@given(keep=st.floats(0.01, 1.0))
def test_thinning_keeps_exactly_its_share_in_order(keep: float) -> None:
    """The count is the share of the rows rounded down, and what is kept is of the trace."""
    path = find_trace("mooncake_conversation", Path())
    whole, kept = played(path, most=5000), played(path, keep=keep, most=5000)

    assert len(kept) == int(len(whole) * keep)
    assert set(kept) <= set(whole)


def test_spliced_stretches_are_of_the_trace_and_the_seeds_choice(tmp_path: Path) -> None:
    """Each stretch keeps its order and gaps; other seeds choose other places; it never ends."""
    path = counting(tmp_path, 1000)
    first, again, other = (played(path, seed=seed, splice_s=10.0, most=3000) for seed in (1, 1, 2))

    assert first == again != other
    steps = [later[1] - earlier[1] for earlier, later in pairwise(first)]
    jumps = sum(step != 1 for step in steps)
    assert 200 < jumps < 310
    assert all(0.0 <= later[0] - earlier[0] < 2.0 + 1e-9 for earlier, later in pairwise(first))
    assert 3000 == pytest.approx(first[-1][0], rel=0.02)


def test_what_is_played_twice_does_not_find_its_own_prefixes(tmp_path: Path) -> None:
    """Requests of one stretch share what they shared; the next stretch has names of its own."""
    text = "arrival_s,prompt_tokens,output_tokens,prefix_hashes\n0,1024,5,3-4\n1,1024,5,3 5\n"
    once, twice = played(written(tmp_path, text), repeat=True, most=4)[:2], played(tmp_path / "t.csv", repeat=True)[2:4]

    assert once[0][5][0] == once[1][5][0]
    assert twice[0][5][0] == twice[1][5][0]
    assert set(once[0][5]).isdisjoint(twice[0][5])


@pytest.mark.parametrize(
    "source",
    [{"from_s": 5000.0}, {"from_s": 5.0, "to_s": 5.0}, {"from_s": -1.0}, {"splice_s": 11.0}, {"splice_s": 0.0}],
)
def test_a_cut_that_holds_nothing_is_refused_at_once(tmp_path: Path, source: dict[str, Any]) -> None:
    """Backwards, beyond the trace, or stretches that do not fit it."""
    with pytest.raises(Rejected, match=r"t\.csv"):
        played(counting(tmp_path), **source)


def test_a_long_trace_takes_no_more_room_than_a_short_one(tmp_path: Path) -> None:
    """Ten times the rows in groups of the same size: the same peak."""
    peaks: list[int] = []
    for rows in (10_000, 100_000):
        path = tmp_path / f"{rows}.parquet"
        columns: dict[str, Sequence[object]] = {
            "arrival_s": [0.1 * n for n in range(rows)],
            "prompt_tokens": [9] * rows,
            "output_tokens": [9] * rows,
        }
        write_table(pa.table(columns), path, row_group_size=5_000)
        del columns
        tracemalloc.start()
        count = sum(1 for _ in play_trace(TraceSource(trace="t"), open_trace(path), Random(1)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows == count

    assert peaks[1] < 1.3 * peaks[0]
