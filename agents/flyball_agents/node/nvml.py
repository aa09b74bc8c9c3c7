"""GPUs through NVML: read in a thread of their own, opened anew when the driver goes away.

A driver that is not there is a source that is down, never an agent that ends: it is tried again
with a growing, jittered pause. A GPU that fell off the bus is left out after it was noticed, so
that the others are read, and tried again from time to time. A reading takes as long as the driver
takes; the agent's beat never waits for it.
"""

import random
from collections.abc import Mapping

import pynvml
import structlog

from flyball_agents.node.newest import Newest
from flyball_agents.node.nvml_door import GPU_IS_LOST, NvmlDoor, NvmlDown, Unanswered
from flyball_agents.node.nvml_gpu import NvmlGpu
from flyball_agents.sampling import Reading
from flyball_core.frames import GpuSample
from flyball_service.channels import Backoff

FIRST_PAUSE_S = 1.0
MOST_PAUSE_S = 60.0
"""Longest pause before NVML is opened anew."""
LEFT_OUT_S = 300.0
"""A GPU that could not be had is left alone for so long, for trying it again costs the others a reading."""

NOT_OPENED = "not opened yet"
"""Why no GPU is read before the first reading."""

log = structlog.get_logger()


class NvmlSession:
    """NVML from opening it to closing it."""

    def __init__(self, door: NvmlDoor, leave_out: Mapping[int, str]) -> None:
        """Open NVML and find the GPUs, but those that are to be left out, by index and why. Raises `NvmlDown`."""
        self._door = door
        self.gpus: list[NvmlGpu] = []
        self.absent: dict[int, str] = {}
        """GPUs that the driver counts and that are not read, by index, and why."""
        door.must("nvmlInit", pynvml.nvmlInit)
        try:
            count = door.must("nvmlDeviceGetCount", pynvml.nvmlDeviceGetCount)
            for index in range(count):
                if index in leave_out:
                    self.absent[index] = leave_out[index]
                else:
                    self._find(index)
        except BaseException:
            self.close()
            raise

    def read(self, now_s: float) -> tuple[GpuSample, ...]:
        """All GPUs now. Raises `NvmlDown`; a GPU that is lost is then in `absent`."""
        samples = []
        for gpu in self.gpus:
            try:
                samples.append(gpu.read(now_s))
            except NvmlDown as error:
                if error.code == GPU_IS_LOST:
                    self.absent[gpu.index] = GPU_IS_LOST
                raise
        return tuple(samples)

    def close(self) -> None:
        """Give everything back to the driver; what it says to that is counted."""
        for gpu in self.gpus:
            gpu.close()
        self.gpus = []
        try:
            self._door.ask("nvmlShutdown", pynvml.nvmlShutdown)
        except Unanswered:
            return

    def _find(self, index: int) -> None:
        """Take one GPU in, or note why it is not there."""
        try:
            device = self._door.ask("nvmlDeviceGetHandleByIndex", lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
            self.gpus.append(NvmlGpu(index, device, self._door))
        except Unanswered as error:
            if isinstance(error, NvmlDown) and error.code != GPU_IS_LOST:
                raise
            self.absent[index] = error.code


class NvmlSampler:
    """The GPUs of this node as a sampler. `read` and `close` belong to the thread that reads."""

    def __init__(self, rng: random.Random) -> None:
        self.door = NvmlDoor()
        """Counts what went wrong, by call and error."""
        self.readings = 0
        """How often all GPUs were read."""
        self.openings = 0
        """How often NVML was opened."""
        self.down = NOT_OPENED
        """Why no GPU is read now; empty while they are."""
        self.gpus: tuple[NvmlGpu, ...] = ()
        """The GPUs that are read, each with what is missing of it."""
        self.absent: dict[int, str] = {}
        """GPUs that are not read, by index, and why."""
        self._newest = Newest()
        self._session: NvmlSession | None = None
        self._backoff = Backoff(rng, FIRST_PAUSE_S, MOST_PAUSE_S)
        self._not_before_s = -float("inf")
        self._again_s: dict[int, float] = {}

    @property
    def name(self) -> str:
        """What its troubles are counted under."""
        return "nvml"

    def sample(self, now_s: float) -> Reading:
        """What was read since the last time; raises `NothingNew`."""
        del now_s
        return self._newest.take()

    def read(self, now_s: float) -> None:
        """Read all GPUs, or open NVML if that is due; takes as long as the driver takes."""
        try:
            if self._session is not None and any(now_s >= self._again_s[index] for index in self.absent):
                self.close()
            session = self._session or self._open(now_s)
            if session is not None:
                self._newest.put(Reading(now_s, gpus=session.read(now_s)))
                self.readings += 1
                self._says_up()
        except NvmlDown as error:
            self._fell(error, now_s)

    def close(self) -> None:
        """Close NVML. Idempotent."""
        session, self._session = self._session, None
        self.gpus = ()
        if session is not None:
            session.close()

    def _open(self, now_s: float) -> NvmlSession | None:
        if now_s < self._not_before_s:
            return None
        self.openings += 1
        left_out = {index: code for index, code in self.absent.items() if now_s < self._again_s[index]}
        session = NvmlSession(self.door, left_out)
        self._session = session
        self.gpus = tuple(session.gpus)
        self._leave_out(session.absent, now_s)
        return session

    def _fell(self, error: NvmlDown, now_s: float) -> None:
        if self._session is not None:
            self._leave_out(self._session.absent, now_s)
        if self.down != str(error):
            log.warning("nvml_down", call=error.call, code=error.code)
        self.down = str(error)
        self._not_before_s = now_s + self._backoff.next_s()
        self.close()

    def _leave_out(self, absent: Mapping[int, str], now_s: float) -> None:
        again_s = {index: self._again_s.get(index, now_s) for index in absent}
        self._again_s = {index: at_s if at_s > now_s else now_s + LEFT_OUT_S for index, at_s in again_s.items()}
        self.absent = dict(absent)

    def _says_up(self) -> None:
        if self.down:
            log.info("nvml_up", gpus=len(self.gpus), absent=self.absent)
            self.down = ""
            self._backoff.reset()
