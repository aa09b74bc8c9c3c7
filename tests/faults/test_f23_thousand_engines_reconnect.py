"""Fault 23: a thousand engines seek one controller at once, because it was killed, or because the line to it broke.

Engines are production receivers, each with a stream of its own, in a few processes; their nodes send telemetry
all the while. Receivers come back within five seconds (`AttachLimits.most_pause_s`), not spread over ten or more: the
sooner an engine is back, the less of an outage it sees, and a controller bears it. Measured here, with everything on
two cores: a thousand that come back within about two seconds delay a tick by less than a tenth of a second.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from flyball_cli.bench_acks import Recorded, answers_within, read_recorded
from flyball_cli.bench_plane import PlaneCost
from flyball_cli.bench_plane_report import spread_ms
from flyball_cli.bench_sockets import Appended, Ran
from flyball_cli.bench_watching import seen
from flyball_core.knobs import TOKEN_BUDGET
from flyball_log import open_log
from flyball_log.embedded.folder import partition_folder
from flyball_log.interface import Topic
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.processes import Actor, Actors, until
from laboratory.proxy import Proxy
from laboratory.scale import full, report, scaled
from laboratory.watching import asked, flyball

ENGINES = 1_000
PROCESSES = 2
TICK_S = 1.0
CURRENT_S = 30.0
MEASURED_S = scaled(5.0, 60.0)
OUTAGE_S = scaled(0.0, 60.0)
RESET = scaled(300, ENGINES)
"""Engines whose line breaks while the controller lives on."""
POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 2s, tpot: 30ms, longest_wait: 20s}
knobs:
  max_active_requests: {min: 4, max: 256}
"""


@dataclass(slots=True, kw_only=True)
class Crowd:
    """A controller, and engines of one pool in a few processes."""

    fleet: Fleet
    controller: Actor
    https: list[str]

    async def summaries(self) -> list[dict[str, object]]:
        """What each process says of its engines."""
        return list(await asyncio.gather(*(asked(http, "/summary") for http in self.https)))
