"""The services of `flyball demo --live`: one configuration file, four processes, real ports on loopback.

Every part is the installed command with the same file, started in no particular order. What does not come
up is named, with the last lines that it wrote. Nothing runs on after the `with` that it was started in.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyball_cli.operating.connection import Connection, login
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.ordering import order_line, taken
from flyball_cli.processes import READY_S, Processes, free_port
from flyball_core.errors import Fatal
from flyball_proto.v1.inputs_pb2 import PolicyText

POOL = "demo"
MODEL = "flyball-twin"
VARIANTS = {"engine-0": "graphs", "engine-1": "splitkv"}
"""The engines, and the kernel variant that each starts with."""
GATEWAY = "gateway-0"
_LOOK_S = 0.1

POLICY = """\
# The policy of `flyball demo --live`: short of time, so larger steps and shorter waits than a real fleet wants.
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 3s, tpot: 40ms, longest_wait: 60s}
  bulk: {priority: 10, end_to_end: 60s, longest_wait: 60s}
knobs:
  max_active_requests: {min: 4, max: 256}
  max_batched_tokens: {min: 2048, max: 8192}
caps: {tpot_target: 90%, ttft_target: 50%, kv_headroom: 10%, backoff: 0.6, step: 2}
weights: {min: 8, max: 256, nominal: 128, period: 3s}
variants:
  regimes: {interactive: graphs, long_context: splitkv}
  preference: 60%
guard: {slew_down: 0.1, raise_dwell: 5s}
"""

_CONFIG = """\
# Written by `flyball demo --live`: everything on this machine, plaintext on loopback.
log: log
state: state
tls: none
logs: {{level: info, format: text}}
controller:
  name: controller-0
  listen: {grpc}
  http: {controller}
  tick: 250ms
agent:
  name: agent-0
  http: {agent}
  period: 250ms
  gpus: none
  controllers: ["{grpc}"]
  engines:
{scraped}
  gateways:
    - {{gateway: {gateway_name}, pool: {pool}, metrics: "http://{gateway_http}/metrics"}}
gateway:
  name: {gateway_name}
  pool: {pool}
  listen: {gateway}
  http: {gateway_http}
  controllers: ["{grpc}"]
  engines:
{routed}
  lanes:
    - {{lane: realtime, priority: 0, max_wait: 60s}}
    - {{lane: bulk, priority: 10, max_wait: 60s}}
twin:
  pool: {pool}
  model: {model}
  relaunch: 3s
  controllers: ["{grpc}"]
  engines:
{engines}
"""

_SCRAPED = '    - {{engine: {name}, pool: {pool}, metrics: "http://{at}/metrics", variant: {variant}, model: {model}}}'
_ROUTED = '    - {{engine: {name}, url: "http://{at}"}}'
_ENGINE = "    - {{engine: {name}, listen: {at}, variant: {variant}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """HOST:PORT of everything."""

    grpc: str
    controller: str
    agent: str
    gateway: str
    gateway_http: str
    engines: Mapping[str, str]


def choose_places() -> Places:
    """Ports of loopback that nobody listens on now."""
    ports: set[int] = set()
    while len(ports) < 5 + len(VARIANTS):
        ports.add(free_port())
    places = [f"127.0.0.1:{port}" for port in ports]
    return Places(
        grpc=places[0],
        controller=places[1],
        agent=places[2],
        gateway=places[3],
        gateway_http=places[4],
        engines=dict(zip(VARIANTS, places[5:], strict=True)),
    )


def config_text(places: Places) -> str:
    """The configuration file of all four services."""

    def each(line: str) -> str:
        rows = [
            line.format(name=name, at=at, variant=VARIANTS[name], pool=POOL, model=MODEL)
            for name, at in places.engines.items()
        ]
        return "\n".join(rows)

    return _CONFIG.format(
        grpc=places.grpc,
        controller=places.controller,
        agent=places.agent,
        gateway=places.gateway,
        gateway_http=places.gateway_http,
        gateway_name=GATEWAY,
        pool=POOL,
        model=MODEL,
        scraped=each(_SCRAPED),
        routed=each(_ROUTED),
        engines=each(_ENGINE),
    )


class LivePlane:
    """The running services, with `folder` for all that they keep."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.places = choose_places()
        self._processes = processes
        self._file = folder / "flyball.yaml"
        self._file.write_text(config_text(self.places), encoding="utf-8")

    async def start(self) -> None:
        """Start all services and wait until each says that it is ready.

        Raises `Fatal` or `Retryable` with the last lines of the one that does not.
        """
        places = self.places
        config = ("--config", str(self._file))
        engines = self._processes.start("engines", "twin", "serve", *config)
        controller = self._processes.start("controller", "controller", *config)
        agent = self._processes.start("agent", "agent", *config)
        gateway = self._processes.start("gateway", "gateway", *config)
        await controller.ready(places.controller)
        for at in places.engines.values():
            await engines.ready(at, path="/health")
        await gateway.ready(places.gateway_http)
        await agent.ready(places.agent)

    def connection(self) -> Connection:
        """How an operator reaches the controller."""
        return Connection(addresses=(self.places.grpc,))

    async def attached(self, fleet: Fleet) -> None:
        """Wait until the controller knows the pool with all its engines and its gateway attached.

        A service is ready before its first attach has been read, and nobody can order anything of a pool that
        is not known yet. Raises `Fatal` if a process ends meanwhile or that takes too long.
        """
        until_s = time.monotonic() + READY_S
        while True:
            pool = (await fleet.status()).pools.get(POOL)
            there = {target.target for target in pool.status.targets if target.attached} if pool else set()
            missing = sorted({*VARIANTS, GATEWAY} - there)
            if not missing:
                return
            self.refuse_ended()
            if time.monotonic() > until_s:
                raise Fatal(f"{', '.join(missing)} did not attach within {READY_S:g} s\n{self._last_lines()}")
            await asyncio.sleep(_LOOK_S)

    async def apply_policy(self, fleet: Fleet) -> str:
        """Put the demo's policy document in force through the operator's door; the owner's words.

        Raises `Fatal` if the owner does not take it.
        """
        order = PolicyText(pool=POOL, text=POLICY, author=login() or "demo")
        address = self.places.grpc
        response = await fleet.write(address, lambda stub, timeout_s: stub.ApplyPolicy(order, timeout=timeout_s))
        if not taken(response):
            raise Fatal(f"the policy was not put in force: {order_line(POOL, response)}\n{self._last_lines()}")
        return response.summary

    def refuse_ended(self) -> None:
        """Raise `Fatal`, with its last lines, if a process has ended."""
        for process in self._processes.started:
            if not process.running:
                raise Fatal(f"{process.name} has ended:\n{process.last_lines()}")

    def _last_lines(self) -> str:
        return "\n".join(f"{process.name}: {process.last_lines()}" for process in self._processes.started)
