"""A Prometheus page: which of its lines are wanted, and what they say.

Only wanted lines are parsed, by the Prometheus client's own parser, and a line that is the same as
on the page before is not parsed again: a page has some hundred lines, of which some thirty are
wanted. A page is taken as a whole or not at all: one wanted line that cannot be read, or a page
that ends in the middle of a line, and nothing of it is believed.
"""

import math
from collections.abc import Iterable, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from flyball_core.errors import Retryable

MALFORMED = "malformed"
FOREIGN = "foreign"
WRONG_MODEL = "wrong_model"
WRONG_GATEWAY = "wrong_gateway"
"""Why nothing of a page was taken."""

ABSENT = "absent"
"""Why a value is missing: the page has no such metric."""

PROCESS_START = "process_start_time_seconds"
"""Tells one start of a process from another; pages of several API servers do not carry it."""

MOST_LINES = 5_000
"""A page with more wanted lines is not believed: 64 ranks have some 2,000. To parse more would hold up the beat."""

MOST_LINE_BYTES = 16 * 1024
"""Nor is a page with a wanted line that is longer."""

_MOST_SHOWN = 60


class PageRefused(Retryable):
    """A page of which nothing is taken; `reason` is a constant, `detail` one clause for people."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class PageParser:
    """Reads the pages of one source."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names` are the wanted metrics, as they stand at the beginning of a line."""
        self._names = frozenset(name.encode() for name in names)
        self._known: dict[bytes, Sample] = {}

    def samples(self, page: bytes) -> Sequence[Sample]:
        """The wanted samples. Raises `PageRefused` as `malformed`, or `foreign` if the page has none of them."""
        if page and not page.endswith(b"\n"):
            raise PageRefused(MALFORMED, "ends in the middle of a line")
        wanted = self._wanted(page)
        if len(wanted) > MOST_LINES or max(map(len, wanted), default=0) > MOST_LINE_BYTES:
            detail = (
                f"has more than {MOST_LINES} lines that are looked for, or one of more than {MOST_LINE_BYTES} bytes"
            )
            raise PageRefused(MALFORMED, detail)
        known = {line: self._known.get(line) or self._read(line) for line in wanted}
        if not known:
            raise PageRefused(FOREIGN, "has none of the metrics that are looked for")
        self._known = known
        return tuple(known.values())

    def _wanted(self, page: bytes) -> list[bytes]:
        names = self._names
        return [
            line for line in page.splitlines() if line.partition(b"{")[0] in names or line.partition(b" ")[0] in names
        ]

    def _read(self, line: bytes) -> Sample:
        sample = _parse(line)
        if sample.name.encode() not in self._names:  # what stands before a brace goes before what stands before a blank
            raise PageRefused(MALFORMED, f"a line is named twice: {line[:_MOST_SHOWN]!r}")
        return sample


def _parse(line: bytes) -> Sample:
    try:
        (family,) = text_string_to_metric_families(line.decode())
        (sample,) = family.samples
    except Exception as error:
        raise PageRefused(MALFORMED, f"a line cannot be read: {line[:_MOST_SHOWN]!r}") from error
    return sample


def number_of(sample: Sample) -> float:
    """A sample's value; what no float can hold is infinite."""
    try:
        return float(sample.value)
    except OverflowError:
        return math.inf


def parts_fault(value: str, parts: Sequence[float]) -> str:
    """Why the sum of `parts` cannot be a measurement of `value`; empty if it can."""
    for number in (*parts, sum(parts)):
        if not math.isfinite(number):
            return "not_finite"
        if number < 0.0:
            return "negative"
        if value.endswith("_ratio") and number > 1.0:
            return "out_of_range"
    return ""


def told_by_start(name: str, samples: Iterable[Sample]) -> str:
    """The name of an incarnation by when its process started; empty if the page does not say that."""
    for sample in samples:
        if sample.name == PROCESS_START and math.isfinite(started_s := number_of(sample)):
            return f"{name}@{started_s:.2f}"
    return ""
