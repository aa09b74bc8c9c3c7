# ruff: noqa: N801, N802, N803, N815, N816 - the names are the library's
"""The part of nvidia-ml-py that Flyball uses; the package ships no types."""

import ctypes
from collections.abc import Sequence
from typing import Any

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

nvmlLib: object
_nvmlGetFunctionPointer_cache: dict[str, Any]

class NVMLError(Exception):
    value: int
    def __init__(self, value: int) -> None: ...

class NVMLLibraryMismatchError(Exception): ...
class c_nvmlDevice_t: ...
class c_nvmlGpmSample_t: ...

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
    sample1: c_nvmlGpmSample_t
    sample2: c_nvmlGpmSample_t
    metrics: ctypes.Array[c_nvmlGpmMetric_t]

def nvmlInit() -> None: ...
def nvmlShutdown() -> None: ...
def nvmlSystemGetDriverVersion() -> str: ...
def nvmlDeviceGetCount() -> int: ...
def nvmlDeviceGetHandleByIndex(index: int) -> c_nvmlDevice_t: ...
def nvmlDeviceGetUUID(handle: c_nvmlDevice_t) -> str: ...
def nvmlDeviceGetName(handle: c_nvmlDevice_t) -> str: ...
def nvmlDeviceGetMigMode(device: c_nvmlDevice_t) -> list[int]: ...
def nvmlDeviceGetUtilizationRates(handle: c_nvmlDevice_t) -> c_nvmlUtilization_t: ...
def nvmlDeviceGetMemoryInfo(handle: c_nvmlDevice_t, version: int | None = None) -> c_nvmlMemory_t: ...
def nvmlDeviceGetPowerUsage(handle: c_nvmlDevice_t) -> int: ...
def nvmlDeviceGetTotalEnergyConsumption(handle: c_nvmlDevice_t) -> int: ...
def nvmlDeviceGetTemperature(handle: c_nvmlDevice_t, sensor: int) -> int: ...
def nvmlDeviceGetFieldValues(handle: c_nvmlDevice_t, fieldIds: Sequence[int]) -> ctypes.Array[c_nvmlFieldValue_t]: ...
def nvmlDeviceGetClockInfo(handle: c_nvmlDevice_t, clock: int, /) -> int: ...
def nvmlDeviceGetMaxClockInfo(handle: c_nvmlDevice_t, clock: int, /) -> int: ...
def nvmlDeviceGetMemoryBusWidth(device: c_nvmlDevice_t) -> int: ...
def nvmlDeviceGetCurrentClocksEventReasons(handle: c_nvmlDevice_t) -> int: ...
def nvmlDeviceGetCurrentClocksThrottleReasons(handle: c_nvmlDevice_t) -> int: ...
def nvmlGpmQueryDeviceSupport(device: c_nvmlDevice_t) -> c_nvmlGpmSupport_t: ...
def nvmlGpmSampleAlloc() -> c_nvmlGpmSample_t: ...
def nvmlGpmSampleFree(gpmSample: c_nvmlGpmSample_t) -> None: ...
def nvmlGpmSampleGet(device: c_nvmlDevice_t, gpmSample: c_nvmlGpmSample_t) -> c_nvmlGpmSample_t: ...
def nvmlGpmMetricsGet(metricsGet: c_nvmlGpmMetricsGet_t) -> c_nvmlGpmMetricsGet_t: ...
