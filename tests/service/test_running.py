"""Signals, sent to a process of its own."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flyball_service.running import own_name

_SERVICE = """
import asyncio
from flyball_service.running import run_until_signal

async def main(stop):
    print("running", flush=True)
    await stop.wait()
    print("closing", flush=True)
    {closing}
    print("closed", flush=True)

asyncio.run(run_until_signal(main))
"""


@contextmanager
def service(closing: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs until a signal, and then does this; it has begun to run."""
    code = _SERVICE.format(closing=closing)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_service_close_in_order(number: signal.Signals) -> None:
    """After the first signal the service closes what it has to and ends with 0."""
    with service("await asyncio.sleep(0)") as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=10)

        assert out.splitlines()[-2:] == ["closing", "closed"]
        assert process.returncode == 0


def test_collections_leave_out_what_was_loaded() -> None:
    """Modules are out of the garbage collector's sight, so that a full collection is short."""
    with service("import gc; print(gc.get_freeze_count() > 10_000)") as process:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)

        assert "True" in out.splitlines()


def test_a_second_signal_ends_it_at_once() -> None:
    """A service that hangs while it closes is ended by the next signal, and its exit code says by which."""
    with service("await asyncio.sleep(600)") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        while process.stdout.readline() != "closing\n":
            pass
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_a_service_without_a_name_has_the_host_s() -> None:
    """A configured name goes before the host's."""
    assert own_name("node-7") == "node-7"
    assert own_name("") == socket.gethostname()
