"""Channels and servers: bounded waits, bounded messages, and connections that are kept alive."""

import asyncio
import time
from random import Random

import grpc
import pytest

from echoing import Conversation, add_echo, who_am_i
from flyball_core.errors import Fatal
from flyball_service import channels
from flyball_service.channels import Backoff, channel, grpc_server


def test_waits_double_up_to_the_longest() -> None:
    """The bound doubles from the first to the most; each wait is anywhere below it."""
    backoff = Backoff(Random(7), 1.0, 5.0)

    waits = [backoff.next_s() for _ in range(200)]

    assert all(0.0 <= wait <= bound for wait, bound in zip(waits, [1.0, 2.0, 4.0, *[5.0] * 197], strict=True))
    assert max(waits) > 4.5
    assert min(waits[3:]) < 0.5


def test_waits_begin_short_again_after_a_success() -> None:
    """After a reset the first wait is within the first bound."""
    backoff = Backoff(Random(7), 1.0, 60.0)
    for _ in range(10):
        backoff.next_s()

    backoff.reset()

    assert backoff.next_s() <= 1.0


async def test_two_servers_never_share_an_address() -> None:
    """The second server on an address is refused instead of taking half of the calls."""
    server, port = await grpc_server("127.0.0.1:0", None, add_echo)
    try:
        with pytest.raises(Fatal, match=f"cannot listen on 127.0.0.1:{port}"):
            await grpc_server(f"127.0.0.1:{port}", None, add_echo)
    finally:
        await server.stop(None)


async def test_a_message_over_the_bound_is_refused() -> None:
    """Neither end takes a message that is larger than it asked for."""
    server, port = await grpc_server("127.0.0.1:0", None, add_echo, receive_bytes=1000)
    connection = channel(f"127.0.0.1:{port}", None, receive_bytes=500)
    try:
        for size in (2000, 800):
            stream = Conversation(connection)
            stream.say(b"x" * size)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.hear()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        await connection.close(None)
        await server.stop(None)


def _faster(options: tuple[tuple[str, int], ...], *names: str) -> tuple[tuple[str, int], ...]:
    """The options with times of `names` (or all) a hundred times shorter."""
    return tuple(
        (name, value // 100 if name.endswith("_ms") and name.endswith(names or "_ms") else value)
        for name, value in options
    )


async def test_an_idle_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a message survives many signs of life: the server does not take them for too many.

    The client is ten times faster than in service, once a second; the server bears that as it bears the real
    pace. One of gRPC's own settings that forgives one sign too many ends such a stream within 4 s.
    """
    monkeypatch.setattr(channels, "CHANNEL_OPTIONS", _faster(channels.CHANNEL_OPTIONS))
    monkeypatch.setattr(
        channels,
        "SERVER_OPTIONS",
        (*_faster(channels.SERVER_OPTIONS, "without_data_ms"), ("grpc.http2.max_ping_strikes", 1)),
    )
    server, port = await grpc_server("127.0.0.1:0", None, add_echo)
    connection = channel(f"127.0.0.1:{port}", None)
    try:
        stream = Conversation(connection)
        stream.say(b"first")
        assert await stream.hear() == b"first"
        with pytest.raises(TimeoutError):
            await stream.hear(4.5)
    finally:
        await connection.close(None)
        await server.stop(None)


async def test_a_silent_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that neither answers nor hangs up ends the stream after both waits: 15 s in service, 0.15 s here."""
    monkeypatch.setattr(channels, "CHANNEL_OPTIONS", _faster(channels.CHANNEL_OPTIONS))
    server, port = await grpc_server("127.0.0.1:0", None, add_echo)
    going = asyncio.Event()
    going.set()
    relay = await _relay(port, going)
    connection = channel(f"127.0.0.1:{relay.sockets[0].getsockname()[1]}", None)
    try:
        stream = Conversation(connection)
        stream.say(b"first")
        assert await stream.hear() == b"first"

        going.clear()
        began_s = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.hear()

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began_s < 3.0
    finally:
        going.set()
        await connection.close(None)
        relay.close()
        await server.stop(None)
        await relay.wait_closed()


async def _relay(port: int, going: asyncio.Event) -> asyncio.Server:
    """A server that hands bytes on to `port` and back while `going` is set, and says nothing while it is not."""

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await going.wait()
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(hand_on(reader, behind_writer), hand_on(behind_reader, writer))

    return await asyncio.start_server(accept, "127.0.0.1", 0)


async def test_a_server_that_comes_late_is_found() -> None:
    """A channel that found nobody connects within seconds once there is somebody."""
    server, port = await grpc_server("127.0.0.1:0", None, add_echo)
    await server.stop(None)
    connection = channel(f"127.0.0.1:{port}", None)
    try:
        with pytest.raises(grpc.aio.AioRpcError):
            await who_am_i(connection, within_s=1.0)
        server, _ = await grpc_server(f"127.0.0.1:{port}", None, add_echo)

        assert await who_am_i(connection, within_s=8.0, patiently=True) == "None"
    finally:
        await connection.close(None)
        await server.stop(None)
