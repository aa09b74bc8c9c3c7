"""One GPU as NVML shows it: each value, or why it is missing.

A failure of one call costs that call's values alone. What a GPU does not support is asked once
and not again. In MIG mode NVML tells neither utilization nor bandwidth of the whole GPU, and its
slices are not read: those values are missing there, and said to be.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pynvml

from flyball_agents.node.nvml_bandwidth import NOT_FINITE, OUT_OF_RANGE, GpmBandwidth
from flyball_agents.node.nvml_door import FUNCTION_NOT_FOUND, LASTING, NvmlDoor, NvmlDown, Unanswered
from flyball_core.frames import GPU_NUMBERS, BandwidthSource, GpuSample

MIG = "MIG"
"""Why a value of a GPU in MIG mode is missing."""
ZERO_WHILE_BUSY = "ZERO_WHILE_BUSY"
"""Why a bandwidth of nothing is not believed."""
_BUSY_RATIO = 0.1
"""SMs this busy cannot leave the memory untouched."""

Device = pynvml.c_nvmlDevice_t
Numbers = tuple[float, ...]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One call of NVML and the values that it gives, already in the units of a sample."""

    call: str
    values: tuple[str, ...]
    ask: Callable[[Device], Numbers]
    divided: bool = True
    """Whether it answers for a GPU in MIG mode too."""
    constant: bool = False
    """Whether one answer holds until NVML is opened anew."""


def _utilization(device: Device) -> Numbers:
    rates = pynvml.nvmlDeviceGetUtilizationRates(device)
    return rates.gpu / 100.0, rates.memory / 100.0


def _memory(device: Device) -> Numbers:
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)
    return float(memory.used), float(memory.total)


def _power(device: Device) -> Numbers:
    return (pynvml.nvmlDeviceGetPowerUsage(device) / 1e3,)


def _energy(device: Device) -> Numbers:
    return (pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3,)


def _temperature(device: Device) -> Numbers:
    return (float(pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)),)


def _memory_temperature(device: Device) -> Numbers:
    field = pynvml.nvmlDeviceGetFieldValues(device, (pynvml.NVML_FI_DEV_MEMORY_TEMP,))[0]
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    # Both kinds that drivers use for it; an unsigned one that was meant as signed is absurd, and then missing.
    return (field.value.dVal if field.valueType == pynvml.NVML_VALUE_TYPE_DOUBLE else float(field.value.uiVal),)


def _sm_clock(device: Device) -> Numbers:
    return (pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM) * 1e6,)


def _event_reasons(device: Device) -> Numbers:
    return (float(pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)),)


def _throttle_reasons(device: Device) -> Numbers:
    return (float(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)),)


def _bus_width(device: Device) -> Numbers:
    return (pynvml.nvmlDeviceGetMemoryBusWidth(device) / 8.0,)


def _memory_clock(device: Device) -> Numbers:
    return (pynvml.nvmlDeviceGetMaxClockInfo(device, pynvml.NVML_CLOCK_MEM) * 1e6,)


READS = (
    Read(
        call="nvmlDeviceGetUtilizationRates",
        values=("sm_busy_ratio", "memory_time_ratio"),
        ask=_utilization,
        divided=False,
    ),
    Read(call="nvmlDeviceGetMemoryInfo", values=("hbm_used_bytes", "hbm_total_bytes"), ask=_memory),
    Read(call="nvmlDeviceGetPowerUsage", values=("power_w",), ask=_power),
    Read(call="nvmlDeviceGetTotalEnergyConsumption", values=("energy_j_total",), ask=_energy),
    Read(call="nvmlDeviceGetTemperature", values=("temperature_c",), ask=_temperature),
    Read(call="nvmlDeviceGetFieldValues(MEMORY_TEMP)", values=("memory_temperature_c",), ask=_memory_temperature),
    Read(call="nvmlDeviceGetClockInfo(SM)", values=("sm_clock_hz",), ask=_sm_clock),
)
"""What is read of every GPU at every reading."""

_PEAK = "hbm_peak_bytes_per_s"
_BUS_WIDTH = Read(call="nvmlDeviceGetMemoryBusWidth", values=(_PEAK,), ask=_bus_width, constant=True)
_MEMORY_CLOCK = Read(call="nvmlDeviceGetMaxClockInfo(MEM)", values=(_PEAK,), ask=_memory_clock, constant=True)
_TRANSFERS_PER_CLOCK = 2.0
"""HBM moves data on both edges of its clock."""

_BANDWIDTH = "hbm_bandwidth_ratio"
_GPM = "GPM"
"""All its calls together: a GPU that lacks one of them has no bandwidth to show."""

_REASONS = "throttle_reasons"
_EVENT_REASONS = Read(call="nvmlDeviceGetCurrentClocksEventReasons", values=(_REASONS,), ask=_event_reasons)
_OLD_EVENT_REASONS = Read(call="nvmlDeviceGetCurrentClocksThrottleReasons", values=(_REASONS,), ask=_throttle_reasons)
"""What drivers before 535 call it."""

_MOST = {"temperature_c": 200.0, "memory_temperature_c": 200.0, _REASONS: 2.0**53}
"""More than this is a driver's mistake, such as a negative number read as unsigned."""

SOURCES: dict[str, str] = {
    **{value: read.call for read in READS for value in read.values},
    _PEAK: f"{_BUS_WIDTH.call}, {_MEMORY_CLOCK.call}",
    _REASONS: _EVENT_REASONS.call,
    _BANDWIDTH: "GPM DRAM_BW_UTIL",
}
"""Where each value of a GPU comes from, by its name in a sample."""


class _Values:
    """The values of one reading: those that are there, and why the others are not."""

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}
        self.missing: dict[str, str] = {}

    def fill(self, values: tuple[str, ...], ask: Callable[[], Numbers]) -> None:
        """Take what `ask` gives, or note why it gives nothing. Raises `NvmlDown`."""
        try:
            answer = ask()
        except NvmlDown:
            raise
        except Unanswered as error:
            self.missing.update(dict.fromkeys(values, error.code))
            return
        for value, number in zip(values, answer, strict=True):
            if fault := _fault(value, number):
                self.missing[value] = fault
            else:
                self.numbers[value] = number


def _fault(value: str, number: float) -> str:
    """Why this cannot be a measurement; empty if it can."""
    if not math.isfinite(number):
        return NOT_FINITE
    most = 1.0 if value.endswith("_ratio") else _MOST.get(value, math.inf)
    return "" if 0.0 <= number <= most else OUT_OF_RANGE


class NvmlGpu:
    """One GPU between opening and closing NVML. Close it before NVML is shut down."""

    def __init__(self, index: int, device: Device, door: NvmlDoor) -> None:
        """Raises `NvmlDown` if the GPU is gone."""
        self.index = index
        self._device = device
        self._door = door
        self._refused: dict[str, str] = {}
        self._constants: dict[str, Numbers] = {}
        self._bandwidth = GpmBandwidth(door, device)
        self.uuid = self._text("nvmlDeviceGetUUID", pynvml.nvmlDeviceGetUUID)
        self.model = self._text("nvmlDeviceGetName", pynvml.nvmlDeviceGetName)
        self.mig = self._is_in_mig_mode()
        self.missing: Mapping[str, str] = {}
        """Why values of the last reading are missing, by their names in a sample."""

    def read(self, now_s: float) -> GpuSample:
        """The GPU now; what could not be read is missing. Raises `NvmlDown` if the GPU or the driver is gone."""
        values = _Values()
        for read in READS:
            values.fill(read.values, functools.partial(self._answer, read))
        values.fill((_PEAK,), self._peak)
        values.fill((_REASONS,), self._event_reasons)
        busy = values.numbers.get("sm_busy_ratio", 0.0)
        values.fill((_BANDWIDTH,), lambda: self._share_of_bandwidth(now_s, busy))
        self.missing = values.missing
        return GpuSample(
            self.index,
            self.uuid,
            BandwidthSource.GPM if _BANDWIDTH in values.numbers else BandwidthSource.NONE,
            int(values.numbers.get(_REASONS, 0)),
            *(values.numbers.get(name) for name in GPU_NUMBERS),
        )

    def close(self) -> None:
        """Give back what the driver keeps for this GPU."""
        self._bandwidth.close()

    def _answer(self, read: Read) -> Numbers:
        if self.mig and not read.divided:
            raise Unanswered(read.call, MIG)
        if read.call not in self._constants:
            answer = self._unless_refused(read.call, lambda: self._door.ask(read.call, lambda: read.ask(self._device)))
            if not read.constant:
                return answer
            self._constants[read.call] = answer
        return self._constants[read.call]

    def _peak(self) -> Numbers:
        (bus_bytes,), (clock_hz,) = self._answer(_BUS_WIDTH), self._answer(_MEMORY_CLOCK)
        if not bus_bytes or not clock_hz:
            raise Unanswered(_BUS_WIDTH.call, OUT_OF_RANGE)
        return (bus_bytes * clock_hz * _TRANSFERS_PER_CLOCK,)

    def _event_reasons(self) -> Numbers:
        try:
            return self._answer(_EVENT_REASONS)
        except Unanswered as error:
            if error.code != FUNCTION_NOT_FOUND:
                raise
        return self._answer(_OLD_EVENT_REASONS)

    def _share_of_bandwidth(self, now_s: float, busy_ratio: float) -> Numbers:
        if self.mig:
            raise Unanswered(_GPM, MIG)
        share = self._unless_refused(_GPM, lambda: self._bandwidth.read(now_s))
        if share == 0.0 and busy_ratio >= _BUSY_RATIO:
            raise self._door.failed(_GPM, ZERO_WHILE_BUSY)
        return (share,)

    def _unless_refused(self, what: str, ask: Callable[[], _T]) -> _T:
        if what in self._refused:
            raise Unanswered(what, self._refused[what])
        try:
            return ask()
        except Unanswered as error:
            if error.code in LASTING:
                self._refused[what] = error.code
            raise

    def _text(self, call: str, ask: Callable[[Device], str]) -> str:
        """A name of the GPU; empty if it does not tell it."""
        try:
            return self._door.ask(call, lambda: ask(self._device))
        except NvmlDown:
            raise
        except Unanswered:
            return ""

    def _is_in_mig_mode(self) -> bool:
        try:
            current, _ = self._door.ask("nvmlDeviceGetMigMode", lambda: pynvml.nvmlDeviceGetMigMode(self._device))
        except NvmlDown:
            raise
        except Unanswered:
            return False  # GPUs that know no MIG answer so
        return current == pynvml.NVML_DEVICE_MIG_ENABLE
