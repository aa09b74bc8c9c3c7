"""A libnvidia-ml in memory, below pynvml: the real pynvml calls it as it calls the driver's library.

So an agent can be tried, tested and measured where there is no GPU. Each GPU shows the numbers it is given; it
computes none. A call that the real library would refuse for its arguments is refused with the library's code.
"""

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pynvml

_Passed: TypeAlias = Any
"""What ctypes hands to a C function: a reference, a pointer or a structure. Python's types do not tell them apart."""

CALLS = (
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetMemoryBusWidth",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
    "nvmlGpmSampleFree",
)
"""Every function of the library that the agent may call, as the library names them."""

ERROR_CODES: dict[str, int] = {
    name.removeprefix("NVML_ERROR_"): getattr(pynvml, name) for name in dir(pynvml) if name.startswith("NVML_ERROR_")
}
"""Every error that NVML knows, by its name without prefix."""

_GPM_VERSION = 1
_GPM_DRAM_BANDWIDTH = 10
_BUFFER_BYTES = 16


@dataclass(slots=True, kw_only=True)
class StandInGpu:
    """What a GPU shows, an H100 at work unless told otherwise; numbers in the library's own units."""

    uuid: bytes = b"GPU-00000000"
    name: bytes = b"NVIDIA H100 80GB HBM3"
    mig: int = 0
    busy_percent: int = 70
    memory_time_percent: int = 40
    used_bytes: int = 60 << 30
    total_bytes: int = 80 << 30
    power_mw: int = 512_000
    energy_mj: int = 9_000_000
    temperature_c: int = 61
    memory_temperature_c: int = 77
    sm_clock_mhz: int = 1980
    memory_clock_mhz: int = 2619
    bus_bits: int = 5120
    reasons: int = 0x4
    gpm: bool = True
    bandwidth_percent: float = 62.5
    """Share of its memory's bandwidth in use, as GPM tells it."""
    bandwidth_return: int = 0
    """Error code that stands inside GPM's answer instead."""
    memory_temperature_return: int = 0
    """Likewise inside the answer for the memory's temperature."""
    errors: dict[str, int] = field(default_factory=dict)
    """Error code by the library's call: what this GPU answers instead."""


class _Function:
    """A function pointer: callable, with the attributes that ctypes gives one."""

    def __init__(self, call: Callable[..., int]) -> None:
        self._call = call
        self.restype: object = None

    def __call__(self, *arguments: _Passed) -> int:
        return self._call(*arguments)


def _at(reference: _Passed) -> _Passed:
    """What `byref` refers to."""
    return reference._obj  # noqa: SLF001 - the one way to the object behind a reference


class StandInNvml:
    """The library: some GPUs, errors by call, and an account of what was called and allocated.

    `installed` puts it below pynvml. For one thread at a time, as the agent asks the driver.
    """

    def __init__(self, *gpus: StandInGpu) -> None:
        self.gpus = list(gpus)
        self.errors: dict[str, int] = {}
        """Error code by call: what the library answers instead, whichever GPU is asked."""
        self.lacks: set[str] = set()
        """Functions that this version of the library does not have."""
        self.calls: Counter[str] = Counter()
        self.open = 0
        """How often it was initialised and not shut down again."""
        self.samples: dict[int, ctypes.Array[ctypes.c_char]] = {}
        """GPM buffers that are allocated, by address."""
        self.sampled: Counter[int] = Counter()
        """How often each of them was filled."""
        self._own: dict[str, Callable[..., int]] = {
            "nvmlInitWithFlags": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount_v2": self._count,
            "nvmlDeviceGetHandleByIndex_v2": self._handle,
            "nvmlGpmSampleAlloc": self._allocate,
            "nvmlGpmSampleFree": self._free,
            "nvmlGpmSampleGet": self._sample,
            "nvmlGpmMetricsGet": self._metrics,
        }

    def __getattr__(self, name: str) -> _Function:
        if name not in CALLS or name in self.lacks:
            raise AttributeError(name)
        return _Function(lambda *arguments: self._called(name, arguments))

    def _called(self, name: str, arguments: tuple[_Passed, ...]) -> int:
        self.calls[name] += 1
        if name in self.errors:
            return self.errors[name]
        if name != "nvmlInitWithFlags" and not self.open:
            return ERROR_CODES["UNINITIALIZED"]
        if name in _OF_A_GPU:
            gpu = self.gpus[_index_of(arguments[0])]
            if name in gpu.errors:
                return gpu.errors[name]
            return _OF_A_GPU[name](gpu, *arguments[1:])
        answer: int = self._own[name](*arguments)
        return answer

    def _init(self, _flags: int) -> int:
        self.open += 1
        return 0

    def _shutdown(self) -> int:
        self.open -= 1
        return 0

    def _count(self, count: _Passed) -> int:
        _at(count).value = len(self.gpus)
        return 0

    def _handle(self, index: _Passed, device: _Passed) -> int:
        gpu: StandInGpu = self.gpus[index.value]
        if "nvmlDeviceGetHandleByIndex_v2" in gpu.errors:
            return gpu.errors["nvmlDeviceGetHandleByIndex_v2"]
        ctypes.memmove(ctypes.addressof(_at(device)), ctypes.byref(ctypes.c_void_p(index.value + 1)), 8)
        return 0

    def _allocate(self, sample: _Passed) -> int:
        buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
        address = ctypes.addressof(buffer)
        self.samples[address] = buffer
        ctypes.memmove(ctypes.addressof(_at(sample)), ctypes.byref(ctypes.c_void_p(address)), 8)
        return 0

    def _free(self, sample: _Passed) -> int:
        del self.samples[_address(sample)]
        return 0

    def _sample(self, device: _Passed, sample: _Passed) -> int:
        gpu = self.gpus[_index_of(device)]
        if "nvmlGpmSampleGet" in gpu.errors:
            return gpu.errors["nvmlGpmSampleGet"]
        self.samples[_address(sample)].value = str(_index_of(device)).encode()
        self.sampled[_address(sample)] += 1
        return 0

    def _metrics(self, asked: _Passed) -> int:
        asked = _at(asked)
        between = [_address(asked.sample1), _address(asked.sample2)]
        of_gpus = {self.samples[address].value for address in between}
        what = (asked.version, asked.numMetrics, asked.metrics[0].metricId)
        if between[0] == between[1] or len(of_gpus) != 1 or what != (_GPM_VERSION, 1, _GPM_DRAM_BANDWIDTH):
            return ERROR_CODES["INVALID_ARGUMENT"]
        gpu = self.gpus[int(of_gpus.pop())]
        if "nvmlGpmMetricsGet" in gpu.errors:
            return gpu.errors["nvmlGpmMetricsGet"]
        asked.metrics[0].nvmlReturn = gpu.bandwidth_return
        asked.metrics[0].value = gpu.bandwidth_percent
        return 0


def _address(pointer: _Passed) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _index_of(device: _Passed) -> int:
    return _address(device) - 1


def _value(attribute: str) -> Callable[..., int]:
    def answer(gpu: StandInGpu, *arguments: _Passed) -> int:
        _at(arguments[-1]).value = getattr(gpu, attribute)
        return 0

    return answer


def _text(attribute: str) -> Callable[..., int]:
    def answer(gpu: StandInGpu, buffer: _Passed, _size: _Passed) -> int:
        buffer.value = getattr(gpu, attribute)
        return 0

    return answer


def _mig(gpu: StandInGpu, current: _Passed, pending: _Passed) -> int:
    _at(current).value = _at(pending).value = gpu.mig
    return 0


def _utilization(gpu: StandInGpu, rates: _Passed) -> int:
    _at(rates).gpu, _at(rates).memory = gpu.busy_percent, gpu.memory_time_percent
    return 0


def _memory(gpu: StandInGpu, memory: _Passed) -> int:
    _at(memory).total, _at(memory).used = gpu.total_bytes, gpu.used_bytes
    return 0


def _field(gpu: StandInGpu, _count: _Passed, values: _Passed) -> int:
    value = _at(values)[0]
    if value.fieldId != pynvml.NVML_FI_DEV_MEMORY_TEMP:
        return ERROR_CODES["INVALID_ARGUMENT"]
    value.nvmlReturn = gpu.memory_temperature_return
    value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    value.value.uiVal = gpu.memory_temperature_c
    return 0


def _support(gpu: StandInGpu, support: _Passed) -> int:
    _at(support).isSupportedDevice = gpu.gpm
    return 0


_OF_A_GPU: dict[str, Callable[..., int]] = {
    "nvmlDeviceGetUUID": _text("uuid"),
    "nvmlDeviceGetName": _text("name"),
    "nvmlDeviceGetMigMode": _mig,
    "nvmlDeviceGetUtilizationRates": _utilization,
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetPowerUsage": _value("power_mw"),
    "nvmlDeviceGetTotalEnergyConsumption": _value("energy_mj"),
    "nvmlDeviceGetTemperature": _value("temperature_c"),
    "nvmlDeviceGetFieldValues": _field,
    "nvmlDeviceGetClockInfo": _value("sm_clock_mhz"),
    "nvmlDeviceGetMaxClockInfo": _value("memory_clock_mhz"),
    "nvmlDeviceGetMemoryBusWidth": _value("bus_bits"),
    "nvmlDeviceGetCurrentClocksEventReasons": _value("reasons"),
    "nvmlDeviceGetCurrentClocksThrottleReasons": _value("reasons"),
    "nvmlGpmQueryDeviceSupport": _support,
}


@contextmanager
def installed(library: StandInNvml | None) -> Iterator[None]:
    """Pynvml's library is `library`; None: as on a machine without one, where pynvml looks and finds none."""
    pointers = pynvml._nvmlGetFunctionPointer_cache  # noqa: SLF001 - it remembers functions of the library before
    before, known = pynvml.nvmlLib, dict(pointers)
    pointers.clear()
    pynvml.nvmlLib = library
    try:
        yield
    finally:
        pynvml.nvmlLib = before
        pointers.clear()
        pointers.update(known)
