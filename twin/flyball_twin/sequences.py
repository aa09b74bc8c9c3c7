"""A request on its way through one engine.

Refuses to hold anything that changes at every step: a decoding sequence's length follows
from the decode step at which it joined, so nothing here is touched between its first
token and its last but at a preemption.
"""

from dataclasses import dataclass

from flyball_twin.workload import Request


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One attempt at a request on one engine; `computed` is exact only while it does not decode."""

    request: Request
    arrived_s: float
    """When this engine took it."""
    target: int
    """KV tokens to compute before the next token comes out: the prompt, and after a preemption what was generated."""
    computed: int = 0
    generated: int = 0
    joined_tick: int = -1
    """Decode step at which it began to decode; -1 while it does not."""
    due_tick: int = -1
    """Decode step whose end is its end."""
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float = 0.0
    """Kept only where the next gap is not the length of the step: over a preemption."""
    finished_s: float | None = None
    preemptions: int = 0

    def tokens_at(self, tick: int) -> int:
        """KV tokens computed as of decode step `tick`."""
        return self.computed + tick - self.joined_tick if self.joined_tick >= 0 else self.computed

    def generated_at(self, tick: int) -> int:
        """Tokens put out as of decode step `tick`."""
        return self.generated + tick - self.joined_tick if self.joined_tick >= 0 else self.generated
