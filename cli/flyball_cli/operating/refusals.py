"""What a controller's silence or refusal means, in words that say what to do about it."""

from collections.abc import Sequence

import grpc

from flyball_cli.operating.connection import Connection
from flyball_cli.operating.merging import Silence
from flyball_core.errors import FlyballError, Rejected, Retryable

REFUSED = "connection refused"
_NOT_FLYBALL = "it does not know this call: no Flyball controller, or one of another version"


class NoAnswer(Retryable):
    """None of the controllers that were asked answered; names each with its reason."""

    def __init__(self, silences: Sequence[Silence]) -> None:
        self.silences = tuple(silences)
        heard = "; ".join(f"at {one.address}: {one.why}" for one in silences)
        away = any(one.why == REFUSED for one in silences)
        hint = "; is `flyball controller` running? name it with --controller HOST:PORT" if away else ""
        super().__init__(f"no controller answered {heard}{hint}")


class Unsure(Retryable):
    """An order was sent and no answer came: it may be on record."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"{address}: {why}; the order may be on record all the same: look with `flyball status` before giving it"
            " again"
        )


def worded(error: grpc.aio.AioRpcError, address: str, connection: Connection) -> FlyballError:
    """A failed call as one of Flyball's errors."""
    why = plain_reason(error, connection)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return NoAnswer([Silence(address=address, why=why)])
    return Rejected(f"{address}: {why}")


def plain_reason(error: grpc.aio.AioRpcError, connection: Connection) -> str:
    """Why a call failed, in words."""
    code, details = error.code(), (error.details() or "").strip()
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(details, connection)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {connection.timeout_s:g} s (--timeout gives it longer)"
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"it does not know who asks ({details}): give the certificates of an operator with --tls FOLDER"
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return f"not allowed: {details}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return _NOT_FLYBALL
    return details or code.name.lower().replace("_", " ")


def _unreachable(details: str, connection: Connection) -> str:
    low = details.lower()
    if REFUSED in low:
        return REFUSED
    if "hostname verification" in low:
        return "its certificate is not a controller's: it has to carry the host name `controller.TRUST_DOMAIN`"
    if any(word in low for word in ("certificate", "handshake", "ssl", "verification check")):
        return f"its certificate and ours do not fit together ({_last(details)})"
    if connection.tls is None and ("socket closed" in low or "connection reset" in low or "recvmsg" in low):
        return f"it hung up ({_last(details)}): does it ask for certificates? give them with --tls FOLDER"
    return _last(details) or "unreachable"


def _last(details: str) -> str:
    """The innermost reason in gRPC's chain of them."""
    return details.rpartition("last error: ")[2].strip()
