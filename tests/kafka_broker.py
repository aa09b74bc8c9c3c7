"""A real Kafka broker for tests: one per test session, shared by all workers; or one of a test's own.

Without Java, Maven or the jars the tests that ask for it are skipped with the reason, unless
FLYBALL_REQUIRE=all is set: then they fail.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "kafka_broker.py"
_PREREQUISITE_MISSING = 3


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """A broker of this session; `folder` holds its data, `tls` the folder of its certificate if it is to have one."""

    folder: Path
    tls: Path | None = None

    def _run(self, verb: str) -> str:
        command = [sys.executable, str(_SCRIPT), "--dir", str(self.folder), verb]
        if self.tls is not None:
            command += ["--tls", str(self.tls)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == _PREREQUISITE_MISSING and os.environ.get("FLYBALL_REQUIRE") != "all":
            pytest.skip(done.stderr.strip())
        if done.returncode:
            pytest.fail(f"no Kafka broker: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(self) -> str:
        """Start it, or find it running; its HOST:PORT, the same at every start."""
        return self._run("start")

    def stop(self) -> None:
        """Stop it in good order."""
        self._run("stop")

    @property
    def bootstrap(self) -> str:
        """Its HOST:PORT while it runs."""
        return self._run("status")

    @property
    def pid(self) -> int:
        """Its process."""
        return int(json.loads((self.folder / "broker.json").read_text())["pid"])


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """The file that counts the workers, with every other worker kept away."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "users.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / "users"


def _count(users: Path, change: int) -> int:
    count = (int(users.read_text()) if users.exists() else 0) + change
    users.write_text(str(count))
    return count


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of the session's broker. Tests take prefixes of their own and leave it running."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    broker = KafkaBroker(shared / "kafka")
    with _locked(broker.folder) as users:
        bootstrap = broker.start()
        _count(users, 1)
    yield bootstrap
    with _locked(broker.folder) as users:
        if _count(users, -1) == 0:
            broker.stop()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A running broker that this module's tests may stop, freeze or kill."""
    broker = KafkaBroker(tmp_path_factory.mktemp("own-kafka"))
    broker.start()
    yield broker
    broker.stop()
