"""A recorded log for all tests of the commands, and a way to call them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli_calls import Answer, call
from kafka_broker import kafka_broker as kafka_broker
from recorded_logs import record_log
from scripted_controller import Script, scripted_controller


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that was recorded by an owner; read it, copy it, leave it as it is."""
    return record_log(tmp_path_factory.mktemp("recorded") / "log")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C reaches what is started here, also where the tests run in the background of a shell, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own environment counts."""
    for name in ("FLYBALL_CONTROLLERS", "FLYBALL_TLS", "FLYBALL_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def flyball() -> Callable[..., Answer]:
    """`flyball ARGUMENTS` in this process."""
    return call


@pytest.fixture
def script_address() -> Iterator[Callable[[Script], str]]:
    """Serves scripts until the test is over; gives the address of each."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_controller(script))
