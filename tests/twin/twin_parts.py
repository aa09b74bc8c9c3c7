"""Small engines, requests and fleets for the tests of the twin."""

from collections.abc import Iterable
from dataclasses import replace

from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from flyball_twin.engine.engine import Engine
from flyball_twin.fleet.faults import Fault
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.physics import BLOCK_TOKENS, ENGINE_MODEL, EngineModel
from flyball_twin.workload import Request

LANES = (LaneRule(lane="realtime", priority=0, max_wait_s=0.0), LaneRule(lane="bulk", priority=10, max_wait_s=30.0))


def with_blocks(blocks: int) -> EngineModel:
    """The usual engine with room for just that many KV blocks."""
    model = ENGINE_MODEL
    room = blocks * BLOCK_TOKENS * model.kv_bytes_per_token + model.weight_bytes + ENGINE_MODEL.reserved_bytes
    # Half a block more, so that rounding cannot cost one.
    room += 0.5 * BLOCK_TOKENS * model.kv_bytes_per_token
    return replace(ENGINE_MODEL, gpu=replace(ENGINE_MODEL.gpu, hbm_bytes=room / ENGINE_MODEL.memory_share))


def ask(id_: int, arrival_s: float = 0.0, prompt: int = 100, output: int = 10, lane: str = "realtime") -> Request:
    """A request."""
    return Request(id=id_, arrival_s=arrival_s, prompt_tokens=prompt, output_tokens=output, lane=lane)


def fleet_of(
    count: int,
    requests: Iterable[Request],
    *,
    model: EngineModel = ENGINE_MODEL,
    variant: str = "graphs",
    faults: Iterable[Fault] = (),
) -> Fleet:
    """Engines `e0`, `e1`, … of one variant behind a gateway with lanes realtime and bulk."""
    engines = [Engine(EngineId(f"e{index}"), model, variant) for index in range(count)]
    return Fleet.single(engines, Gateway([engine.id for engine in engines], LANES), tuple(requests), faults)
