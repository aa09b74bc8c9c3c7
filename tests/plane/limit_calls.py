"""Calls at a controller's doors without a wire: who calls, of what log, and why it was refused."""

from types import SimpleNamespace
from typing import Any, NoReturn, cast

import grpc
from prometheus_client import CollectorRegistry

from flyball_controller.serving.doorkeeper import RefusalLog
from flyball_controller.serving.doorway import Doorway, Plane
from flyball_controller.serving.measures import Measures, Now
from flyball_controller.serving.refusals import Refusal
from flyball_service.health import Health
from flyball_service.tls import Identity

NOTHING = Now(
    tick_age_s={},
    inputs_behind={},
    pools_by_mode={},
    stale_pools=0,
    streams_by_kind={},
    heartbeat_age_s={},
    ignored_records=0,
)


class Context:
    """A call as its servicer sees it. `left_s` is what is left of its deadline."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:1", left_s: float = 0.0) -> None:
        self._peer = peer
        self._left_s = left_s

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End it."""
        raise Refusal(code, "", details)

    def peer(self) -> str:
        """Where it comes from."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """Nobody's certificate."""
        return {}

    def time_remaining(self) -> float:
        """What is left."""
        return self._left_s


class OneDoorway(Doorway):
    """A doorway that everybody comes through with the same certificate; behind it is a log and nothing else."""

    def __init__(self, who: Identity | None, log: object) -> None:
        super().__init__("c1", Health(), None, RefusalLog(lambda _: None))
        self.who = who
        plane = SimpleNamespace(log=log, owner=SimpleNamespace(owned={}), must_know=lambda _: None)
        self.open(cast("Plane", plane))

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> Identity | None:
        """The same."""
        del context
        return self.who


class Reasons(Measures):
    """Keeps the reasons of refusals, in order."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry(), lambda: NOTHING)
        self.found: list[str] = []

    def append_refused(self, reason: str) -> None:
        """Of an append."""
        self.found.append(reason)

    def read_refused(self, reason: str) -> None:
        """Of a read."""
        self.found.append(reason)

    def ordered(self, outcome: str) -> None:
        """Of an order, or what became of it."""
        self.found.append(outcome)
