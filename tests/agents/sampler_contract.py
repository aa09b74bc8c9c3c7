"""What every sampler promises the agent: one suite, run over each sampler there is."""

import math

from flyball_agents.sampling import Reading, Sampler
from flyball_core.frames import (
    ENGINE_NUMBERS,
    GATEWAY_NUMBERS,
    GPU_NUMBERS,
    BandwidthSource,
    EngineSample,
    GatewaySample,
    GpuSample,
)


class SamplerContract:
    """Subclasses give a sampler that has something to read, and a time at which it has read it."""

    now_s: float = 100.0

    def sampler(self) -> Sampler:
        """A sampler over a source that works."""
        raise NotImplementedError

    def reading(self) -> Reading:
        """What it reads first."""
        return self.sampler().sample(self.now_s)

    def test_it_has_a_name_of_its_own(self) -> None:
        """The name is what its troubles are counted under, and does not change."""
        sampler = self.sampler()
        before = sampler.name
        sampler.sample(self.now_s)

        assert sampler.name == before != ""

    def test_it_reads_samples_of_the_right_kind(self) -> None:
        """GPUs, engines and gateways come as their sample types, the last two with their pools."""
        reading = self.reading()

        assert {type(gpu) for gpu in reading.gpus} <= {GpuSample}
        assert {type(engine.sample) for engine in reading.engines} <= {EngineSample}
        assert {type(gateway.sample) for gateway in reading.gateways} <= {GatewaySample}
        assert all([entry.pool for entry in reading.engines] + [entry.pool for entry in reading.gateways])
        assert reading.gpus or reading.engines or reading.gateways

    def test_it_says_when_it_read(self) -> None:
        """The reading's time is the agent's monotonic time, and not in the future."""
        assert 0 <= self.now_s - self.reading().taken_s < math.inf

    def test_no_two_samples_are_of_the_same_thing(self) -> None:
        """Each GPU, engine rank and gateway lane occurs once in a reading."""
        reading = self.reading()
        keys = [
            *(("gpu", *gpu[:2]) for gpu in reading.gpus),
            *(("engine", pool, sample.engine, sample.rank) for pool, sample in reading.engines),
            *(("gateway", pool, sample.gateway, sample.lane) for pool, sample in reading.gateways),
        ]

        assert len(set(keys)) == len(keys)

    def test_its_numbers_are_finite_or_missing_and_not_negative(self) -> None:
        """Missing is None; what is there is a number that its unit can have."""
        reading = self.reading()
        rows: list[tuple[object, ...]] = [sample[-len(GPU_NUMBERS) :] for sample in reading.gpus]
        rows += [sample[-len(ENGINE_NUMBERS) :] for _, sample in reading.engines]
        rows += [sample[-len(GATEWAY_NUMBERS) :] for _, sample in reading.gateways]
        for value in (value for row in rows for value in row if value is not None):
            assert isinstance(value, (int, float))
            assert math.isfinite(value)
            assert value >= 0

    def test_shares_are_shares(self) -> None:
        """What is called a ratio lies between 0 and 1."""
        reading = self.reading()
        shares = [sample._asdict() for sample in reading.gpus]
        shares += [sample._asdict() for _, sample in reading.engines]
        for name, value in (item for fields in shares for item in fields.items()):
            assert not name.endswith("_ratio") or value is None or 0 <= value <= 1

    def test_a_bandwidth_names_its_source(self) -> None:
        """There is a source exactly where there is a bandwidth."""
        for gpu in self.reading().gpus:
            assert (gpu.hbm_bandwidth_ratio is not None) == (gpu.hbm_bandwidth_source is not BandwidthSource.NONE)

    def test_reading_twice_does_not_change_what_was_read(self) -> None:
        """A reading is a value: the next one leaves it as it was, and counters do not go back."""
        sampler = self.sampler()
        first = sampler.sample(self.now_s)
        copy = Reading(*first)
        second = sampler.sample(self.now_s + 1)

        assert copy == first
        for (_, before), (_, after) in zip(first.engines, second.engines, strict=True):
            for name in ENGINE_NUMBERS:
                if name.endswith(("_total", "_sum", "_count")) and before.incarnation == after.incarnation:
                    assert (getattr(after, name) or 0) >= (getattr(before, name) or 0)
