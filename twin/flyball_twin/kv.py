"""A paged KV cache as a block count: exact, without touching each sequence at each step.

A decoding sequence needs a new block once every 16 of its tokens. Since all decoding
sequences advance together, one per decode step, the step at which a sequence needs its
next block is known from its residue modulo 16: sixteen counters replace sixteen-thousand
additions. This module refuses to know which sequence owns which block, because nothing
here depends on it; it does refuse, loudly, to hold more than its capacity or less than none.
"""

from flyball_core.errors import Fatal
from flyball_twin.physics import BLOCK_TOKENS

_MASK = BLOCK_TOKENS - 1


def blocks_for(tokens: int) -> int:
    """Blocks that hold `tokens` KV tokens."""
    return (tokens + _MASK) // BLOCK_TOKENS


class PagedKv:
    """Blocks of one engine: how many are free, and when decoding sequences need more.

    `tick` is the engine's count of decode steps: every joined sequence grows by one
    token at each.
    """

    __slots__ = ("_crossings", "capacity", "free")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self._crossings = [0] * BLOCK_TOKENS

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self.capacity - self.free

    def take(self, blocks: int) -> None:
        """Hand out blocks. Raises `Fatal` beyond capacity: the scheduler has to ask first."""
        if blocks > self.free:
            raise Fatal(f"{blocks} KV blocks asked for, {self.free} of {self.capacity} free")
        self.free -= blocks

    def give(self, blocks: int) -> None:
        """Take blocks back. Raises `Fatal` if more come back than went out."""
        if self.free + blocks > self.capacity:
            raise Fatal(f"{blocks} KV blocks returned to {self.free} free of {self.capacity}")
        self.free += blocks

    def join(self, tokens: int, tick: int) -> None:
        """A sequence with `tokens` in the cache decodes from step `tick` on."""
        self._crossings[(tick - tokens) & _MASK] += 1

    def leave(self, tokens: int, tick: int) -> None:
        """A sequence with `tokens` in the cache decodes no more as of step `tick`."""
        self._crossings[(tick - tokens) & _MASK] -= 1

    def needed(self, tick: int) -> int:
        """New blocks that the decoding sequences need for step `tick`."""
        return self._crossings[tick & _MASK]
