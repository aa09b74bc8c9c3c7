"""A paged KV cache as a block count: exact, without touching each sequence at each step.

A decoding sequence needs a new block once every 16 of its tokens. Since all decoding
sequences advance together, a token per tick, the tick at which a sequence needs its next
block is known from its residue modulo 16: sixteen counters replace sixteen-thousand
additions, and say at once how far the free blocks reach. This module refuses to know which
sequence owns which block, because nothing here depends on it; it does refuse, loudly, to
hold more than its capacity or less than none.
"""

from flyball_core.errors import Fatal
from flyball_twin.physics import BLOCK_TOKENS

_MASK = BLOCK_TOKENS - 1
_SHIFT = BLOCK_TOKENS.bit_length() - 1


def blocks_for(tokens: int) -> int:
    """Blocks that hold `tokens` KV tokens."""
    return (tokens + _MASK) >> _SHIFT


class PagedKv:
    """Blocks of one engine: how many are free, and when decoding sequences need more.

    A tick is a token's worth of decoding: every joined sequence grows by one token at each.
    """

    __slots__ = ("_crossings", "_joined", "capacity", "free")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self._joined = 0
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
        """A sequence with `tokens` in the cache decodes from `tick` on."""
        self._joined += 1
        self._crossings[(tick - tokens) & _MASK] += 1

    def leave(self, tokens: int, tick: int) -> None:
        """A sequence with `tokens` in the cache decodes no more as of `tick`."""
        self._joined -= 1
        self._crossings[(tick - tokens) & _MASK] -= 1

    def needed(self, tick: int) -> int:
        """New blocks that the decoding sequences need for the token of `tick`."""
        return self._crossings[tick & _MASK]

    def needed_between(self, tick: int, until: int) -> int:
        """New blocks that they need for the tokens from `tick` on, up to but without `until`."""
        rounds, rest = divmod(until - tick, BLOCK_TOKENS)
        first = tick & _MASK
        last = first + rest
        crossings = self._crossings
        if last <= BLOCK_TOKENS:
            return rounds * self._joined + sum(crossings[first:last])
        return rounds * self._joined + sum(crossings[first:]) + sum(crossings[: last - BLOCK_TOKENS])

    def ticks_within(self, tick: int, free: int, most: int) -> int:
        """How many ticks from `tick` on, at most `most`, fit `free` blocks."""
        if self._joined * ((most >> _SHIFT) + 1) <= free:
            return most
        rounds = free // self._joined
        left = free - rounds * self._joined
        ticks = rounds << _SHIFT
        while ticks < most and (need := self._crossings[(tick + ticks) & _MASK]) <= left:
            left -= need
            ticks += 1
        return min(ticks, most)
