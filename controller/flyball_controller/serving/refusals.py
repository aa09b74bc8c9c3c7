"""What a door answers when it does not do what it is asked: a gRPC status and a sentence.

Tells the caller what to do about it, by the status: INVALID_ARGUMENT and PERMISSION_DENIED will stay so,
UNAVAILABLE and RESOURCE_EXHAUSTED are for later. Nothing here says more than the caller may know.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from flyball_core.errors import Fatal, FlyballError, OffsetGone, Retryable

log = structlog.get_logger()

UNAVAILABLE = "unavailable"
INTERNAL = "internal"
INVALID = "invalid"

_MOST_SAID = 1_000
_ABORT_S = 2.0


class Refusal(Exception):
    """Why a call ends without what it asked for. `reason` is a constant word, for counting."""

    def __init__(self, code: grpc.StatusCode, reason: str, said: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(said)


def refusal_of(error: FlyballError) -> Refusal:
    """The refusal that an error amounts to, by what the caller should do about it."""
    if isinstance(error, Retryable):
        return Refusal(grpc.StatusCode.UNAVAILABLE, UNAVAILABLE, str(error))
    if isinstance(error, OffsetGone):
        return Refusal(grpc.StatusCode.OUT_OF_RANGE, INVALID, str(error))
    if isinstance(error, Fatal):
        return Refusal(grpc.StatusCode.FAILED_PRECONDITION, UNAVAILABLE, str(error))
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, str(error))


@asynccontextmanager
async def refusing(
    context: grpc.aio.ServicerContext[Any, Any], note: Callable[[Refusal], None] = lambda _: None
) -> AsyncIterator[None]:
    """End the call with the status of what is raised inside; `note` hears of it first."""
    try:
        try:
            yield
        except FlyballError as error:
            raise refusal_of(error) from error
        except (Refusal, grpc.aio.AbortError):
            raise
        except Exception as error:  # the boundary of a call: it must not take the door down
            log.exception("call_failed")
            said = f"the controller failed at this: {type(error).__name__}"
            raise Refusal(grpc.StatusCode.INTERNAL, INTERNAL, said) from error
    except Refusal as refusal:
        note(refusal)
        # The status waits behind what was sent before, for ever if the caller reads nothing.
        async with asyncio.timeout(_ABORT_S):
            await context.abort(refusal.code, str(refusal)[:_MOST_SAID])
