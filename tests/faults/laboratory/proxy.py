"""A TCP proxy between two parts, in the test's own process: it cuts, heals, delays, corrupts and counts.

What passes is bytes, so TLS passes too, and a byte that is changed is noticed by whoever checks it. A cut is a
black hole, as of a switch that is gone: both ends stay connected to nothing, and hear nothing of it. A reset is
a peer that is gone: both ends are told. It refuses to know what is said.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Self

from flyball_core.addresses import split_address

CHUNK_BYTES = 65_536
MOST_CHUNKS = 64
"""Chunks of one direction that wait in here; then its sender has to."""
CLOSING_TURNS = 5
"""Turns of the loop within which what was aborted is closed."""
_NO_LINGER = struct.pack("ii", 1, 0)

_Chunk = tuple[float, bytes]
"""When it came, by the loop's clock, and what; no bytes for the end of the direction."""


class Weather:
    """What befalls the bytes of a connection, or of all of them."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.to_corrupt = 0
        """So many of the chunks that pass next have a bit of their last byte flipped."""
        self._whole = asyncio.Event()
        self._whole.set()

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return not self._whole.is_set()

    def cut(self) -> None:
        """Let nothing pass any more, and tell nobody."""
        self._whole.clear()

    def delay(self, seconds: float) -> None:
        """Have each chunk go on so long after it came, either way."""
        self.delay_s = seconds

    def heal(self) -> None:
        """Let pass what has waited, and all that comes, without delay."""
        self.delay_s = 0.0
        self._whole.set()

    async def passable(self) -> None:
        """Wait until it is not cut."""
        await self._whole.wait()

    def touched(self, chunk: bytes) -> bytes:
        """The chunk as it goes on."""
        if not self.to_corrupt:
            return chunk
        self.to_corrupt -= 1
        return chunk[:-1] + bytes([chunk[-1] ^ 1])


class Connection(Weather):
    """One connection through the proxy; what befalls it comes on top of what befalls all."""

    def __init__(self, everywhere: Weather, caller: socket.socket) -> None:
        super().__init__()
        self.up_bytes = 0
        """From caller to callee, so far."""
        self.down_bytes = 0
        self._everywhere = everywhere
        self._caller = caller
        self._dropped = False
        self._writers: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        """End it so that both ends are told at once."""
        for writer in self._writers:
            held = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it has ended already
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()
        self._dropped = True

    def close(self) -> None:
        """The same for one that carries nothing any more, or never began to."""
        self.reset()
        self._caller.close()

    async def run(self, address: str) -> None:
        """Carry bytes until both directions have ended, or either end is gone."""
        host, port = split_address(address)
        saying, to_caller = await asyncio.open_connection(sock=self._caller)
        self._writers.append(to_caller)
        await self._passable()
        answering, to_callee = await asyncio.open_connection(host, port)
        self._writers.append(to_callee)
        if self._dropped:  # meanwhile
            self.reset()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._carry(saying, to_callee, up=True))
            tasks.create_task(self._carry(answering, to_caller, up=False))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        waiting: asyncio.Queue[_Chunk] = asyncio.Queue(MOST_CHUNKS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_take_in(reader, waiting))
            tasks.create_task(self._hand_on(waiting, writer, up=up))

    async def _hand_on(self, waiting: asyncio.Queue[_Chunk], writer: asyncio.StreamWriter, *, up: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            came_s, chunk = await waiting.get()
            await asyncio.sleep(came_s + self.delay_s + self._everywhere.delay_s - loop.time())
            await self._passable()
            if not chunk:
                writer.write_eof()
                return
            writer.write(self.touched(self._everywhere.touched(chunk)))
            await writer.drain()
            self.up_bytes += len(chunk) if up else 0
            self.down_bytes += 0 if up else len(chunk)

    async def _passable(self) -> None:
        while self.is_cut or self._everywhere.is_cut:
            await self.passable()
            await self._everywhere.passable()


class Proxy(Weather):
    """Listens at `address` and carries every connection to HOST:PORT. Use `async with`, or `start` and `close`."""

    def __init__(self, callee: str) -> None:
        super().__init__()
        self.callee = callee
        self.connections: list[Connection] = []
        """Those that are open, the oldest first."""
        self.accepted = 0
        """Connections that came, ever."""
        self._port = 0
        self._door: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where to connect instead of the callee; the same for as long as it lives."""
        return f"127.0.0.1:{self._port}"

    @classmethod
    async def start(cls, callee: str) -> Self:
        """One that listens."""
        return await cls(callee).__aenter__()

    async def close(self) -> None:
        """End everything at once."""
        await self.refuse()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything at once."""
        await self.close()

    async def refuse(self) -> None:
        """End all connections so that both ends are told, and take no new ones until `accept`."""
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door)
            self._door.close()
            self._door = None
        self.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)

    async def accept(self) -> None:
        """Take connections again, at the same address."""
        if self._door is None:
            self._listen()

    def reset(self) -> None:
        """End all connections so that both ends are told; new ones are taken."""
        for connection in list(self.connections):
            connection.reset()

    def _listen(self) -> None:
        door = socket.create_server(("127.0.0.1", self._port), backlog=4_096)
        door.setblocking(False)  # noqa: FBT003 - the standard library's own
        self._port = int(door.getsockname()[1])
        self._door = door
        # Not the loop's own server: one that closes while callers come leaks those that it has just accepted.
        asyncio.get_running_loop().add_reader(door, self._accept, door)

    def _accept(self, door: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # who came has left again
            caller, _ = door.accept()
            caller.setblocking(False)  # noqa: FBT003 - the standard library's own
            self._came(Connection(self, caller))

    def _came(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(_carried(connection, self.callee))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self.connections.remove(connection)
            connection.close()  # here, for a task that is cancelled before it begins runs nothing of its own

        task.add_done_callback(ended)


async def _carried(connection: Connection, callee: str) -> None:
    try:
        await connection.run(callee)
    except* OSError:  # an end is gone; the other is told
        pass


async def _take_in(reader: asyncio.StreamReader, waiting: asyncio.Queue[_Chunk]) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await reader.read(CHUNK_BYTES):
        await waiting.put((loop.time(), chunk))
    await waiting.put((loop.time(), b""))
