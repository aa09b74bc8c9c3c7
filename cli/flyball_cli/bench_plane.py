"""How quick and how costly the plane is, over real sockets: the figures of `flyball bench plane`.

The controller is the installed `flyball controller` in a process of its own with an embedded log; agents and
engines are played by this process, each over its own connection. What is measured is the way, not the policy's
patience: `frame_to_ack_ms` is the append of a frame plus the way from the tick that decides to the ack in the log.
What a frame waits on purpose (the lateness window, the next tick) is stated beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flyball_cli.bench_agent import AgentCost, measure_agent
from flyball_cli.bench_fleet import POLICY, ScriptedPool
from flyball_cli.bench_sockets import PERIOD_S, SocketFleet
from flyball_cli.processes import Processes, free_port
from flyball_controller.machine.filing import LATENESS_S

SIZES = (10, 200)
"""Engines beside the controller."""
PER_NODE = 8
SETTLE_S = 5.0
"""Everybody has attached and the first settings are out before anything is measured."""

CONFIG = """\
log: log
state: state
tls: none
logs: {{level: warning, format: text}}
controller:
  name: bench
  listen: 127.0.0.1:{grpc}
  http: 127.0.0.1:{http}
  policies: {{bench: policy.yaml}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneCost:
    """The plane at one size."""

    engines: int
    frame_to_ack_s: tuple[float, ...]
    tick_to_ack_s: tuple[float, ...]
    append_s: tuple[float, ...]
    nacks: int
    failures: int
    controller_cpu_share: float
    controller_rss_bytes: int


async def measure_plane(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, as the documented JSON. Raises `Fatal` or `Retryable` if a process does not come up."""
    found = []
    for engines in SIZES:
        say(f"{engines} engines, {seconds:g} s ...")
        with TemporaryDirectory(prefix="flyball-bench-") as folder:
            found.append(await _measure(engines, seconds, Path(folder)))
    say(f"one agent, 8 GPUs and 8 engines, {seconds:g} s ...")
    with TemporaryDirectory(prefix="flyball-bench-") as folder:
        agent = await measure_agent(seconds, Path(folder))
    return plane_document(found, agent)


async def _measure(engines: int, seconds: float, folder: Path) -> PlaneCost:
    grpc, http = free_port(), free_port()
    (folder / "flyball.yaml").write_text(CONFIG.format(grpc=grpc, http=http))
    (folder / "policy.yaml").write_text(POLICY)
    nodes, rest = divmod(engines, PER_NODE)
    pool = ScriptedPool(nodes=nodes + bool(rest), per_node=PER_NODE if not rest else -(-engines // (nodes + 1)))
    with Processes(folder) as processes:
        controller = processes.start("controller", "controller", "--config", str(folder / "flyball.yaml"))
        await controller.ready(f"127.0.0.1:{http}")
        fleet = SocketFleet(pool, f"127.0.0.1:{grpc}", str(folder / "log"), folder / "receivers")
        share = await fleet.run(SETTLE_S, seconds, controller.cpu_s)
        return PlaneCost(
            engines=len(pool.engines),
            frame_to_ack_s=tuple(fleet.seen.frame_to_ack_s),
            tick_to_ack_s=tuple(fleet.seen.tick_to_ack_s),
            append_s=tuple(fleet.seen.append_s),
            nacks=fleet.seen.nacks,
            failures=fleet.seen.failures,
            controller_cpu_share=share,
            controller_rss_bytes=controller.rss_bytes(),
        )


def plane_document(found: Sequence[PlaneCost], agent: AgentCost) -> dict[str, Any]:
    """The figures as the documented JSON."""
    largest = found[-1]
    return {
        "schema": "flyball.bench-plane/1",
        "frame_to_ack_ms": {str(cost.engines): _spread_ms(cost.frame_to_ack_s) for cost in found},
        "tick_to_ack_ms": {str(cost.engines): _spread_ms(cost.tick_to_ack_s) for cost in found},
        "append_ms": {str(cost.engines): _spread_ms(cost.append_s) for cost in found},
        "waits_on_purpose_s": {"lateness": LATENESS_S, "next_tick_at_most": PERIOD_S},
        "controller_cpu_share": largest.controller_cpu_share,
        "controller_cpu_share_by_engines": {str(cost.engines): cost.controller_cpu_share for cost in found},
        "controller_rss_mb": largest.controller_rss_bytes / 1e6,
        "agent_cpu_share": agent.cpu_share,
        "agent_rss_mb": agent.rss_bytes / 1e6,
        "agent": {key: value for key, value in asdict(agent).items() if key not in ("cpu_share", "rss_bytes")},
        "nacks": sum(cost.nacks for cost in found),
        "failed_appends": sum(cost.failures for cost in found),
    }


def _spread_ms(values_s: Sequence[float]) -> dict[str, float | int | None]:
    """Count, median and 99th percentile (nearest rank), in milliseconds; None where nothing was measured."""
    ordered = sorted(values_s)

    def at(share: float) -> float | None:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None

    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99)}
