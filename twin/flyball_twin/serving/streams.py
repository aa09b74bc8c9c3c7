"""One request's way out of an engine: how many of its tokens there are, and whether more will come.

A stream holds a count, not tokens: what a slow reader has not fetched yet costs no memory, and what
it fetches late it fetches in one piece. It refuses to know how tokens are written down.
"""

import asyncio

from flyball_twin.engine.sequences import Sequence


class Stream:
    """What the engine tells of one request. Its one reader waits for `news`, clears it, and looks."""

    __slots__ = ("delivered", "failure", "finish", "last_token_s", "news", "scheduled", "sequence")

    def __init__(self, sequence: Sequence, finish: str) -> None:
        self.sequence = sequence
        self.finish = finish
        """Why it will have finished: `stop` (its own end) or `length` (its limit)."""
        self.scheduled = False
        """Whether it has left the queue."""
        self.delivered = 0
        """Tokens put out so far."""
        self.failure = ""
        """Why it ended before its last token; empty while it has not."""
        self.last_token_s = 0.0
        """When the newest token came out, on the engine's clock."""
        self.news = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether all tokens are out, or no more will come."""
        return bool(self.failure) or self.sequence.finished_s is not None

    def fail(self, why: str) -> None:
        """End it early."""
        self.failure = why
        self.news.set()
