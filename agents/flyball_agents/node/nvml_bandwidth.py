"""HBM bandwidth of one GPU from NVML's GPM (Hopper and newer): the mean between two samples.

Two of the driver's sample buffers take turns. The driver refreshes them about every 100 ms, so
samples closer together are not compared. GPM does not get in the way of profilers. On a GPU in
MIG mode it would have to be asked slice by slice, which is not done here.
"""

import functools
import math

import pynvml

from flyball_agents.node.nvml_door import NOT_SUPPORTED, NvmlDoor, Unanswered, error_name

LEAST_INTERVAL_S = 0.1
"""Samples closer together than this say nothing."""

FIRST_SAMPLE = "FIRST_SAMPLE"
"""Why there is no bandwidth yet: a mean needs two samples."""
NOT_FINITE = "NOT_FINITE"
OUT_OF_RANGE = "OUT_OF_RANGE"

_METRIC = "nvmlGpmMetricsGet(DRAM_BW_UTIL)"
_ROUNDING = 1.05
"""The driver's share may exceed 1 by so much before it is disbelieved."""


class GpmBandwidth:
    """One GPU's bandwidth. Close it before NVML is shut down, or the driver keeps the buffers."""

    def __init__(self, door: NvmlDoor, device: pynvml.c_nvmlDevice_t) -> None:
        self._door = door
        self._device = device
        self._supported = False
        self._buffers: list[pynvml.c_nvmlGpmSample_t] = []
        self._older: pynvml.c_nvmlGpmSample_t | None = None
        self._older_s = 0.0

    def read(self, now_s: float) -> float:
        """Share of the theoretical bandwidth since the last reading, 0 to 1; raises `Unanswered` if there is none."""
        self._open()
        if self._older is not None and now_s - self._older_s < LEAST_INTERVAL_S:
            raise Unanswered(_METRIC, "TOO_SOON")
        older, newer = self._older, self._spare()
        self._older = None  # what follows may fail half-way: then the next reading is a first one
        self._door.ask("nvmlGpmSampleGet", lambda: pynvml.nvmlGpmSampleGet(self._device, newer))
        self._older, self._older_s = newer, now_s
        if older is None:
            raise Unanswered(_METRIC, FIRST_SAMPLE)
        return self._share(older, newer)

    def close(self) -> None:
        """Give the buffers back; what the driver says to that is counted."""
        self._older = None
        while self._buffers:
            buffer = self._buffers.pop()
            try:
                self._door.ask("nvmlGpmSampleFree", functools.partial(pynvml.nvmlGpmSampleFree, buffer))
            except Unanswered:
                continue  # counted by the door; there is no other way to give it back

    def _open(self) -> None:
        if not self._supported:
            support = self._door.ask(
                "nvmlGpmQueryDeviceSupport", lambda: pynvml.nvmlGpmQueryDeviceSupport(self._device)
            )
            if not support.isSupportedDevice:
                raise self._door.failed("nvmlGpmQueryDeviceSupport", NOT_SUPPORTED)
            self._supported = True
        while len(self._buffers) < 2:
            self._buffers.append(self._door.ask("nvmlGpmSampleAlloc", pynvml.nvmlGpmSampleAlloc))

    def _spare(self) -> pynvml.c_nvmlGpmSample_t:
        first, second = self._buffers
        return second if self._older is first else first

    def _share(self, older: pynvml.c_nvmlGpmSample_t, newer: pynvml.c_nvmlGpmSample_t) -> float:
        asked = pynvml.c_nvmlGpmMetricsGet_t()
        asked.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = 1
        asked.sample1, asked.sample2 = older, newer
        asked.metrics[0].metricId = pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL
        self._door.ask("nvmlGpmMetricsGet", lambda: pynvml.nvmlGpmMetricsGet(asked))
        answer = asked.metrics[0]
        if answer.nvmlReturn != pynvml.NVML_SUCCESS:
            raise self._door.failed(_METRIC, error_name(answer.nvmlReturn))
        share = answer.value / 100.0
        if not math.isfinite(share):
            raise self._door.failed(_METRIC, NOT_FINITE)
        if not 0.0 <= share <= _ROUNDING:
            raise self._door.failed(_METRIC, OUT_OF_RANGE)
        return min(share, 1.0)
