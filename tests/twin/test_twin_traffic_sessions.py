"""A session's next step waits for the answer to the one before, and what it asks hangs on the seed alone."""

import heapq
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.scenario.model import SessionSource
from flyball_twin.traffic.files import find_trace
from flyball_twin.traffic.lots import Lots
from flyball_twin.traffic.recorded import RecordedSession, read_sessions
from flyball_twin.traffic.seam import NEVER
from flyball_twin.traffic.sessions import DrawnPlans, Plans, RecordedPlans, SessionStream
from flyball_twin.traffic.streams import Merged
from flyball_twin.workload import PREFIX_TOKENS, Request

SOURCE = SessionSource(sessions_per_s=0.1, opening_tokens=2048)
HEADER = (
    "session_id,turn,arrival_s,prompt_tokens,output_tokens,cached_prefix_tokens,think_time_s,api_time_s,dup_group\n"
)


def stream(plans: Plans | None = None, rate: float = 0.1, to_s: float = 2000.0, index: int = 0) -> SessionStream:
    """Sessions on one pool and lane."""
    return SessionStream(index, plans or DrawnPlans(SOURCE), rate, Lots({"a": 1.0}, {"x": 1.0}, {}, "7"), (0.0, to_s))


def answered(traffic: Merged, answer_s: float) -> list[tuple[Request, float]]:
    """Every request with when it ended, if each is answered after so long."""
    found: list[tuple[Request, float]] = []
    open_: list[tuple[float, int, Request]] = []
    while open_ or traffic.next_s() < NEVER:
        if open_ and open_[0][0] <= traffic.next_s():
            ended_s, _, request = heapq.heappop(open_)
            traffic.ended(request, ended_s)
            found.append((request, ended_s))
        else:
            request = traffic.take()
            heapq.heappush(open_, (request.arrival_s + answer_s, request.id, request))
    return found


def by_session(requests: list[tuple[Request, float]]) -> dict[str, list[tuple[Request, float]]]:
    """Requests of each session in the order in which they ended."""
    sessions: dict[str, list[tuple[Request, float]]] = {}
    for request, ended_s in requests:
        sessions.setdefault(request.session, []).append((request, ended_s))
    return sessions


def test_a_step_comes_after_the_answer_before_it() -> None:
    """Turns count from 0 and none arrives before the one before has ended."""
    sessions = by_session(answered(Merged([stream()]), answer_s=30.0))

    assert len(sessions) > 150
    for steps in sessions.values():
        assert list(range(len(steps))) == [request.turn for request, _ in steps]
        for (_, ended_s), (following, _) in pairwise(steps):
            assert following.arrival_s >= ended_s


def test_nothing_follows_an_answer_that_has_not_come() -> None:
    """While its request is open a session has no next one; an end that is told twice counts once."""
    sessions = Merged([stream(rate=1e-3, to_s=1e7)])
    first = sessions.take()
    second_start_s = sessions.next_s()
    assert second_start_s > first.arrival_s

    sessions.ended(first, first.arrival_s + 1.0)
    due_s = sessions.next_s()
    sessions.ended(first, first.arrival_s + 50.0)

    assert first.arrival_s + 1.0 <= due_s < second_start_s
    assert due_s == sessions.next_s()
    assert (first.session, 1) == ((second := sessions.take()).session, second.turn)


def test_a_slow_fleet_is_asked_the_same_only_later() -> None:
    """What sessions ask does not hang on when they are answered: the same lengths and prefixes, turn by turn."""
    fast, slow = (by_session(answered(Merged([stream()]), answer_s)) for answer_s in (0.1, 20.0))

    assert fast.keys() == slow.keys()
    for name, steps in slow.items():
        told = [(one.prompt_tokens, one.output_tokens, one.prefix) for one, _ in steps]
        assert told == [(one.prompt_tokens, one.output_tokens, one.prefix) for one, _ in fast[name]][: len(told)]


def test_prompts_grow_by_the_answer_and_keep_their_prefix() -> None:
    """Each prompt is longer than the one before with its answer, and begins with the same names."""
    for steps in by_session(answered(Merged([stream()]), 1.0)).values():
        for (earlier, _), (later, _) in pairwise(steps):
            assert later.prompt_tokens >= earlier.prompt_tokens + earlier.output_tokens
            assert earlier.prefix == later.prefix[: len(earlier.prefix)]
        assert all(len(one.prefix) == one.prompt_tokens // PREFIX_TOKENS for one, _ in steps)
        assert all(len(set(one.prefix)) == len(one.prefix) for one, _ in steps)
        assert all(one.prompt_tokens + one.output_tokens <= SOURCE.longest_tokens for one, _ in steps)


def test_sessions_share_their_opening_and_nothing_else() -> None:
    """2,048 tokens are four names; another stream has none of them."""
    firsts = [request for request, _ in answered(Merged([stream()]), 1.0) if request.turn == 0][:20]
    other = [request for request, _ in answered(Merged([stream(index=1)]), 1.0) if request.turn == 0][:1]

    assert 1 == len({request.prefix[:4] for request in firsts})
    rest = [name for request in firsts for name in request.prefix[4:]]
    assert len(rest) == len(set(rest))
    assert set(other[0].prefix).isdisjoint(firsts[0].prefix)


def test_only_sessions_under_way_are_remembered() -> None:
    """When all is answered, and when the time is over, nothing is left."""
    sessions = stream()
    answered(Merged([sessions]), 5.0)

    assert 0 == sessions.under_way


def test_numbers_are_medians() -> None:
    """Steps, first prompts and thinking have the medians that were told."""
    plans = DrawnPlans(SOURCE)
    sessions = stream(plans, rate=1.0, to_s=3000.0)
    steps = by_session(answered(Merged([sessions]), 0.0))
    firsts = sorted(one[0][0].prompt_tokens for one in steps.values())
    waits = sorted(later.arrival_s - ended_s for one in steps.values() for (_, ended_s), (later, _) in pairwise(one))

    assert 20_000 == pytest.approx(firsts[len(firsts) // 2], rel=0.05)
    assert 3.0 == pytest.approx(waits[len(waits) // 2], rel=0.05)


def test_recorded_sessions_are_played_as_they_were() -> None:
    """Lengths, thinking and what each prompt shares with the one before are the trace's."""
    recorded = read_sessions(find_trace("claude_code_sessions", Path()))
    sessions = by_session(answered(Merged([stream(RecordedPlans(recorded, 120_000), to_s=20_000.0, rate=0.01)]), 2.0))
    whole = {tuple(step[:2] for step in one.steps): one for one in recorded}
    found = 0
    for steps in sessions.values():
        lengths = tuple((one.prompt_tokens, one.output_tokens) for one, _ in steps)
        if lengths not in whole:
            continue
        found += 1
        for ((before, ended_s), (after, _)), step in zip(pairwise(steps), whole[lengths].steps[1:], strict=True):
            assert step[2] == pytest.approx(after.arrival_s - ended_s)
            shared = step[3] // PREFIX_TOKENS
            assert before.prefix[:shared] == after.prefix[:shared]
            assert set(before.prefix[shared:]).isdisjoint(after.prefix[shared:])
    assert found > 10


def test_sessions_that_open_alike_count_once() -> None:
    """Nine sessions of one group are drawn as often as the only one of another."""
    plain = RecordedSession("only", "b", 0, [(10, 1, 0.0, 0)])
    alike = [RecordedSession(f"a{number}", "a", 0, [(20, 1, 0.0, 0)]) for number in range(9)]
    drawn = answered(Merged([stream(RecordedPlans([*alike, plain], 1000), rate=1.0)]), 0.1)
    prompts = Counter(request.prompt_tokens for request, _ in drawn)

    assert 0.5 == pytest.approx(prompts[10] / len(drawn), abs=0.05)


def test_a_recorded_session_ends_where_it_grows_too_long() -> None:
    """Its first request is cut to fit; what comes later and is longer is not asked."""
    session = RecordedSession("s", "s", 0, [(50, 5, 0.0, 0), (200, 5, 0.0, 50), (60, 5, 0.0, 0)])
    long = RecordedSession("l", "l", 0, [(500, 5, 0.0, 0), (600, 5, 0.0, 0)])
    drawn = by_session(answered(Merged([stream(RecordedPlans([session, long], 100), rate=1.0)]), 0.1))

    assert {((50, 5),), ((95, 5),)} == {
        tuple((one.prompt_tokens, one.output_tokens) for one, _ in steps) for steps in drawn.values()
    }


def test_holes_in_thinking_are_taken_from_the_arrivals(tmp_path: Path) -> None:
    """Arrival less the arrival before and what that answer took; 0 where that is not known, and for clocks astray."""
    rows = "s,0,0,10,0,0,,2,\ns,1,10,20,1,10,,1,\ns,2,11,20,1,10,,,\ns,3,20,20,1,10,,1,\ns,4,99,20,1,10,4,1,\n"
    path = tmp_path / "s.csv"
    path.write_text(HEADER + rows)
    (session,) = read_sessions(path)

    assert [0.0, 8.0, 0.0, 0.0, 4.0] == [step[2] for step in session.steps]
    assert 1 == session.steps[0][1]


@pytest.mark.parametrize(
    ("rows", "line", "said"),
    [
        ("s,1,0,10,5,0,0,0,g\n", 2, "turn is '1'"),
        ("s,0,0,10,5,0,0,0,g\ns,2,1,10,5,0,0,0,g\n", 3, "turn is '2'"),
        ("s,0,0,10,5,0,0,0,g\nt,0,0,10,5,0,0,0,g\ns,1,1,10,5,0,0,0,g\n", 4, "turn is '1'"),
        ("s,0,0,10,5,0,0,0,g\ns,1,1,10,5,11,0,0,g\n", 3, "cached_prefix_tokens is '11'"),
        ("s,0,0,0,5,0,0,0,g\n", 2, "prompt_tokens is '0'"),
        ("s,0,0,10,5,0,-1,0,g\n", 2, "think_time_s is '-1'"),
    ],
)
def test_rows_that_are_no_sessions_are_named(tmp_path: Path, rows: str, line: int, said: str) -> None:
    """Line and column in a CSV file, row and column in a Parquet file."""
    path = tmp_path / "s.csv"
    path.write_text(HEADER + rows)
    with pytest.raises(InvalidDocument) as caught:
        read_sessions(path)

    assert (line, True) == (caught.value.line, said in caught.value.problem)


def test_a_wrong_row_of_a_parquet_file_of_sessions_is_named(tmp_path: Path) -> None:
    """Row and column, holes told from numbers."""
    columns: dict[str, Sequence[object]] = {
        "session_id": ["s", "s"],
        "turn": [0, 1],
        "arrival_s": [0.0, 1.0],
        "prompt_tokens": [10, None],
        "output_tokens": [1, 1],
        "cached_prefix_tokens": [0, 0],
        "think_time_s": [0.0, None],
    }
    write_table(pa.table(columns), tmp_path / "s.parquet")

    with pytest.raises(Rejected, match="row 2, column prompt_tokens: None; a whole number of at least 1"):
        read_sessions(tmp_path / "s.parquet")


@pytest.mark.parametrize("tokens", [float("inf"), 10.5, 1e300])
def test_sessions_of_half_or_endless_tokens_are_named(tmp_path: Path, tokens: float) -> None:
    """Nothing is rounded, and nothing is longer than a scenario's requests may be."""
    columns: dict[str, Sequence[object]] = {
        "session_id": ["s"],
        "turn": [0],
        "arrival_s": [0.0],
        "prompt_tokens": [tokens],
        "output_tokens": [1],
        "cached_prefix_tokens": [0],
        "think_time_s": [0.0],
    }
    write_table(pa.table(columns), tmp_path / "s.parquet")

    with pytest.raises(
        Rejected, match=r"row 1, column prompt_tokens: .*; a whole number of at least 1, at most 10,000"
    ):
        read_sessions(tmp_path / "s.parquet")
