"""GPUs through NVML: what is read, and that no error of any call costs more than it must."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pynvml
import pytest

from flyball_agents.node.newest import NothingNew
from flyball_agents.node.nvml import LEFT_OUT_S, MOST_PAUSE_S, NvmlSampler
from flyball_agents.node.nvml_door import DOWN, GPU_IS_LOST, LASTING
from flyball_agents.node.nvml_gpu import READS
from flyball_agents.sampling import Reading, Sampler
from flyball_core.frames import GPU_NUMBERS, BandwidthSource, GpuSample
from flyball_twin.stand_ins.nvml import CALLS, ERROR_CODES, StandInGpu, StandInNvml, installed
from sampler_contract import SamplerContract

Install = Callable[[StandInNvml | None], None]

GPM_CALLS = {"nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleGet", "nvmlGpmMetricsGet"}
AT_THE_END = {"nvmlShutdown", "nvmlGpmSampleFree"}
OF_ALL = {"nvmlInitWithFlags", "nvmlDeviceGetCount_v2"}
OF_THE_LIBRARY = AT_THE_END | OF_ALL | {"nvmlGpmSampleAlloc"}
EVENT_REASONS = "nvmlDeviceGetCurrentClocksEventReasons"
OLD_EVENT_REASONS = "nvmlDeviceGetCurrentClocksThrottleReasons"

VALUES = {
    **{read.call.partition("(")[0]: set(read.values) for read in READS},
    **{call: {"hbm_bandwidth_ratio"} for call in GPM_CALLS},
    "nvmlDeviceGetMemoryBusWidth": {"hbm_peak_bytes_per_s"},
    "nvmlDeviceGetMaxClockInfo": {"hbm_peak_bytes_per_s"},
    EVENT_REASONS: {"throttle_reasons"},
    OLD_EVENT_REASONS: {"throttle_reasons"},
}
"""The values that each call gives; the calls that are not here give none."""


@pytest.fixture
def install() -> Iterator[Install]:
    """Puts a library below pynvml until the test is over."""
    with ExitStack() as stack:
        yield lambda library: stack.enter_context(installed(library))


def sampler_of(*gpus: StandInGpu, library: StandInNvml | None = None) -> tuple[NvmlSampler, StandInNvml]:
    """A sampler, and the library that is to be installed below it."""
    return NvmlSampler(random.Random(1)), library or StandInNvml(*gpus)


def read(sampler: NvmlSampler, *times_s: float) -> tuple[GpuSample, ...]:
    """The last of several readings."""
    for now_s in times_s:
        sampler.read(now_s)
    return sampler.sample(times_s[-1]).gpus


class Fed:
    """The sampler with the thread that reads it: one reading before each sample."""

    name = "nvml"

    def __init__(self, sampler: NvmlSampler) -> None:
        self._sampler = sampler
        self._sampler.read(99.0)

    def sample(self, now_s: float) -> Reading:
        """Read, and hand over."""
        self._sampler.read(now_s)
        return self._sampler.sample(now_s)


class TestNvmlKeepsTheContract(SamplerContract):
    """GPUs through NVML are a sampler."""

    @pytest.fixture(autouse=True)
    def library(self, install: Install) -> None:
        """Two GPUs, one of them without GPM."""
        install(StandInNvml(StandInGpu(), StandInGpu(uuid=b"GPU-1", gpm=False)))

    def sampler(self) -> Sampler:
        """A sampler that is read as often as it is asked."""
        return Fed(NvmlSampler(random.Random(1)))


def test_every_value_is_read_in_its_unit(install: Install) -> None:
    """Shares from percents, watts from milliwatts, hertz from megahertz; the peak from bus width and clock."""
    sampler, library = sampler_of(StandInGpu())
    install(library)

    assert read(sampler, 1.0, 2.0) == (
        GpuSample(
            gpu_index=0,
            uuid="GPU-00000000",
            hbm_bandwidth_source=BandwidthSource.GPM,
            throttle_reasons=4,
            sm_busy_ratio=0.7,
            memory_time_ratio=0.4,
            hbm_bandwidth_ratio=0.625,
            hbm_peak_bytes_per_s=5120 / 8 * 2619e6 * 2,
            hbm_used_bytes=float(60 << 30),
            hbm_total_bytes=float(80 << 30),
            power_w=512.0,
            energy_j_total=9000.0,
            temperature_c=61.0,
            memory_temperature_c=77.0,
            sm_clock_hz=1.98e9,
        ),
    )
    assert dict(sampler.gpus[0].missing) == {}
    assert (sampler.gpus[0].model, sampler.gpus[0].mig) == ("NVIDIA H100 80GB HBM3", False)


def test_a_machine_without_the_library_is_a_source_that_is_down(install: Install) -> None:
    """Pynvml looks for the driver's library and finds none: named, counted, tried again; nothing is raised."""
    sampler, _ = sampler_of()
    install(None)
    sampler.read(1.0)

    assert sampler.down == "nvmlInit: LIBRARY_NOT_FOUND"
    assert dict(sampler.door.errors) == {("nvmlInit", "LIBRARY_NOT_FOUND"): 1}
    with pytest.raises(NothingNew):
        sampler.sample(1.0)
    for now_s in range(2, 2 + 20 * int(MOST_PAUSE_S)):
        sampler.read(float(now_s))
    assert 20 <= sampler.openings <= 200
    sampler.close()


def test_a_driver_that_comes_later_is_found(install: Install) -> None:
    """The source comes up by itself when there is a library."""
    sampler, library = sampler_of(StandInGpu())
    install(None)
    sampler.read(1.0)
    install(library)

    assert len(read(sampler, 1.0 + MOST_PAUSE_S)) == 1
    assert sampler.down == ""


def error_of(library: StandInNvml, call: str, error: str) -> None:
    """Let the first GPU, or the library where the call is of no GPU, answer with this error."""
    if call == OLD_EVENT_REASONS:
        library.lacks.add(EVENT_REASONS)
    (library.errors if call in OF_THE_LIBRARY else library.gpus[0].errors)[call] = ERROR_CODES[error]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", sorted(ERROR_CODES))
def test_an_error_costs_its_own_values_alone_or_the_source_while_it_lasts(
    install: Install, call: str, error: str
) -> None:
    """Every error of every call: a missing value or a source that is down, counted, and over when it is over."""
    library = StandInNvml(StandInGpu(), StandInGpu(uuid=b"GPU-1"))
    install(library)
    sampler, _ = sampler_of(library=library)
    error_of(library, call, error)
    sampler.read(1.0)
    with suppress(NothingNew):
        sampler.sample(1.0)
    sampler.read(2.0)
    stem = call.removesuffix("_v2").removesuffix("WithFlags")
    counted = {name.partition("(")[0] for name, code in sampler.door.errors if code == error}

    if call in AT_THE_END:
        assert not sampler.down
        sampler.close()
        assert stem in {name for name, code in sampler.door.errors if code == error}
        return
    assert stem in counted
    if call in OF_ALL or (error in DOWN and error != GPU_IS_LOST):
        assert sampler.down == f"{sampler.down.partition(':')[0]}: {error}"
        with pytest.raises(NothingNew):
            sampler.sample(2.0)
    elif error == GPU_IS_LOST or call == "nvmlDeviceGetHandleByIndex_v2":
        _only_the_other_gpu_is_read(sampler, call, error)
    else:
        _only_its_values_are_missing(sampler, call, error)
    _and_it_heals(sampler, library, call, error)


def _only_the_other_gpu_is_read(sampler: NvmlSampler, call: str, error: str) -> None:
    if call == "nvmlGpmSampleAlloc":  # of the library: no GPU is spared
        return
    (sample,) = read(sampler, 10.0, 11.0)

    assert (sample.uuid, sampler.absent) == ("GPU-1", {0: error})


def _only_its_values_are_missing(sampler: NvmlSampler, call: str, error: str) -> None:
    sample, other = sampler.sample(2.0).gpus
    first, second = sampler.gpus
    lost = set() if (call, error) == (EVENT_REASONS, "FUNCTION_NOT_FOUND") else VALUES.get(call, set())

    assert dict.fromkeys(lost, error) == dict(first.missing)
    assert {name for name in GPU_NUMBERS if getattr(sample, name) is None} == lost & set(GPU_NUMBERS)
    assert (sample.hbm_bandwidth_source is BandwidthSource.NONE) == (call in GPM_CALLS)
    assert call == "nvmlGpmSampleAlloc" or (None not in other and not second.missing)
    assert sample.throttle_reasons == (0 if "throttle_reasons" in lost else 4)


def _and_it_heals(sampler: NvmlSampler, library: StandInNvml, call: str, error: str) -> None:
    library.errors.clear()
    library.gpus[0].errors.clear()
    samples = read(sampler, 2.0 + LEFT_OUT_S + MOST_PAUSE_S, 400.0, 401.0)
    learned = call in VALUES and error in LASTING and call not in OF_ALL

    assert [sample.gpu_index for sample in samples] == [0, 1]
    assert not sampler.down
    assert bool(sampler.gpus[0].missing) == (learned and (call, error) != (EVENT_REASONS, "FUNCTION_NOT_FOUND"))
    sampler.close()
    assert (library.open, library.samples) == (0, {})


def test_what_is_not_supported_is_asked_once_until_nvml_is_opened_anew(install: Install) -> None:
    """A GPU without a value costs one call, counted once; after opening NVML anew it is asked again."""
    sampler, library = sampler_of(StandInGpu(errors={"nvmlDeviceGetPowerUsage": ERROR_CODES["NOT_SUPPORTED"]}))
    install(library)
    read(sampler, *map(float, range(1, 30)))

    assert library.calls["nvmlDeviceGetPowerUsage"] == 1
    assert sampler.door.errors["nvmlDeviceGetPowerUsage", "NOT_SUPPORTED"] == 1
    library.gpus[0].errors = {"nvmlDeviceGetMemoryInfo": ERROR_CODES["UNINITIALIZED"]}
    sampler.read(30.0)
    library.gpus[0].errors = {}
    (sample,) = read(sampler, 31.0 + MOST_PAUSE_S)
    assert sample.power_w == 512.0


def test_what_passes_is_asked_again_every_time(install: Install) -> None:
    """A timeout is missing once, and counted once each time."""
    sampler, library = sampler_of(StandInGpu(errors={"nvmlDeviceGetPowerUsage": ERROR_CODES["TIMEOUT"]}))
    install(library)
    read(sampler, 1.0, 2.0, 3.0)
    library.gpus[0].errors = {}

    assert sampler.door.errors["nvmlDeviceGetPowerUsage", "TIMEOUT"] == 3
    assert read(sampler, 4.0)[0].power_w == 512.0


def test_constants_are_asked_once(install: Install) -> None:
    """The peak does not change while a driver runs."""
    sampler, library = sampler_of(StandInGpu())
    install(library)
    read(sampler, 1.0, 2.0, 3.0)

    assert library.calls["nvmlDeviceGetMemoryBusWidth"] == 1
    assert library.calls["nvmlDeviceGetMaxClockInfo"] == 1


def test_a_lost_gpu_costs_the_others_one_pause_and_is_tried_again_later(install: Install) -> None:
    """It is left out for minutes, the others are read; when it is back, it is taken in."""
    sampler, library = sampler_of(StandInGpu(), StandInGpu(uuid=b"GPU-1"))
    install(library)
    read(sampler, 1.0, 2.0)
    library.gpus[0].errors = {"nvmlDeviceGetMemoryInfo": ERROR_CODES[GPU_IS_LOST]}
    sampler.read(3.0)

    assert sampler.down == f"nvmlDeviceGetMemoryInfo: {GPU_IS_LOST}"
    assert [sample.gpu_index for sample in read(sampler, 5.0, 6.0)] == [1]
    assert sampler.absent == {0: GPU_IS_LOST}
    openings = sampler.openings
    read(sampler, *(7.0 + second for second in range(int(LEFT_OUT_S) - 10)))
    assert sampler.openings == openings
    library.gpus[0].errors = {}
    assert [sample.gpu_index for sample in read(sampler, 3.0 + LEFT_OUT_S, 310.0)] == [0, 1]
    assert sampler.absent == {}


def test_in_mig_mode_utilization_and_bandwidth_are_missing(install: Install) -> None:
    """They are not asked of a divided GPU, and said to be missing for that; the rest is read."""
    sampler, library = sampler_of(StandInGpu(mig=1))
    install(library)
    (sample,) = read(sampler, 1.0, 2.0)

    assert dict(sampler.gpus[0].missing) == dict.fromkeys(
        ("sm_busy_ratio", "memory_time_ratio", "hbm_bandwidth_ratio"), "MIG"
    )
    assert sample.power_w == 512.0
    assert not any(library.calls[call] for call in (*GPM_CALLS, "nvmlDeviceGetUtilizationRates"))


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"bandwidth_percent": math.nan}, "NOT_FINITE"),
        ({"bandwidth_percent": math.inf}, "NOT_FINITE"),
        ({"bandwidth_percent": -1.0}, "OUT_OF_RANGE"),
        ({"bandwidth_percent": 400.0}, "OUT_OF_RANGE"),
        ({"bandwidth_percent": 0.0}, "ZERO_WHILE_BUSY"),
        ({"bandwidth_return": pynvml.NVML_ERROR_NOT_SUPPORTED}, "NOT_SUPPORTED"),
        ({"bandwidth_return": 21}, "NO_DATA"),
        ({"gpm": False}, "NOT_SUPPORTED"),
    ],
)
def test_a_bandwidth_that_cannot_be_is_missing(install: Install, changes: dict[str, float], missing: str) -> None:
    """No number, none that fits, none although the SMs are busy: missing, counted, never zero."""
    gpu = StandInGpu()
    for name, value in changes.items():
        setattr(gpu, name, value)
    sampler, library = sampler_of(gpu)
    install(library)
    (sample,) = read(sampler, 1.0, 2.0)

    assert (sample.hbm_bandwidth_ratio, sample.hbm_bandwidth_source) == (None, BandwidthSource.NONE)
    assert dict(sampler.gpus[0].missing) == {"hbm_bandwidth_ratio": missing}
    assert missing in {code for _, code in sampler.door.errors}


@pytest.mark.parametrize(("percent", "ratio"), [(0.0, 0.0), (100.0, 1.0), (100.4, 1.0)])
def test_a_bandwidth_at_its_ends_is_one(install: Install, percent: float, ratio: float) -> None:
    """An idle GPU moves nothing; a rounding error beyond the peak is the peak."""
    sampler, library = sampler_of(StandInGpu(busy_percent=0 if percent == 0 else 90, bandwidth_percent=percent))
    install(library)

    assert read(sampler, 1.0, 2.0)[0].hbm_bandwidth_ratio == ratio


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"busy_percent": 255}, "sm_busy_ratio"),
        ({"temperature_c": 2**32 - 5}, "temperature_c"),
        ({"memory_temperature_c": 2**31}, "memory_temperature_c"),
        ({"bus_bits": 0}, "hbm_peak_bytes_per_s"),
    ],
)
def test_an_absurd_number_is_missing(install: Install, changes: dict[str, int], value: str) -> None:
    """What no GPU can show, such as a negative number read as unsigned, is out of range."""
    gpu = StandInGpu()
    for name, number in changes.items():
        setattr(gpu, name, number)
    sampler, library = sampler_of(gpu)
    install(library)
    (sample,) = read(sampler, 1.0, 2.0)

    assert getattr(sample, value) is None
    assert dict(sampler.gpus[0].missing) == {value: "OUT_OF_RANGE"}


def test_a_name_that_is_no_text_is_empty(install: Install) -> None:
    """Bytes that are no UTF-8 are an unreadable answer."""
    sampler, library = sampler_of(StandInGpu(uuid=b"\xff\xfe"))
    install(library)

    assert read(sampler, 1.0)[0].uuid == ""
    assert sampler.door.errors["nvmlDeviceGetUUID", "UNREADABLE"] == 1


def test_two_buffers_take_turns_and_are_given_back(install: Install) -> None:
    """Each GPU has two of the driver's buffers for good, filled in turn, freed at the end."""
    sampler, library = sampler_of(StandInGpu(), StandInGpu(uuid=b"GPU-1"))
    install(library)
    read(sampler, *map(float, range(1, 11)))

    assert sorted(library.sampled.values()) == [5, 5, 5, 5]
    assert library.calls["nvmlGpmSampleAlloc"] == 4
    sampler.close()
    sampler.close()
    assert (library.samples, library.open) == ({}, 0)


def test_samples_too_close_together_are_not_compared(install: Install) -> None:
    """Under 100 ms the driver has no new sample: no bandwidth, and the older sample is kept for the next reading."""
    sampler, library = sampler_of(StandInGpu())
    install(library)

    assert read(sampler, 1.0, 1.05)[0].hbm_bandwidth_ratio is None
    assert dict(sampler.gpus[0].missing) == {"hbm_bandwidth_ratio": "TOO_SOON"}
    assert read(sampler, 1.1)[0].hbm_bandwidth_ratio == 0.625


def test_a_reading_is_handed_over_once(install: Install) -> None:
    """What was taken is not passed off as new."""
    sampler, library = sampler_of(StandInGpu())
    install(library)
    read(sampler, 1.0)

    with pytest.raises(NothingNew):
        sampler.sample(1.0)
