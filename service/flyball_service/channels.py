"""gRPC channels and servers as all services have them: bounded, kept alive, never through a proxy.

Knows neither the services it carries nor who may call them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import grpc

from flyball_core.errors import Fatal
from flyball_service.tls import Tls, check_address, controller_host

KEEPALIVE_S = 10.0
"""A connection is asked for a sign of life after so long without one."""
KEEPALIVE_TIMEOUT_S = 5.0
"""It is dead when the sign does not come within so long: a silent peer is gone after 15 s."""
RECEIVE_BYTES = 4 * 1024 * 1024
"""Largest message taken, unless less is asked for."""
ATTACH_BYTES = 512 * 1024
"""Largest message taken on an attach stream."""
MAX_CALLS = 8_192
"""Most calls and streams that a server serves at once, of all connections."""
MAX_CALLS_OF_CONNECTION = 128
"""Most of them of one connection; its next waits at the caller until one has ended."""
MAX_LOOKAHEAD_BYTES = 256 * 1024
"""What a server takes in from a call that nobody reads yet."""

_KEEPALIVE: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    # The first bounds what TCP leaves unacknowledged, the second an unanswered ping (a minute if left alone: tried).
    ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_KEEPALIVE,
    # gRPC's own waits between connection attempts reach two minutes, which no lease should have to bridge.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A new channel starts afresh: with the certificates of now, and without another channel's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
"""Of every channel."""
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", int(KEEPALIVE_S * 500)),
    # Or two servers would share a port without a word.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", MAX_CALLS_OF_CONNECTION),
    # A quick sender is otherwise given room for 16 MiB, also for a message that is refused for its size (tried).
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", MAX_LOOKAHEAD_BYTES),
)
"""Of every server."""


def channel(address: str, tls: Tls | None, *, receive_bytes: int = RECEIVE_BYTES) -> grpc.aio.Channel:
    """A channel to the controller at HOST:PORT, with the certificate as it is on disk now; connects when first used.

    A server whose certificate is not a controller's is refused in the handshake, whatever its address is called.
    Close the channel; make a new one after a failure, and when `Tls.renewals` has grown, so that renewed certificates
    are taken. Raises `Rejected` for plaintext beyond loopback, `Fatal` if certificates cannot be read.
    """
    check_address(address, tls)
    options: tuple[tuple[str, int | str], ...] = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", receive_bytes))
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    options = (*options, ("grpc.ssl_target_name_override", controller_host(tls.trust_domain)))
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options=options)


async def grpc_server(
    address: str,
    tls: Tls | None,
    add_services: Callable[[grpc.aio.Server], None],
    *,
    receive_bytes: int = RECEIVE_BYTES,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> tuple[grpc.aio.Server, int]:
    """A server that listens on HOST:PORT, started, and its port; `interceptors` see each call first. Stop it.

    Raises `Rejected` for plaintext beyond loopback, `Fatal` if the address or the certificates cannot be used.
    """
    check_address(address, tls)
    options = (*SERVER_OPTIONS, ("grpc.max_receive_message_length", receive_bytes))
    server = grpc.aio.server(interceptors=list(interceptors), options=options, maximum_concurrent_rpcs=MAX_CALLS)
    add_services(server)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, tls.server_credentials())
    except RuntimeError as error:
        raise Fatal(f"cannot listen on {address}: is another process listening there?") from error
    if port == 0:
        raise Fatal(f"cannot listen on {address}")
    await server.start()
    return server, port


@dataclass(slots=True)
class Backoff:
    """Waits between attempts: full jitter, the bound doubling from `first_s` to `most_s` seconds."""

    rng: Random
    first_s: float
    most_s: float
    _bound_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        bound_s = self._bound_s
        self._bound_s = min(self.most_s, bound_s * 2.0)
        return self.rng.uniform(0.0, bound_s)

    def reset(self) -> None:
        """An attempt went well: begin with short waits again."""
        self._bound_s = self.first_s
