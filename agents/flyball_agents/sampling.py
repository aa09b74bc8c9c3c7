"""From what several samplers read to one picture of each pool.

Missing is never zero: what a sampler did not read, read too long ago, or read as no finite
number is missing, and counted. A failure of one sampler costs no value of another. Nothing
here waits: a sampler that has to (a scrape, a driver) reads in the background and hands over
its newest reading.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from flyball_core.frames import ENGINE_NUMBERS, GATEWAY_NUMBERS, GPU_NUMBERS, EngineSample, GatewaySample, GpuSample
from flyball_core.ids import UNASSIGNED, EngineId, GatewayId, PoolId

_GPU_HEAD = len(GpuSample._fields) - len(GPU_NUMBERS)
_ENGINE_HEAD = len(EngineSample._fields) - len(ENGINE_NUMBERS)
_GATEWAY_HEAD = len(GatewaySample._fields) - len(GATEWAY_NUMBERS)

_PLAIN = frozenset({float, int, type(None)})

_EngineKey = tuple[PoolId, EngineId, int]
_GatewayKey = tuple[PoolId, GatewayId, str]


class PooledEngine(NamedTuple):
    """An engine's sample and the pool that the engine belongs to."""

    pool: PoolId
    sample: EngineSample


class PooledGateway(NamedTuple):
    """A gateway's sample and the pool that it speaks of."""

    pool: PoolId
    sample: GatewaySample


class Reading(NamedTuple):
    """What a sampler saw at `taken_s` (the agent's monotonic clock)."""

    taken_s: float
    gpus: tuple[GpuSample, ...] = ()
    engines: tuple[PooledEngine, ...] = ()
    gateways: tuple[PooledGateway, ...] = ()


class Sampler(Protocol):
    """One source of samples on this node."""

    @property
    def name(self) -> str:
        """What its troubles are counted under; unique within an agent."""
        ...

    def sample(self, now_s: float) -> Reading:
        """The newest reading, at once and without waiting; raises if there is none.

        Counters are given as the source counts them; what the source does not give is None.
        """
        ...


class PoolView(NamedTuple):
    """All samples of one pool at one tick."""

    gpus: tuple[GpuSample, ...]
    engines: tuple[EngineSample, ...]
    gateways: tuple[GatewaySample, ...]


class Sampling:
    """Asks every sampler and merges what they say, earlier samplers first.

    Two samplers may see the same GPU or engine rank: what the first leaves missing is taken
    from the next. GPUs go to the pools of the engines on them, and stay there while the
    sampler that knew those engines fails; GPUs of no engine go to `_unassigned`.
    """

    def __init__(self, samplers: Sequence[Sampler], *, most_age_s: float = 2.0) -> None:
        self._samplers = tuple(samplers)
        self._most_age_s = most_age_s
        self._homes: dict[str, Mapping[int, frozenset[PoolId]]] = {}
        self.troubles: Counter[tuple[str, str]] = Counter()
        """How often each sampler "raised", was "late", or read "not_finite", by (name, trouble)."""

    def take(self, now_s: float) -> dict[PoolId, PoolView]:
        """The picture at `now_s`; a pool of which nothing was read is not in it."""
        gpus: dict[tuple[int, str], GpuSample] = {}
        engines: dict[_EngineKey, EngineSample] = {}
        gateways: dict[_GatewayKey, GatewaySample] = {}
        for sampler in self._samplers:
            reading = self._ask(sampler, now_s)
            if reading is None:
                continue
            for gpu in reading.gpus:
                key = gpu[:2]  # index and uuid
                gpus[key] = _same_gpu(gpus[key], gpu) if key in gpus else gpu
            for pool, engine in reading.engines:
                place = (pool, engine.engine, engine.rank)
                engines[place] = _same_engine(engines[place], engine) if place in engines else engine
            for pool, gateway in reading.gateways:
                seat = (pool, gateway.gateway, gateway.lane)
                gateways[seat] = _same_gateway(gateways[seat], gateway) if seat in gateways else gateway
        return self._by_pool(gpus, engines, gateways)

    def _ask(self, sampler: Sampler, now_s: float) -> Reading | None:
        """A sampler's reading, clean; None, and counted, if it has none that is fit to use."""
        try:
            reading = sampler.sample(now_s)
            if not now_s - reading.taken_s <= self._most_age_s:
                self.troubles[sampler.name, "late"] += 1
                return None
            clean = self._clean(sampler.name, reading)
            homes: dict[int, frozenset[PoolId]] = {}
            for pool, engine in clean.engines:
                for index in engine.gpus:
                    homes[index] = homes.get(index, frozenset()) | {pool}
        except Exception:  # noqa: BLE001 - a sampler is not ours; what it raises is counted
            self.troubles[sampler.name, "raised"] += 1
            return None
        self._homes[sampler.name] = homes
        return clean

    def _clean(self, name: str, reading: Reading) -> Reading:
        """The reading with what is no finite number missing: nearly always the reading itself."""
        if _is_clean(reading):
            return reading
        return Reading(
            reading.taken_s,
            tuple([GpuSample._make(self._finite(name, gpu, _GPU_HEAD)) for gpu in reading.gpus]),
            tuple(
                [
                    PooledEngine(pool, EngineSample._make(self._finite(name, engine, _ENGINE_HEAD)))
                    for pool, engine in reading.engines
                ]
            ),
            tuple(
                [
                    PooledGateway(pool, GatewaySample._make(self._finite(name, gateway, _GATEWAY_HEAD)))
                    for pool, gateway in reading.gateways
                ]
            ),
        )

    def _finite(self, name: str, sample: tuple[object, ...], head: int) -> list[object]:
        """A sample's fields, with what is no finite number missing from its numeric tail."""
        fields = list(sample)
        for place in range(head, len(fields)):
            value = fields[place]
            if value is None:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not _is_finite(value):
                fields[place] = None
                self.troubles[name, "not_finite"] += 1
        return fields

    def _by_pool(
        self,
        gpus: Mapping[tuple[int, str], GpuSample],
        engines: Mapping[_EngineKey, EngineSample],
        gateways: Mapping[_GatewayKey, GatewaySample],
    ) -> dict[PoolId, PoolView]:
        of_gpus: dict[PoolId, list[GpuSample]] = {}
        for chip in sorted(gpus):
            homes = {pool for known in self._homes.values() for pool in known.get(chip[0], ())}
            for pool in homes or {UNASSIGNED}:
                of_gpus.setdefault(pool, []).append(gpus[chip])
        of_engines: dict[PoolId, list[EngineSample]] = {}
        for place in sorted(engines):
            of_engines.setdefault(place[0], []).append(engines[place])
        of_gateways: dict[PoolId, list[GatewaySample]] = {}
        for seat in sorted(gateways):
            of_gateways.setdefault(seat[0], []).append(gateways[seat])
        return {
            pool: PoolView(
                tuple(of_gpus.get(pool, ())), tuple(of_engines.get(pool, ())), tuple(of_gateways.get(pool, ()))
            )
            for pool in sorted({*of_gpus, *of_engines, *of_gateways})
        }


def _is_clean(reading: Reading) -> bool:
    samples: list[tuple[tuple[object, ...], type, int]]
    samples = [(gpu, GpuSample, _GPU_HEAD) for gpu in reading.gpus]
    samples += [(engine, EngineSample, _ENGINE_HEAD) for _, engine in reading.engines]
    samples += [(gateway, GatewaySample, _GATEWAY_HEAD) for _, gateway in reading.gateways]
    return all(type(sample) is kind and _all_finite(sample[head:]) for sample, kind, head in samples)


def _all_finite(tail: tuple[object, ...]) -> bool:
    """Whether all of these are plain finite numbers, or missing: found without asking each."""
    if not _PLAIN.issuperset(map(type, tail)):
        return False
    numbers = cast("tuple[float | None, ...]", tail)
    try:
        return math.isfinite(sum(filter(None, numbers)))  # one that is not finite leaves no finite sum
    except OverflowError:
        return False


def _is_finite(number: float) -> bool:
    """Whether it is a finite number; an integer beyond all floats is none, for nothing could be worked out with it."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _same_gpu(first: GpuSample, second: GpuSample) -> GpuSample:
    """One GPU as two samplers saw it; a bandwidth keeps the source it came from."""
    fields = _first_known(first, second, _GPU_HEAD)
    merged = GpuSample._make(fields)
    source = first if first.hbm_bandwidth_ratio is not None else second
    return merged._replace(
        hbm_bandwidth_source=source.hbm_bandwidth_source,
        throttle_reasons=first.throttle_reasons | second.throttle_reasons,
    )


def _same_engine(first: EngineSample, second: EngineSample) -> EngineSample:
    """One engine rank as two samplers saw it; if they saw two incarnations, the first one's numbers alone."""
    if first.incarnation != second.incarnation:
        return first
    merged = EngineSample._make(_first_known(first, second, _ENGINE_HEAD))
    return merged._replace(gpus=first.gpus or second.gpus, variant=first.variant or second.variant)


def _same_gateway(first: GatewaySample, second: GatewaySample) -> GatewaySample:
    """One gateway's lane as two samplers saw it, under the same rule as an engine."""
    if first.incarnation != second.incarnation:
        return first
    return GatewaySample._make(_first_known(first, second, _GATEWAY_HEAD))


def _first_known(first: Sequence[object], second: Sequence[object], head: int) -> list[object]:
    return [*first[:head], *(a if a is not None else b for a, b in zip(first[head:], second[head:], strict=True))]
