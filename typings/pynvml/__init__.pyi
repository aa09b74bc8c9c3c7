"""The part of nvidia-ml-py that Flyball uses; the package ships no types."""

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

NVML_SUCCESS: int
NVML_ERROR_LIBRARY_NOT_FOUND: int
NVML_ERROR_NOT_SUPPORTED: int
NVML_CLOCK_SM: int
NVML_CLOCK_MEM: int
NVML_TEMPERATURE_GPU: int
NVML_FI_DEV_MEMORY_TEMP: int
NVML_VALUE_TYPE_DOUBLE: int
NVML_VALUE_TYPE_UNSIGNED_INT: int
NVML_VALUE_TYPE_UNSIGNED_LONG: int
NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: int
NVML_VALUE_TYPE_SIGNED_LONG_LONG: int
NVML_VALUE_TYPE_SIGNED_INT: int
NVML_VALUE_TYPE_UNSIGNED_SHORT: int
NVML_DEVICE_MIG_ENABLE: int
NVML_GPM_METRIC_DRAM_BW_UTIL: int
NVML_GPM_METRICS_GET_VERSION: int

class _Library(Protocol):
    def __getattr__(self, name: str) -> Any: ...

nvmlLib: _Library | None
_nvmlGetFunctionPointer_cache: dict[str, Any]

class NVMLError(Exception):
    value: int
    def __init__(self, value: int) -> None: ...

class NVMLLibraryMismatchError(Exception): ...

class struct_c_nvmlDevice_t(ctypes.Structure): ...
class struct_c_nvmlGpmSample_t(ctypes.Structure): ...

_Device: TypeAlias = ctypes._Pointer[struct_c_nvmlDevice_t]
_GpmSample: TypeAlias = ctypes._Pointer[struct_c_nvmlGpmSample_t]

class c_nvmlUtilization_t(ctypes.Structure):
    gpu: int
    memory: int

class c_nvmlMemory_t(ctypes.Structure):
    total: int
    free: int
    used: int

class c_nvmlValue_t(ctypes.Union):
    dVal: float
    uiVal: int
    ulVal: int
    ullVal: int
    sllVal: int
    siVal: int
    usVal: int

class c_nvmlFieldValue_t(ctypes.Structure):
    fieldId: int
    valueType: int
    nvmlReturn: int
    value: c_nvmlValue_t

class c_nvmlGpmSupport_t(ctypes.Structure):
    version: int
    isSupportedDevice: int

class c_nvmlGpmMetric_t(ctypes.Structure):
    metricId: int
    nvmlReturn: int
    value: float

class c_nvmlGpmMetricsGet_t(ctypes.Structure):
    version: int
    numMetrics: int
    sample1: _GpmSample
    sample2: _GpmSample
    metrics: ctypes.Array[c_nvmlGpmMetric_t]

def nvmlInit() -> None: ...
def nvmlShutdown() -> None: ...
def nvmlSystemGetDriverVersion() -> str: ...
def nvmlDeviceGetCount() -> int: ...
def nvmlDeviceGetHandleByIndex(index: int) -> _Device: ...
def nvmlDeviceGetUUID(handle: _Device) -> str: ...
def nvmlDeviceGetName(handle: _Device) -> str: ...
def nvmlDeviceGetMigMode(device: _Device) -> list[int]: ...
def nvmlDeviceGetUtilizationRates(handle: _Device) -> c_nvmlUtilization_t: ...
def nvmlDeviceGetMemoryInfo(handle: _Device, version: int | None = None) -> c_nvmlMemory_t: ...
def nvmlDeviceGetPowerUsage(handle: _Device) -> int: ...
def nvmlDeviceGetTotalEnergyConsumption(handle: _Device) -> int: ...
def nvmlDeviceGetTemperature(handle: _Device, sensor: int) -> int: ...
def nvmlDeviceGetFieldValues(handle: _Device, fieldIds: Sequence[int]) -> ctypes.Array[c_nvmlFieldValue_t]: ...
def nvmlDeviceGetClockInfo(handle: _Device, type: int) -> int: ...
def nvmlDeviceGetMaxClockInfo(handle: _Device, type: int) -> int: ...
def nvmlDeviceGetMemoryBusWidth(device: _Device) -> int: ...
def nvmlDeviceGetCurrentClocksEventReasons(handle: _Device) -> int: ...
def nvmlDeviceGetCurrentClocksThrottleReasons(handle: _Device) -> int: ...
def nvmlGpmQueryDeviceSupport(device: _Device) -> c_nvmlGpmSupport_t: ...
def nvmlGpmSampleAlloc() -> _GpmSample: ...
def nvmlGpmSampleFree(gpmSample: _GpmSample) -> None: ...
def nvmlGpmSampleGet(device: _Device, gpmSample: _GpmSample) -> _GpmSample: ...
def nvmlGpmMetricsGet(metricsGet: c_nvmlGpmMetricsGet_t) -> c_nvmlGpmMetricsGet_t: ...
