"""Where a stream's requests go: pool and lane by shares, drawn by the seed alone.

A request draws for itself; where there are sessions, a session draws once and for all its requests, from its name,
so that nothing has to be remembered of it.
"""

from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from random import Random
from zlib import crc32

from flyball_core.errors import Rejected

Lot = tuple[str, str, int]
"""Pool, lane, and the priority that an engine is told."""


class Lots:
    """Draws pools and lanes. Raises `Rejected` for shares that are none."""

    def __init__(
        self,
        pools: Mapping[str, float],
        lanes: Mapping[str, float],
        priorities: Mapping[tuple[str, str], int],
        salt: str,
    ) -> None:
        """`priorities` by pool and lane; one that is missing is 0. `salt` is the seed."""
        for what, shares in (("pools", pools), ("lanes", lanes)):
            if not shares or any(not share >= 0.0 for share in shares.values()) or not sum(shares.values()) > 0.0:
                raise Rejected(f"{what} need shares of at least 0 that do not sum to 0, not {dict(shares)!r}")
        self._lots: list[Lot] = [(pool, lane, priorities.get((pool, lane), 0)) for pool in pools for lane in lanes]
        weights = [pool * lane for pool in pools.values() for lane in lanes.values()]
        self._bounds = list(accumulate(weights))[:-1]
        self._total = sum(weights)
        self.salt = salt
        self._rng = Random(f"{salt}/lots")

    def draw(self) -> Lot:
        """The lot of the next request."""
        return self._lots[bisect(self._bounds, self._rng.random() * self._total)] if self._bounds else self._lots[0]

    def of_session(self, name: str) -> Lot:
        """The lot of a session."""
        share = crc32(name.encode(), crc32(self.salt.encode())) / 2**32
        return self._lots[bisect(self._bounds, share * self._total)]
