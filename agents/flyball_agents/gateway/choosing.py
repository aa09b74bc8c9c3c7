"""HAProxy's ways to choose a server, as pure rules over weights, caps and what is in flight.

They follow HAProxy 3.x, `balance` in its configuration manual (docs.haproxy.org) and its source:

* `leastconn` (`lb_fwlc.c`): the least `(in_flight + 1) * 256 / weight`, an idle server counting as 0; full servers are
  passed over; of equals the one chosen least recently.
* `roundrobin` (`lb_fwrr.c`): each in turn, as often as its weight says and evenly spread. A full server loses its turn.
* `random(n)` (`get_server_rnd`, `backend.c`): `n` servers are drawn by weight, one after the other and with
  replacement, full ones too; the one with the least in flight for its weight is kept, of equals the one with the
  lower rate over the last second for its weight. *If that one is full the request waits in the backend's queue*, even
  if another has room; whichever server next ends a request takes it. `random` alone is `random(2)`.
* `hash` with `hash-type consistent` (`lb_chash.c`): requests of one key go to one server, *full or not*: if full they
  wait in that server's own queue. When a server comes or goes only its share of the keys moves. Without a key it is
  `roundrobin`.

Differences: draws are exactly by weight and keys exactly spread by it, where HAProxy's ring of `16 * weight`
points for each server is a few percent uneven. Nothing here knows time but the rate, and nothing queues.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import log
from operator import attrgetter
from typing import Protocol

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId

WEIGHT_SCALE = 256
"""HAProxy's `SRV_EWGHT_MAX`: what a load is scaled by, and the greatest weight of a server."""

START_WEIGHT = 100
"""What every engine starts with; room above and below."""

RANDOM_DRAWS = 2
"""What HAProxy's `balance random` draws if not told otherwise."""

_BALANCE = re.compile(r"(leastconn|roundrobin|hash|random)(?:\((0|[1-9]\d{0,3})\))?")


@dataclass(slots=True, eq=False)
class Server:
    """One engine as the gateway sees it."""

    engine: EngineId
    weight: int = START_WEIGHT
    cap: int = 0
    """The most requests in flight; 0 is no cap."""
    in_flight: int = 0
    up: bool = True
    chosen: int = 0
    """When it was chosen last, counted in choices."""
    turn: float = 0.0
    """Its next place in the round."""
    second: int = 0
    in_second: int = 0
    in_second_before: int = 0
    """Requests it got in that second, and in the one before."""

    @property
    def full(self) -> bool:
        """Whether it has as many in flight as its cap allows, or more."""
        return self.cap > 0 and self.in_flight >= self.cap

    def count(self, now_s: float) -> None:
        """It gets a request now."""
        self._roll(now_s)
        self.in_second += 1

    def rate(self, now_s: float) -> float:
        """Requests over the last second: this second's, and of the one before the share that is left of it."""
        self._roll(now_s)
        return self.in_second + self.in_second_before * (1.0 - (now_s - self.second))

    def _roll(self, now_s: float) -> None:
        second = int(now_s)
        if second > self.second:
            self.in_second_before = self.in_second if second == self.second + 1 else 0
            self.second, self.in_second = second, 0


@dataclass(slots=True)
class Asking:
    """The request to be placed, as far as a choice may depend on it."""

    key: str = ""
    """What `hash` hashes; empty: nothing."""
    now_s: float = 0.0


class Choosing(Protocol):
    """A way to choose among the servers it was made for."""

    waits_for_any: bool
    """Whether a request that is not placed waits only because every server is full, so that none need be asked
    again for the next in the queue."""

    def choose(self) -> Server | None:
        """The server for the request that asks. A full one: the request waits for just this server.

        None: it waits for whichever has room next.
        """
        ...

    def took(self, server: Server) -> None:
        """The server got a request, chosen or not."""
        ...


class LeastConn:
    """`balance leastconn`."""

    waits_for_any = True

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._choices = 0

    def choose(self) -> Server | None:
        """The least loaded server that has room."""
        best: Server | None = None
        best_load = 0.0
        for server in self._servers:
            in_flight, weight = server.in_flight, server.weight
            if not weight or not server.up or (server.cap and in_flight >= server.cap):
                continue
            load = (in_flight + 1) * WEIGHT_SCALE / weight if in_flight else 0.0
            if best is None or load < best_load or (load == best_load and server.chosen < best.chosen):
                best, best_load = server, load
        return best

    def took(self, server: Server) -> None:
        """It goes behind its equals."""
        self._choices += 1
        server.chosen = self._choices


class RoundRobin:
    """`balance roundrobin`."""

    waits_for_any = True

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._turn = 0.0

    def choose(self) -> Server | None:
        """The next server in the round that has room."""
        usable = [server for server in self._servers if server.weight and server.up]
        if all(server.full for server in usable):
            return None  # and nobody loses a turn, however often the queue is looked at
        while True:
            following = min(usable, key=attrgetter("turn"))
            # A server that was away does not catch up on the turns that it missed.
            self._turn = max(following.turn, self._turn)
            following.turn = self._turn + 1.0 / following.weight
            if not following.full:
                return following
            usable.remove(following)

    def took(self, server: Server) -> None:
        """A turn was used when it was chosen."""


class RandomDraws:
    """`balance random(draws)`, seeded."""

    waits_for_any = False

    def __init__(self, servers: Sequence[Server], asking: Asking, draws: int, seed: int) -> None:
        self._servers, self._asking = servers, asking
        self._draws = draws
        self._random = random.Random(seed)

    def choose(self) -> Server | None:
        """The least loaded of those drawn; None if it is full."""
        total = sum(server.weight for server in self._servers if server.up)
        if not total:
            return None
        best = self._draw(total)
        for _ in range(self._draws - 1):
            drawn = self._draw(total)
            if drawn is not best and not _busier(drawn, best, self._asking.now_s):
                best = drawn
        return None if best.full else best

    def took(self, server: Server) -> None:
        """It counts towards its rate."""
        server.count(self._asking.now_s)

    def _draw(self, total: int) -> Server:
        place = self._random.randrange(total)
        for server in self._servers:
            if server.up:
                place -= server.weight
                if place < 0:
                    return server
        raise Fatal("a draw fell beside all servers")


def _busier(server: Server, other: Server, now_s: float) -> bool:
    """Whether `server`, drawn after `other`, is passed over for it."""
    load, other_load = server.in_flight * other.weight, other.in_flight * server.weight
    if load != other_load:
        return load > other_load
    return server.rate(now_s) * other.weight > other.rate(now_s) * server.weight


class Hashed:
    """`balance hash` of a request's key, `hash-type consistent`, by weighted rendezvous.

    The server with the greatest `-weight / ln(hash(key, server))` wins (Thaler and Ravishankar, "Using name-based
    mappings to increase hit rates", 1998, with the weights of Schindelhauer and Schomaker, "Weighted distributed
    hash tables", 2005).
    """

    waits_for_any = False

    def __init__(self, servers: Sequence[Server], asking: Asking) -> None:
        self._servers, self._asking = servers, asking
        self._keyless = RoundRobin(servers)

    def choose(self) -> Server | None:
        """The key's server, full or not; without a key the next that has room."""
        key = self._asking.key
        if not key:
            return self._keyless.choose()
        usable = [server for server in self._servers if server.weight and server.up]
        return max(usable, key=lambda server: _pull(server, key)) if usable else None

    def took(self, server: Server) -> None:
        """Nothing follows."""


def _pull(server: Server, key: str) -> float:
    digest = blake2b(f"{key}\0{server.engine}".encode(), digest_size=8).digest()
    return -server.weight / log((int.from_bytes(digest) + 1) / (2**64 + 1))


def choosing_of(balance: str, servers: Sequence[Server], asking: Asking, seed: int = 0) -> Choosing:
    """What `balance` names. Raises `Rejected` as `check_balance`."""
    kind, draws = check_balance(balance)
    if kind == "random":
        return RandomDraws(servers, asking, draws, seed)
    if kind == "hash":
        return Hashed(servers, asking)
    return RoundRobin(servers) if kind == "roundrobin" else LeastConn(servers)


def check_balance(balance: str) -> tuple[str, int]:
    """What `balance` names, and how many draws: `leastconn`, `roundrobin`, `random`, `random(n)` or `hash`.

    Raises `Rejected` for another.
    """
    match = _BALANCE.fullmatch(balance)
    if match is None or (match[2] is not None and match[1] != "random") or match[2] == "0":
        raise Rejected(f"balance takes leastconn, roundrobin, random(n) or hash, not {balance!r}")
    return match[1], int(match[2] or RANDOM_DRAWS)
