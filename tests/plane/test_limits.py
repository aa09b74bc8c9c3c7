"""The page of limits is true: each number is the code's, each limit is met one beyond it, and none is missing."""

from inspect import isawaitable
from pathlib import Path

import pytest

import limits_of_agents as _agents  # noqa: F401 - its cases
import limits_of_documents as _documents  # noqa: F401 - its cases
import limits_of_doors as _doors  # noqa: F401 - its cases
import limits_of_http as _http  # noqa: F401 - its cases
import limits_of_machine as _machine  # noqa: F401 - its cases
import limits_of_operators as _operators  # noqa: F401 - its cases
from limit_table import CASES, Bench, Row, limits_in_code, rows, value_at

ROWS = rows()
ELSEWHERE = {
    "kafka-message-bytes": "tests/faults/test_f12_malformed_kafka.py, at a broker",
}
"""Rows whose case needs what not every machine has."""

INTERNAL = {
    "_WRITE_BYTES": "how compaction writes",
    "INDEX_BYTES": "the grain of a segment's index",
    "segment._MOST_BYTES": "how much is read ahead",
    "segment._LEAST_BYTES": "how much is read ahead",
    "GROUP_BYTES": "a group takes no further append; all wait in the next one",
    "FETCH_BYTES": "how much a consumer asks for at once",
    "_BATCH_BYTES": "our own batches",
    "MAX_OFFSET": "tells damage from an offset",
    "MAX_LOOKAHEAD_BYTES": "what a call may send before it is read: measured in test_f12_malformed_grpc",
    "flyball_service.kafka._MOST_S": "a pause",
    "_MOST_TEMPLATES": "what is remembered of lines that repeat",
    "PART_BYTES": "how a checkpoint is cut up",
    "_ROUTE_BYTES": "a part of names-bytes",
    "_OVERRIDE_BYTES": "a part of overrides-bytes",
    "MAX_NAMED": "how many an alarm names; the others it counts",
    "LONGEST_LATENCY_S": "a feature's own bound",
    "FASTEST_TOKENS_PER_S": "a feature's own bound",
    "LONGEST_CONTEXT_TOKENS": "a feature's own bound",
    "LONGEST_BACKOFF_S": "a pause",
    "MAX_BEFORE": "what is remembered of incarnations",
    "publishing.MAX_WEIGHT": "of what is published",
    "records.PAGE_BYTES": "how records are cut up",
    "MAX_OUTCOMES": "decisions whose effect is recorded; the others' is not",
    "MAX_SAID": "how many changes an outcome names",
    "READ_AT_ONCE": "how much is read before others have a turn",
    "CHECKED_AT_ONCE": "how much is read before others have a turn",
    "BEATS_AT_ONCE": "how much is sent before others have a turn",
    "MOST_DIFFERENCES": "how many differences a replay prints",
    "ORDER_BYTES": "what counts as one order",
    "LARGEST_STEP": "a policy's own bound",
    "_MOST_RUNS": "what is remembered of what was dropped; all of it is counted",
    "_MOST_WORDS": "how much of an error is shown",
    "_MOST_SHOWN": "how much of a line is shown",
    "_MOST_DIGITS": "tells a number from a long text",
    "MOST_PAUSE_S": "a pause",
    "most_pause_s": "a pause",
    "most_refused_s": "a pause",
    "_MOST_TOUCH_S": "how old a time on disk may grow",
    "slew_up_per_s": "an operator's bound of motion, held by the receiver's own tests",
    "slew_down_per_s": "an operator's bound of motion, held by the receiver's own tests",
    "MAX_WAIT": "the name of a knob",
    "MOST_WEIGHT": "the bound of a knob, refused as any other's",
    "HEAD_BYTES": "the size of a head",
    "fresh_bytes": "when a segment that is delivered goes",
    "_MOST_UNSYNCED": "segments that wait for the disk's sync",
    "contract.door._MOST": "what the check of a receiver puts up with",
    "PageLimits.most_bytes": "page-scraped-bytes",
    "MOST_DRAWN": "of drawn answers",
    "_AT_ONCE_BYTES": "what is written without waiting",
    "_BUFFER_BYTES": "a stand-in's",
    "flyball_cli.bench": "a bench",
    "flyball_cli.live": "the demo",
    "_LONGEST_DAYS": "of certificates that are issued here",
    "LONGEST_WAIT_S": "a pause",
    "MOST_ENGINES": "of an example that is written",
    "MOST_COLUMNS": "how many pools a picture has",
}
"""Limits by the rule that bound nothing which comes in: a part of the name, and what it is instead."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_limit_is_the_codes(row: Row) -> None:
    """The page says the number that the constant has."""
    assert row.number == value_at(row.where)


@pytest.mark.parametrize("row", [row for row in ROWS if row.id not in ELSEWHERE], ids=lambda row: row.id)
async def test_one_beyond_a_limit_is_what_the_page_says(row: Row, tmp_path: Path) -> None:
    """At the limit it is taken, one beyond it it is not, and the words are the page's."""
    answers = CASES[row.id](Bench(limit=row.number, folder=tmp_path))
    at, one_more = await answers if isawaitable(answers) else answers

    assert row.word not in at
    assert row.word in one_more


def test_every_row_has_a_case() -> None:
    """A row that nothing goes beyond is a claim that nothing holds to."""
    assert {row.id for row in ROWS} == CASES.keys() | ELSEWHERE.keys()
    assert len(ROWS) == len({row.id for row in ROWS}) == len({row.where for row in ROWS})


def test_every_limit_in_the_code_is_on_the_page() -> None:
    """Or on the list of those that bound nothing which comes in; and what is on that list is in the code."""
    told, found = {row.where for row in ROWS}, set(limits_in_code())
    missing = {name for name in found - told if not any(part in name for part in INTERNAL)}

    assert set() == missing
    assert set() == {part for part in INTERNAL if not any(part in name for name in found - told)}
    assert len(INTERNAL) < len(told)
