"""The laboratory's proxy: what it promises to the tests that cut lines with it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from issued_certificates import certify
from laboratory.proxy import Proxy

SOON_S = 0.2
"""So long nothing comes before it counts as not coming."""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while said := await reader.read(1_000):
            writer.write(said)
            await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before something that says back what it hears."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with server, Proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as one:
        yield one


class _Caller:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, said: bytes) -> bytes:
        """What comes back."""
        self.writer.write(said)
        return await asyncio.wait_for(self.reader.readexactly(len(said)), 5.0)

    async def hears_nothing(self) -> bool:
        """Whether nothing comes, not even an end."""
        try:
            await asyncio.wait_for(self.reader.read(1), SOON_S)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def caller(proxy: Proxy) -> AsyncIterator[_Caller]:
    """Somebody who calls through it."""
    one = await _call(proxy)
    yield one
    one.writer.close()


async def _call(proxy: Proxy) -> _Caller:
    host, _, port = proxy.address.rpartition(":")
    return _Caller(*await asyncio.open_connection(host, int(port)))


async def test_what_is_said_passes_and_is_counted(proxy: Proxy, caller: _Caller) -> None:
    """Bytes go through either way unchanged, and each direction is counted."""
    assert await caller.ask(b"hello") == b"hello"

    [connection] = proxy.connections

    assert (connection.up_bytes, connection.down_bytes) == (5, 5)


async def test_a_cut_tells_nobody_and_healed_loses_nothing(proxy: Proxy, caller: _Caller) -> None:
    """A cut line is silent, its ends stay connected; healed, what was said meanwhile arrives."""
    await caller.ask(b"before")
    proxy.cut()
    caller.writer.write(b"meanwhile")

    assert await caller.hears_nothing()

    proxy.heal()

    assert await asyncio.wait_for(caller.reader.readexactly(9), 5.0) == b"meanwhile"


async def test_a_cut_holds_for_those_who_come_during_it(proxy: Proxy) -> None:
    """Who connects to a cut line hears nothing either, until it heals."""
    proxy.cut()
    late = await _call(proxy)
    late.writer.write(b"hello")

    assert await late.hears_nothing()

    proxy.heal()

    assert await asyncio.wait_for(late.reader.readexactly(5), 5.0) == b"hello"
    late.writer.close()


async def test_one_connection_is_cut_and_its_neighbour_is_not(proxy: Proxy, caller: _Caller) -> None:
    """What befalls one connection does not befall another."""
    await caller.ask(b"first")
    second = await _call(proxy)
    await second.ask(b"second")
    proxy.connections[0].cut()
    caller.writer.write(b"x")

    assert await caller.hears_nothing()
    assert await second.ask(b"still") == b"still"
    second.writer.close()


async def test_a_reset_tells_both_ends(proxy: Proxy, caller: _Caller) -> None:
    """A reset is an error at once, and the line takes new connections."""
    await caller.ask(b"before")
    proxy.reset()

    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(caller.reader.read(1), 5.0)

    again = await _call(proxy)

    assert await again.ask(b"again") == b"again"
    again.writer.close()


async def test_a_refused_line_takes_nobody_until_it_accepts(proxy: Proxy, caller: _Caller) -> None:
    """Refusing ends what is open and takes nothing new; accepting, it is at the same address."""
    await caller.ask(b"before")
    await proxy.refuse()

    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(caller.reader.read(1), 5.0)
    with pytest.raises(ConnectionRefusedError):
        await _call(proxy)

    await proxy.accept()
    again = await _call(proxy)

    assert await again.ask(b"again") == b"again"
    again.writer.close()


async def test_a_delay_is_on_the_way_there_and_back(proxy: Proxy, caller: _Caller) -> None:
    """An answer comes twice the delay later, and at once when healed."""
    loop = asyncio.get_running_loop()
    proxy.delay(0.1)
    began_s = loop.time()
    await caller.ask(b"slow")
    took_s = loop.time() - began_s
    proxy.heal()
    began_s = loop.time()
    await caller.ask(b"fast")

    assert took_s >= 0.2
    assert loop.time() - began_s < 0.1


async def test_a_corrupted_byte_is_another_byte_once(proxy: Proxy, caller: _Caller) -> None:
    """One bit of one chunk is flipped; those after it pass as they are."""
    proxy.to_corrupt = 1

    assert await caller.ask(b"abc") == b"abb"
    assert await caller.ask(b"abc") == b"abc"


async def test_tls_passes_and_notices_a_corrupted_byte(tmp_path: Path) -> None:
    """TLS ends at the callee, not here: it passes whole, and a flipped bit ends it."""
    certificate = certify(tmp_path, "controller", "c1")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate / CERT_FILE, certificate / KEY_FILE)
    ours = ssl.create_default_context(cafile=str(certificate / CA_FILE))
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=theirs)
    async with server, Proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        host, _, port = proxy.address.rpartition(":")
        caller = _Caller(*await asyncio.open_connection(host, int(port), ssl=ours))

        assert await caller.ask(b"secret") == b"secret"

        proxy.to_corrupt = 1
        with pytest.raises((ssl.SSLError, asyncio.IncompleteReadError, ConnectionError)):
            await caller.ask(b"secret")
        caller.writer.transport.abort()
