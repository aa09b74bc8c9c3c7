"""Streams of requests and their merging into one traffic.

A stream turns drafts or sessions into requests between its start and its end; the merging gives them ids in the order
of their arrival. Nothing here remembers a request once it was taken, but what a session is waiting for.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from flyball_twin.traffic.asking import Draft
from flyball_twin.traffic.lots import Lots
from flyball_twin.traffic.seam import NEVER
from flyball_twin.workload import Request

STREAM_BITS = 56
"""Above this many bits the name of a prefix says whose stream it is, so that streams share none."""


class Asking(Protocol):
    """One stream."""

    waits: bool
    """Whether it has requests that wait for others to end."""

    def next_s(self) -> float:
        """When its next request arrives; infinity while none is known."""
        ...

    def take(self, request_id: int) -> Request:
        """That request."""
        ...

    def ended(self, request: Request, now_s: float) -> None:
        """A request with a session, perhaps not of this stream, has ended."""
        ...


class OpenStream:
    """Drafts that wait for nothing, from `from_s` up to `to_s` of the run."""

    waits = False

    def __init__(self, index: int, drafts: Iterator[Draft], lots: Lots, from_s: float, to_s: float) -> None:
        self._drafts = drafts
        self._lots = lots
        self._from_s = from_s
        self._to_s = to_s
        self._index = index
        self._names = index << STREAM_BITS
        self._next_s = NEVER
        self._advance()

    def next_s(self) -> float:
        """When its next request arrives."""
        return self._next_s

    def take(self, request_id: int) -> Request:
        """Its next request."""
        _, prompt, output, session, turn, prefix = self._draft
        pool, lane, priority = self._lots.of_session(session) if session else self._lots.draw()
        request = Request(
            id=request_id,
            arrival_s=self._next_s,
            prompt_tokens=prompt,
            output_tokens=output,
            lane=lane,
            pool=pool,
            priority=priority,
            session=f"{self._index}/{session}" if session else "",
            turn=turn,
            prefix=tuple([self._names + name for name in prefix]) if prefix else prefix,
        )
        self._advance()
        return request

    def ended(self, request: Request, now_s: float) -> None:
        """Nothing here waits for an answer."""

    def _advance(self) -> None:
        draft = next(self._drafts, None)
        self._next_s = NEVER
        if draft is not None:
            self._draft = draft
            arrival_s = self._from_s + draft[0]
            if arrival_s < self._to_s:
                self._next_s = arrival_s


class Merged:
    """Several streams as one traffic; of equal arrivals the earlier stream's goes first."""

    def __init__(self, streams: Sequence[Asking]) -> None:
        self._streams = tuple(streams)
        self._waiting = tuple((at, stream) for at, stream in enumerate(self._streams) if stream.waits)
        self._due = [stream.next_s() for stream in self._streams]
        self._next_s = min(self._due, default=NEVER)
        self.taken = 0
        """Requests that have been taken."""

    def next_s(self) -> float:
        """When the next request arrives."""
        return self._next_s

    def take(self) -> Request:
        """The next request."""
        at = self._due.index(self._next_s)
        stream = self._streams[at]
        request = stream.take(self.taken)
        self.taken += 1
        self._due[at] = stream.next_s()
        self._next_s = min(self._due)
        return request

    def ended(self, request: Request, now_s: float) -> None:
        """A request has ended; the next of its session may follow."""
        if request.session and self._waiting:
            for at, stream in self._waiting:
                stream.ended(request, now_s)
                self._due[at] = stream.next_s()
            self._next_s = min(self._due)
