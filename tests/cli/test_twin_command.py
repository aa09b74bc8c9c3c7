"""`flyball twin serve` as it is typed: a try-out on loopback, a file, and what makes no sense."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli_calls import installed
from flyball_cli.processes import free_port

FLYBALL = Path(sys.executable).with_name("flyball")
CONFIG = """\
tls: none
twin:
  pool: chat
  engines:
    - {{engine: e0, listen: "127.0.0.1:{port}", variant: splitkv, speed: 0.4}}
"""


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The installed command, in that folder; it ends well when it is asked to."""
    with (
        (folder / "lines").open("w") as lines,
        subprocess.Popen(
            [FLYBALL, "twin", "serve", *arguments], stdout=subprocess.PIPE, stderr=lines, text=True, cwd=folder
        ) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
    assert 0 == code, (folder / "lines").read_text()


def get(address: str) -> str:
    """What a GET answers, retried until somebody listens."""
    end_s = time.monotonic() + 15.0
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read(), "utf-8")
        except OSError:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def test_a_try_out_says_where_its_engines_serve(tmp_path: Path) -> None:
    """One line an engine on standard output, with addresses at which it answers; log lines go elsewhere."""
    with serving(tmp_path, "--port", "0", "--engines", "2", "--controllers", "127.0.0.1:1") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        pages = [get(line[-1]) for line in lines]

    assert ["engine-0:", "engine-1:"] == [line[0] for line in lines]
    assert all('model_name="flyball-twin"' in page for page in pages)
    assert (tmp_path / "lines").read_text().count("engine_serving") == 2


def test_a_file_says_which_engines_there_are(tmp_path: Path) -> None:
    """The engine of the file serves at its address, under JSON log lines, and says nothing else."""
    port = free_port()
    (tmp_path / "flyball.yaml").write_text(CONFIG.format(port=port))
    with serving(tmp_path, "--config", "flyball.yaml") as process:
        models = json.loads(get(f"http://127.0.0.1:{port}/v1/models"))
        assert process.stdout is not None
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]

    assert ["flyball-twin"] == [model["id"] for model in models["data"]]
    (served,) = [line for line in lines if line["event"] == "engine_serving"]
    assert ("e0", "twin", f"127.0.0.1:{port}") == (served["engine"], served["service"], served["address"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", "flyball.yaml", "--engines", "3"), "--engines is for a try-out"),
        (("--config", "missing.yaml"), "missing.yaml: cannot be read"),
        (("--port", "65535", "--engines", "2"), "beyond the last port"),
        (("--controllers", "somewhere"), "is not HOST:PORT"),
        (("--controllers", "192.0.2.1:7460"), "beyond loopback"),
        (("--engines", "0"), "not in the range"),
    ],
)
def test_what_makes_no_sense_is_bad_input(arguments: tuple[str, ...], said: str) -> None:
    """One line that says what is wrong, and exit code 2."""
    done = installed("twin", "serve", *arguments)

    assert (2, True) == (done.code, said in done.err), done.err
