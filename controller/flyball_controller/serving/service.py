"""The controller's composition root: what there is, in which order it comes, and in which order it goes.

Doors listen first and say what is waited for; the log is opened, however long that takes; then partitions
are taken and directives pushed. In the end receivers hear why, partitions are let go, the log is closed.
A controller that is killed instead leaves nothing behind that its successor could not take up.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import grpc
import structlog
from prometheus_client import CollectorRegistry

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import Seams, standard_seams
from flyball_controller.owner import Owner
from flyball_controller.pusher import Pusher
from flyball_controller.serving.append_door import AppendDoor
from flyball_controller.serving.attach_door import AttachDoor, AttachTimes
from flyball_controller.serving.doorkeeper import Doorkeeper, RefusalLog
from flyball_controller.serving.doorway import Doorway, Plane
from flyball_controller.serving.measures import Measures, Now
from flyball_controller.serving.pushing import Pushing
from flyball_controller.serving.read_door import ReadDoor
from flyball_controller.serving.sharing import GROUP, Sharing
from flyball_controller.serving.status import stale_pool
from flyball_controller.serving.tenure import Office, Tenure
from flyball_controller.serving.write_door import WriteDoor
from flyball_controller.slow import SlowDesk, SlowRunner
from flyball_core.errors import Rejected
from flyball_core.ids import OwnerId, PoolId
from flyball_core.inputs import PolicyText
from flyball_log import Log, join
from flyball_log.interface import Topic
from flyball_log.opening import is_kafka
from flyball_policies.reading import read_document
from flyball_proto.v1 import services_pb2_grpc as rpc
from flyball_service.certificate_measures import CertificateMeasures, expiries_of, watch_expiry
from flyball_service.channels import grpc_server
from flyball_service.config import Config, ControllerConfig
from flyball_service.exchanged import until_exchanged
from flyball_service.exposing import new_registry, serve_http
from flyball_service.health import Health
from flyball_service.kafka import LOG, open_log_patiently
from flyball_service.running import own_name
from flyball_service.tls import Tls

log = structlog.get_logger()

STOP_S = 5.0
"""A stop takes no longer."""
_GRACE_S = 0.5
"""How long calls may finish once the doors close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerAddresses:
    """Where a controller listens, also where port 0 was asked for."""

    grpc: str
    http: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What can be exchanged in a controller, beside what its configuration says."""

    seams: Callable[[], Seams] = standard_seams
    """The parts of the machine."""
    slow: SlowRunner | None = None
    """Runs the policies that `seams` names as slow."""
    times: AttachTimes = field(default_factory=AttachTimes)
    """How long receivers may take."""


async def run_controller(
    config: Config,
    stop: asyncio.Event,
    *,
    started: Callable[[ControllerAddresses], None] | None = None,
    parts: Parts | None = None,
) -> None:
    """Run the controller that `config` describes until `stop` is set.

    `started` hears the addresses as soon as the doors listen, before there is a log. Raises `Rejected` and
    `Fatal` for what waiting cannot heal.
    """
    if config.controller is None:
        raise Rejected(f"{config.file}: there is no section `controller`")
    controller = _Controller(config, config.controller, parts or Parts())
    await controller.run(stop, started or (lambda _: None))


class _Controller:
    """One controller, from its doors' opening to their closing."""

    def __init__(self, config: Config, own: ControllerConfig, parts: Parts) -> None:
        self._config = config
        self._own = own
        self._parts = parts
        self._name = own_name(own.name)
        self._policies = read_policies(own)
        self._health = Health()
        self._health.waits_for(LOG, f"{config.log} is being opened")
        self._health.waits_for(GROUP, "the log is not open yet")
        self._registry: CollectorRegistry = new_registry()
        self._measures = Measures(self._registry, self._now)
        tls = Tls(config.tls, role="controller", name=self._name) if config.tls is not None else None
        self._tls = tls
        self._expiries = expiries_of(config, tls)
        self._registry.register(CertificateMeasures("controller", self._expiries))
        refusals = RefusalLog(self._measures.caller_refused)
        self._doorkeeper = Doorkeeper(tls, refusals)
        self._doorway = Doorway(self._name, self._health, tls, refusals)
        self._attach_door = AttachDoor(self._doorway, self._measures, parts.times)
        self._append_door = AppendDoor(self._doorway, self._measures, self._late_s)
        self._plane: Plane | None = None
        self._sharing: Sharing | None = None
        self._desk: SlowDesk | None = None

    async def run(self, stop: asyncio.Event, started: Callable[[ControllerAddresses], None]) -> None:
        http = await serve_http(self._own.http, self._registry, self._health)
        try:
            server, port = await grpc_server(
                self._own.listen, self._tls, self._add_services, interceptors=[self._doorkeeper]
            )
            try:
                started(ControllerAddresses(grpc=_at(self._own.listen, port), http=_at(self._own.http, http.port)))
                log.info("doors_open", controller=self._name, grpc=port, http=http.port)
                await self._serve(stop, server)
            finally:
                await server.stop(None)
        finally:
            await http.close()

    async def _serve(self, stop: asyncio.Event, server: grpc.aio.Server) -> None:
        where = await open_log_patiently(self._config, self._health, stop, create=self._own.create_log)
        if where is None:
            return
        log.info("log_open", log=where.where, log_id=where.log_id, partitions=where.partitions)
        tasks: list[asyncio.Task[None]] = []
        try:
            tasks += await self._begin(where)
            stopping = asyncio.create_task(stop.wait())
            # A loop that ends before it is told to has failed: that is not to be survived.
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        finally:
            await self._end(where, server, tasks)

    async def _begin(self, where: Log) -> list[asyncio.Task[None]]:
        """Everything that needs the log."""
        self._desk = SlowDesk(where, self._parts.slow) if self._parts.slow is not None else None
        owner = Owner(where, OwnerId(self._name), self._parts.seams, own_fingerprint())
        pusher = Pusher(where)
        pushing = Pushing(where, pusher, self._health, self._measures)
        office = Office(
            log=where,
            owner=owner,
            health=self._health,
            measures=self._measures,
            tick_s=self._own.tick_s,
            policies=self._policies,
            inherited=await _ends(where),
            desk=self._desk,
        )
        self._sharing = Sharing(await join(where), self._health, lambda number, ours: Tenure(number, office, ours))
        self._plane = Plane(log=where, owner=owner, pusher=pusher, pushing=pushing, declared=frozenset(self._policies))
        self._doorway.open(self._plane)
        running = (
            self._sharing.run(),
            pushing.run(),
            watch_expiry(self._expiries.values()),
            until_exchanged(self._config, where, self._health),
        )
        return [asyncio.create_task(one) for one in running]

    async def _end(self, where: Log, server: grpc.aio.Server, tasks: list[asyncio.Task[None]]) -> None:
        """Close in the order that loses nothing: receivers and partitions, doors, log. Raises what ended a loop."""
        began_s = asyncio.get_running_loop().time()
        failed = [error for task in tasks if task.done() and (error := task.exception()) is not None]
        self._doorway.close()
        for task in tasks:
            task.cancel()
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(self._attach_door.close(), *tasks, return_exceptions=True)
                await server.stop(_GRACE_S)
                if self._desk is not None:
                    await self._desk.settled()
                await where.close()
        except TimeoutError:
            log.warning("stopped_late", after_s=STOP_S)
        log.info("stopped", seconds=round(asyncio.get_running_loop().time() - began_s, 3))
        for error in failed:
            raise error

    def _add_services(self, server: grpc.aio.Server) -> None:
        doorway, measures = self._doorway, self._measures
        # The stubs' types are of the blocking kind; what is given here is called by an aio server.
        rpc.add_AttachServiceServicer_to_server(cast("rpc.AttachServiceServicer", self._attach_door), server)
        rpc.add_AppendServiceServicer_to_server(cast("rpc.AppendServiceServicer", self._append_door), server)
        read = ReadDoor(doorway, measures, self._own.tick_s)
        rpc.add_OperatorReadServiceServicer_to_server(cast("rpc.OperatorReadServiceServicer", read), server)
        write = WriteDoor(doorway, measures)
        rpc.add_OperatorWriteServiceServicer_to_server(cast("rpc.OperatorWriteServiceServicer", write), server)

    def _late_s(self, partition: int) -> float:
        """How late the next tick of a partition is; 0 for one that is not being ticked here."""
        tenures = self._sharing.tenures if self._sharing is not None else []
        ages_s = [tenure.tick_age_s() for tenure in tenures if tenure.ticked and tenure.partition == partition]
        return max([age_s - self._own.tick_s for age_s in ages_s], default=0.0)

    def _now(self) -> Now:
        """The living state in numbers."""
        tenures = self._sharing.tenures if self._sharing is not None else []
        owned = list(self._plane.owner.owned.values()) if self._plane is not None else []
        pools = [pool for one in owned for pool in one.state.pools.values()]
        pusher = self._plane.pusher if self._plane is not None else None
        wall_s = time.time()
        return Now(
            tick_age_s={tenure.partition: tenure.tick_age_s() for tenure in tenures if tenure.ticked},
            inputs_behind={one.state.partition: max(one.end - one.next_offset, 0) for one in owned},
            pools_by_mode=dict(Counter(pool.mode.value for pool in pools)),
            stale_pools=sum(map(stale_pool, pools)),
            streams_by_kind=dict(self._attach_door.streams.by_kind()),
            heartbeat_age_s={} if pusher is None else {p: wall_s - beat.wall_s for p, beat in pusher.beats.items()},
            ignored_records=pusher.ignored if pusher is not None else 0,
            handshakes=self._tls.handshakes if self._tls is not None else 0,
            connections=self._doorkeeper.connections,
            samples_waiting=self._append_door.waiting() if self._plane is not None else {},
            inputs_set_aside=dict(sum((Counter(one.state.counts) for one in owned), Counter[str]())),
        )


async def _ends(where: Log) -> Mapping[int, int]:
    """Where each partition's inputs end now, of an embedded log, which nobody else writes."""
    if is_kafka(where.where):
        return {}
    return {number: (await where.bounds(Topic.INPUTS, number)).end for number in range(where.partitions)}


def read_policies(own: ControllerConfig) -> Mapping[str, PolicyText]:
    """The configuration's policies as orders, by pool. Raises `Rejected` for one that cannot be read or taken."""
    orders: dict[str, PolicyText] = {}
    for pool, file in own.policies.items():
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise Rejected(f"the policy of pool {pool!r} cannot be read: {error}") from error
        read_document(text, file=str(file))
        orders[pool] = PolicyText(pool=PoolId(pool), text=text, author=f"config:{file.name}")
    return orders


def _at(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
