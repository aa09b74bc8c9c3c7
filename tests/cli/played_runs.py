"""Runs in virtual time as a user leaves them behind: interrupted, and their logs asked whether they replay."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.replay import Verdict, replay_log
from flyball_log import open_log

FLYBALL = Path(sys.executable).with_name("flyball")
"""The installed command."""


class Ended(NamedTuple):
    """How a command ended, and all that it said."""

    code: int
    said: str


def interrupted(*arguments: str, out: Path) -> Ended:
    """Run the command into the folder `out`, and interrupt it once it plays."""
    command: list[str | Path] = [FLYBALL, *arguments, "--out", out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while not (out / "spools").exists():  # it plays once its agents have spools
            assert run.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=20)
    return Ended(run.returncode, said)


async def verdict_of(where: str) -> Verdict:
    """What a replay of this log says."""
    log = await open_log(where, read_only=True)
    try:
        return (await replay_log(log, standard_seams, own_fingerprint())).verdict
    finally:
        await log.close()
