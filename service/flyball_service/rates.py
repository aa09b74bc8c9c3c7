"""How often: token buckets, for one and for each of many, in whatever time the caller has.

A bucket only counts. Whether somebody is refused or waits, and what is said to him, is the door's affair.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True, kw_only=True)
class Bucket:
    """Takes `per_s` a second in the long run, and up to `at_once` after a rest. Full at first."""

    per_s: float
    at_once: float
    _held: float = field(init=False)
    _as_of_s: float = field(init=False, default=-float("inf"))

    def __post_init__(self) -> None:
        self._held = self.at_once

    def holds(self, count: float, now_s: float) -> bool:
        """Whether so many may be taken now. More than `at_once` never may."""
        return self._filled(now_s) >= count

    def take(self, count: float, now_s: float) -> bool:
        """Take so many, if they may be taken now; else nothing changes."""
        if not self.holds(count, now_s):
            return False
        self._held -= count
        return True

    def wait_s(self, now_s: float) -> float:
        """Take one all the same; the seconds to wait first, for whoever may not be refused."""
        self._held = self._filled(now_s) - 1.0
        return max(0.0, -self._held / self.per_s)

    def full(self, now_s: float) -> bool:
        """Whether it is as if it were new."""
        return self._filled(now_s) >= self.at_once

    def _filled(self, now_s: float) -> float:
        # A clock that went back fills nothing, and does not empty either.
        since_s = max(now_s - self._as_of_s, 0.0)
        self._held = min(self._held + since_s * self.per_s, self.at_once)
        self._as_of_s = now_s
        return self._held


class Buckets(Generic[Key]):
    """A bucket for each of at most `most` names at a time; whoever comes beyond them shares one with his like."""

    def __init__(self, *, per_s: float, at_once: float, most: int) -> None:
        self._per_s, self._at_once, self._most = per_s, at_once, most
        self._by_key: dict[Key, Bucket] = {}
        self._others = self._new()

    def of(self, key: Key, now_s: float) -> Bucket:
        """The bucket of a name; those that are full again are forgotten when room is needed."""
        found = self._by_key.get(key)
        if found is not None:
            return found
        if len(self._by_key) >= self._most:
            self._by_key = {one: bucket for one, bucket in self._by_key.items() if not bucket.full(now_s)}
        if len(self._by_key) >= self._most:
            return self._others
        made = self._by_key[key] = self._new()
        return made

    def __len__(self) -> int:
        return len(self._by_key)

    def _new(self) -> Bucket:
        return Bucket(per_s=self._per_s, at_once=self._at_once)
