"""A request on its way through one engine.

Refuses to hold anything that changes at every step: a decoding sequence's length follows
from the tick at which it joined, so nothing here is touched between its first token and
its last but at a preemption.
"""

from dataclasses import dataclass

from flyball_twin.engine.prefix_cache import Run
from flyball_twin.workload import Request


@dataclass(slots=True, eq=False)
class Sequence:
    """One attempt at a request on one engine; `computed` is exact only while it does not decode."""

    request: Request
    arrived_s: float
    """When this engine took it."""
    sent_s: float
    """When it was sent to this engine: earlier by what it was on its path."""
    target: int
    """KV tokens to compute before the next token comes out: the prompt, and after a preemption what was generated."""
    computed: int = 0
    generated: int = 0
    from_step: int = 0
    """The first step of this engine, by number, that may let it in; any if nothing else runs."""
    joined_tick: int = -1
    """Tick at which it began to decode; -1 while it does not."""
    due_tick: int = -1
    """Tick at which its last token is out."""
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float = 0.0
    """Kept only where the next gap is not the length of the step: over a preemption."""
    finished_s: float | None = None
    preemptions: int = 0
    runs: list[Run] | None = None
    """What it shares through the prefix cache, from its first token on; None without one."""

    def tokens_at(self, tick: int) -> int:
        """KV tokens computed as of `tick`."""
        return self.computed + tick - self.joined_tick if self.joined_tick >= 0 else self.computed

    def generated_at(self, tick: int) -> int:
        """Tokens put out as of `tick`."""
        return self.generated + tick - self.joined_tick if self.joined_tick >= 0 else self.generated
