"""Target: what a mad controller says to receivers, on the stream that they listen to.

The promises: whatever comes, knobs stay within their bounds, a heartbeat and a refused offer move nothing,
the version taken never decreases, and every directive and table gets an answer.
"""

from google.protobuf.message import DecodeError

from flyball_agents.conversing import Conversation
from flyball_agents.easing import ReceiverLimits
from flyball_agents.gateway_adapter import TableDefaults, TableSurface
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.surface import capability_hash
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, Incarnation, LogId, PoolId
from flyball_core.inputs import Ack, AckStatus, TargetKind
from flyball_core.knobs import Value
from flyball_core.outputs import Directive, Heartbeat, LaneRule, RebaseNotice, Route, RoutingTable
from flyball_proto.codec import Pushed, pusher_message, receiver_message
from flyball_proto.v1.services_pb2 import PusherMessage
from fuzz_bytes import Draw
from fuzz_files import scratch
from receiver_bench import AT_LAUNCH, POOL, SPECS, Bench, FakeGateway

MOST_MESSAGES = 24
LIMITS = ReceiverLimits(hold_s=20.0, ease_jitter_s=0.0)
_WEIGHTS, _CAPS = (0, 100, 256, 257, 2**31), (0, 9, 2**32 - 1)
_NUMBERS = (0.0, 1.0, -1.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"), 1.8e9)
_VALUES: tuple[Value, ...] = (
    0,
    1,
    17,
    256,
    257,
    -1,
    2**63 - 1,
    -(2**63),
    True,
    False,
    "",
    "fifo",
    "infer",
    "x" * 300,
    *_NUMBERS,
)


class _Mad:
    """A controller that knows the words and nothing else."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def says(self) -> PusherMessage | None:
        """The next message; None if it is not even one."""
        kind = self._draw.byte() % 6
        if kind == 0:
            try:
                return PusherMessage.FromString(self._draw.piece())
            except DecodeError:
                return None
        return pusher_message(
            (self._directive, self._directive, self._table, self._heartbeat, self._rebase)[kind - 1]()
        )

    def _version(self) -> Version:
        pick = self._draw.pick
        return Version(
            log_id=LogId(pick(("log-a", "log-a", "log-a", "log-b", ""))),
            partition=pick((3, 3, 3, 4, 2**32 - 1)),
            epoch=pick((10, 10, 11, 0, 2**63, 2**64 - 1)),
            revision=self._draw.byte() if self._draw.byte() % 4 else pick((2**63 - 1, 2**63, 2**64 - 1)),
        )

    def _directive(self) -> Pushed:
        pick = self._draw.pick
        names = [*(spec.name for spec in SPECS), "speed", ""]
        return Directive(
            pool=PoolId(pick((POOL, POOL, POOL, ""))),
            engine=EngineId(pick(("e1", "e1", "e1", "e2"))),
            incarnation=Incarnation(pick(("", "i1", "i2"))),
            capability_hash=pick((capability_hash(SPECS), capability_hash(SPECS), "")),
            version=self._version(),
            values={pick(names): pick(_VALUES) for _ in range(self._draw.byte() % 4)},
            decision="",
        )

    def _table(self) -> Pushed:
        pick = self._draw.pick
        engines = ("a", "b", "c", "", "d" * 300)
        return RoutingTable(
            pool=PoolId(pick((POOL, POOL, ""))),
            gateway=GatewayId(pick(("gw", "gw", "e1"))),
            version=self._version(),
            routes=tuple(
                Route(engine=EngineId(pick(engines)), weight=pick(_WEIGHTS), in_flight_cap=pick(_CAPS))
                for _ in range(self._draw.byte() % 4)
            ),
            lanes=tuple(
                LaneRule(
                    lane=pick(("chat", "", "new")), priority=pick((0, -2047, 2048, -(2**31))), max_wait_s=pick(_NUMBERS)
                )
                for _ in range(self._draw.byte() % 3)
            ),
            decision="",
        )

    def _heartbeat(self) -> Pushed:
        pick = self._draw.pick
        numbers = [pick(_NUMBERS) for _ in range(3)]
        return Heartbeat(
            pool=PoolId(pick((POOL, POOL, ""))),
            version=self._version(),
            time_s=numbers[0],
            wall_s=numbers[1],
            hold_s=numbers[2],
        )

    def _rebase(self) -> Pushed:
        pick = self._draw.pick
        return RebaseNotice(
            pool=PoolId(pick((POOL, POOL, ""))),
            target=pick(("", "e1", "gw", "e2")),
            version=self._version(),
            author=pick(("op", "")),
            expires_wall_s=pick(_NUMBERS),
        )


class _Listening:
    """One receiver and what must hold of it."""

    def __init__(self, conversation: Conversation) -> None:
        self._talk = conversation
        self._taken: Version | None = None

    def hears(self, message: PusherMessage, now_s: float, wall_s: float, values: dict[str, Value]) -> bool:
        """Hear it and judge what is said; whether anything may have been set by it."""
        log_id = self._talk.receiver.held.log_id
        said = self._talk.hear(message, now_s=now_s, wall_s=wall_s)
        for answer in said:
            receiver_message(answer).SerializeToString()
        acks = [answer for answer in said if isinstance(answer, Ack)]
        if message.WhichOneof("body") in ("directive", "table"):
            assert len(acks) == 1
        held = self._talk.receiver.held.version
        if self._talk.receiver.held.log_id != log_id:
            self._taken = None  # another log's positions
        if (
            held is not None
            and self._taken is not None
            and (held.log_id, held.partition)
            == (
                self._taken.log_id,
                self._taken.partition,
            )
        ):
            assert (held.epoch, held.revision) >= (self._taken.epoch, self._taken.revision), "a version went back"
        self._taken = held or self._taken
        del values
        return any(ack.status is not AckStatus.NACK for ack in acks)


def receiver(data: bytes) -> None:
    """Messages to an engine's receiver and to a gateway's, and seconds between them."""
    draw = Draw(data)
    with scratch() as folder:
        bench = Bench(folder / "engine", limits=LIMITS)
        gateway = FakeGateway()
        target = Target(pool=POOL, kind=TargetKind.GATEWAY, name="gw", incarnation=Incarnation("g1"))
        surface = TableSurface(gateway, TableDefaults())
        table = Receiver(
            target, surface, ReceiverStore(folder / "gw"), LIMITS, seed=7, now_s=bench.now_s, wall_s=bench.wall_s
        )
        engines, gateways = _Listening(Conversation(bench.receiver)), _Listening(Conversation(table))
        for _ in range(MOST_MESSAGES):
            if not draw.left:
                break
            seconds = draw.pick((0.0, 0.5, 1.0, 30.0))
            if seconds:
                bench.after(seconds)
                table.poll(now_s=bench.now_s, wall_s=bench.wall_s)
                _within(bench, surface, gateway)
            message = _Mad(draw).says()
            if message is None:
                continue
            was, weights = dict(bench.engine.values), dict(gateway.weights)
            if not engines.hears(message, bench.now_s, bench.wall_s, was):
                assert was == bench.engine.values
            if not gateways.hears(message, bench.now_s, bench.wall_s, was):
                assert weights == gateway.weights
            _within(bench, surface, gateway)
        assert set(bench.engine.values) == set(AT_LAUNCH)


def _within(bench: Bench, surface: TableSurface, gateway: FakeGateway) -> None:
    """Everything set is within its bounds, and the gateway serves."""
    for spec in SPECS:
        assert spec.refuse(bench.engine.values[spec.name]) is None
    for name, value in surface.read().items():
        spec_of = surface.spec(name)
        assert spec_of is not None
        assert spec_of.refuse(value) is None
    assert any(gateway.weights.values())
