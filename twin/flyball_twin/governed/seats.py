"""Where a simulated engine or gateway meets its receiver: links within the process.

The receivers are those of life, on the same disk format; only the stream between pusher
and receiver is missing. A seat attaches when its engine runs, detaches when it goes down,
and takes a new receiver for each incarnation, as a receiver in an engine's own process
would be new. What a receiver takes for the time is its node's clock, which may be wrong.
"""

from pathlib import Path

from flyball_agents.easing import Phase, ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface, offer_directive
from flyball_agents.gateway_adapter import LanePlace, TableDefaults, TableSurface, offer_table
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_controller.pusher import Message, Pusher
from flyball_core.ids import EngineId, Incarnation, PoolId
from flyball_core.inputs import Ack, Attach, TargetKind
from flyball_core.outputs import Directive, Heartbeat, RoutingTable
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.gateway import MAX_WAIT_S
from flyball_twin.governed.clocks import NodeClock
from flyball_twin.governed.doors import EngineDoor, GatewayDoor


class Seat:
    """One receiver's end of a link. `acks` holds its answers until somebody fetches them."""

    def __init__(self, clock: NodeClock) -> None:
        self._clock = clock
        self.receiver: Receiver | None = None
        self.acks: list[Ack] = []
        self._phase = Phase.HOLDING

    async def send(self, message: Message) -> None:
        """Take a message as a stream would deliver it; a seat without a receiver loses it."""
        if self.receiver is None:
            return
        now_s, wall_s = self._clock.now_s, self._clock.wall_s
        if isinstance(message, Heartbeat):
            self.receiver.renew(message, now_s=now_s, wall_s=wall_s)
        elif isinstance(message, Directive):
            self.acks.append(offer_directive(self.receiver, message, now_s=now_s, wall_s=wall_s))
        elif isinstance(message, RoutingTable):
            self.acks.append(offer_table(self.receiver, message, now_s=now_s, wall_s=wall_s))

    def phase_changed(self) -> bool:
        """Let the receiver ease by what has come due; whether it began or ceased to hold since the last call."""
        if self.receiver is None:
            return False
        before = self._phase
        self._phase = self.receiver.poll(now_s=self._clock.now_s, wall_s=self._clock.wall_s)
        return self._phase is not before

    def fetch(self) -> list[Ack]:
        """The answers since the last call."""
        answers, self.acks = self.acks, []
        return answers


class EngineSeat(Seat):
    """The seat of one engine."""

    def __init__(self, fleet: Fleet, pool: PoolId, engine: EngineId, folder: Path, clock: NodeClock, seed: int) -> None:
        super().__init__(clock)
        self._door = EngineDoor(fleet, engine)
        self._pool, self._engine, self._seed = pool, engine, seed
        self._store = ReceiverStore(folder / pool / engine, durable=False)
        self._attached: Attach | None = None

    async def follow(self, pusher: Pusher) -> None:
        """Attach, detach or ease, as the engine's state asks for; once per beat.

        It attaches anew when it begins or ceases to ease, so that the owner learns of it.
        """
        gone = not self._door.ready or (self._attached and self._attached.incarnation != self._door.incarnation)
        if self._attached is not None and gone:
            await pusher.detached(self, self._attached)
            self._attached = self.receiver = None
        if not self._door.ready:
            return
        if self.receiver is None:
            self.receiver = self._new_receiver()
            self._attached = self.receiver.attach()
            await pusher.attached(self, self._attached)
        elif self.phase_changed():
            self._attached = self.receiver.attach()
            await pusher.attached(self, self._attached)

    def _new_receiver(self) -> Receiver:
        return Receiver(
            Target(pool=self._pool, kind=TargetKind.ENGINE, name=self._engine, incarnation=self._door.incarnation),
            SettingsSurface(self._door),
            self._store,
            ReceiverLimits(),
            seed=self._seed,
            now_s=self._clock.now_s,
            wall_s=self._clock.wall_s,
        )


class GatewaySeat(Seat):
    """The seat of one pool of a fleet's gateway; it never goes down."""

    def __init__(self, fleet: Fleet, pool: PoolId, name: str, folder: Path, clock: NodeClock, seed: int) -> None:
        super().__init__(clock)
        gateway = fleet.pools[pool].gateway
        rules = [gateway.rule(lane) for lane in gateway.lanes]
        places = {rule.lane: LanePlace(rule.priority, rule.max_wait_s) for rule in rules}
        defaults = TableDefaults(lanes=places, most_wait_s=MAX_WAIT_S)
        self.receiver: Receiver = Receiver(
            Target(pool=pool, kind=TargetKind.GATEWAY, name=name, incarnation=Incarnation(f"{name}-1")),
            TableSurface(GatewayDoor(fleet, pool), defaults),
            ReceiverStore(folder / pool / name, durable=False),
            ReceiverLimits(),
            seed=seed,
            now_s=clock.now_s,
            wall_s=clock.wall_s,
        )
        self._attached = False

    async def follow(self, pusher: Pusher) -> None:
        """Attach at the first beat, and again when it begins or ceases to ease."""
        if not self._attached or self.phase_changed():
            self._attached = True
            await pusher.attached(self, self.receiver.attach())
