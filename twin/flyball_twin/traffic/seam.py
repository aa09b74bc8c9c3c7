"""The seam between what asks and what serves.

A fleet pulls its arrivals one at a time, so a week of them needs no more memory than an hour, and tells
the source what became of each, so that a session can ask its next question after the answer.
"""

from collections.abc import Sequence
from typing import Protocol

from flyball_twin.workload import Request

NEVER = float("inf")


class Traffic(Protocol):
    """Requests in the order of their arrival."""

    def next_s(self) -> float:
        """When the next request arrives, in seconds of the fleet's clock; infinity while none is known."""
        ...

    def take(self) -> Request:
        """The request whose time `next_s` told; to be called once for each."""
        ...

    def ended(self, request: Request, now_s: float) -> None:
        """A request was answered in full, refused or given up at `now_s`; what waited for it may follow."""
        ...


class Listed:
    """Requests that are all known beforehand; they wait for nothing."""

    def __init__(self, requests: Sequence[Request]) -> None:
        """`requests` in any order; equal arrivals keep the order of their ids."""
        self._requests = sorted(requests, key=lambda request: (request.arrival_s, request.id))
        self._taken = 0

    def next_s(self) -> float:
        """When the next request arrives."""
        return self._requests[self._taken].arrival_s if self._taken < len(self._requests) else NEVER

    def take(self) -> Request:
        """The next request."""
        request = self._requests[self._taken]
        self._taken += 1
        return request

    def ended(self, request: Request, now_s: float) -> None:
        """Nothing here waits for an answer."""
