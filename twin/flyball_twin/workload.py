"""Requests: read from bundled traces, spliced into one workload, sorted into lanes.

A workload is data: the same segments and seed give the same requests on every machine.
This module refuses to invent requests: it thins and shifts what a trace holds, and a
damaged or missing trace is an error that names the file, never an empty workload.
"""

import csv
import gzip
import io
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flyball_core.errors import InvalidDocument, Rejected

DATA = Path(__file__).parent / "data"
"""Where the bundled traces lie."""

AZURE_CHAT = "azure2023_conv_h1"
"""Short chat: 29 minutes of an Azure service, near-Poisson, 4.4 rising to 7.1 requests a second."""

MOONCAKE = "mooncake_conversation"
"""Long context: 15 minutes of Mooncake, prompts of 13,500 tokens on average and up to 126,000."""

PREFIX_TOKENS = 512
"""Tokens that one name of a request's prefix stands for, as in the Mooncake trace."""

COLUMNS = ["arrival_s", "prompt_tokens", "output_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a workload. `arrival_s` counts from the workload's start."""

    id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    lane: str
    pool: str = ""
    """The pool that serves its model; empty where a front has but one."""
    priority: int = 0
    """For an engine that schedules by priority: lower goes first."""
    session: str = ""
    """The session it belongs to; empty: none."""
    turn: int = 0
    """Its place in the session, from 0."""
    prefix: tuple[int, ...] = ()
    """Names of its prompt's leading runs of `PREFIX_TOKENS` tokens each: two requests share a prefix as far as they
    share names from the first on. Empty: it shares nothing."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One row of a trace."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a trace, `from_s` up to but without `to_s` on the trace's clock.

    It is played `speed` times as fast as it was recorded, and thinned to the share `keep`
    of its requests. Either way bursts and trends survive.
    """

    trace: str
    from_s: float
    to_s: float
    speed: float = 1.0
    keep: float = 1.0

    @property
    def duration_s(self) -> float:
        """How long it takes to play."""
        return (self.to_s - self.from_s) / self.speed


def load_trace(name: str, folder: Path = DATA) -> tuple[Arrival, ...]:
    """All rows of a trace, in order of arrival.

    Raises `Rejected` if the file is missing or no readable gzip, `InvalidDocument` (with the
    line) if a row is not three numbers, out of order, or without tokens.
    """
    return _load(folder / f"{name}.csv.gz")


@lru_cache(maxsize=8)
def _load(path: Path) -> tuple[Arrival, ...]:
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
    except FileNotFoundError:
        raise Rejected(f"trace {path.name} is missing: no file {path}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise Rejected(f"trace {path} is damaged: {problem}") from problem
    rows = csv.reader(io.StringIO(text))
    header = next(rows, [])
    if header[: len(COLUMNS)] != COLUMNS:
        raise InvalidDocument(f"the header is {','.join(header)!r}", file=str(path), line=1, hint=",".join(COLUMNS))
    arrivals: list[Arrival] = []
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InvalidDocument(f"not a request: {','.join(row)!r}", file=str(path), line=line)
        arrival = _arrival(row, str(path), line)
        if arrivals and arrival.arrival_s < arrivals[-1].arrival_s:
            raise InvalidDocument("arrives before the row above it", file=str(path), line=line)
        arrivals.append(arrival)
    if not arrivals:
        raise InvalidDocument("the trace has no requests", file=str(path), line=1)
    return tuple(arrivals)


def _arrival(row: list[str], file: str, line: int) -> Arrival:
    try:
        arrival_s, prompt, output = float(row[0]), int(row[1]), int(row[2])
    except (ValueError, IndexError):
        raise InvalidDocument(f"not a request: {','.join(row)!r}", file=file, line=line) from None
    if not 0.0 <= arrival_s < float("inf") or prompt < 1 or output < 1:
        raise InvalidDocument(f"not a request: {','.join(row)!r}", file=file, line=line)
    return Arrival(arrival_s, prompt, output)


def splice(
    segments: Sequence[Segment], lanes: Mapping[str, float], seed: int, folder: Path = DATA
) -> tuple[Request, ...]:
    """Requests of the segments, one after another on one clock, with ids from 0 in order of arrival.

    `lanes` gives each lane its share of the requests; each request draws its lane by `seed`
    alone. Raises `Rejected` for a segment, a share or a trace that makes no sense.
    """
    if not lanes or any(not share >= 0.0 for share in lanes.values()) or not sum(lanes.values()) > 0.0:
        raise Rejected(f"lanes need shares of at least 0 that do not sum to 0, not {dict(lanes)!r}")
    rng = random.Random(seed)
    names, shares = list(lanes), list(lanes.values())
    requests: list[Request] = []
    offset_s = 0.0
    for segment in segments:
        for row in _cut(segment, folder):
            arrival_s = offset_s + (row.arrival_s - segment.from_s) / segment.speed
            lane = rng.choices(names, shares)[0]
            requests.append(
                Request(
                    id=len(requests),
                    arrival_s=arrival_s,
                    prompt_tokens=row.prompt_tokens,
                    output_tokens=row.output_tokens,
                    lane=lane,
                )
            )
        offset_s += segment.duration_s
    return tuple(requests)


def _cut(segment: Segment, folder: Path) -> list[Arrival]:
    """The segment's rows. Thinning by an accumulator keeps exactly its share, evenly spread."""
    runs_forward = 0.0 <= segment.from_s < segment.to_s < float("inf") and 0.0 < segment.speed < float("inf")
    if not runs_forward or not 0.0 < segment.keep <= 1.0:
        raise Rejected(f"a segment runs forward from 0 s or later and keeps a share up to 1: {segment}")
    rows = [row for row in load_trace(segment.trace, folder) if segment.from_s <= row.arrival_s < segment.to_s]
    if not rows:
        raise Rejected(f"trace {segment.trace} has nothing from {segment.from_s:g} s to {segment.to_s:g} s")
    return [row for i, row in enumerate(rows, start=1) if int(i * segment.keep) > int((i - 1) * segment.keep)]
