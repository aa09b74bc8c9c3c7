"""The audit of a running fleet, put together from what its controllers serve.

The same as `flyball_cli.audit` reads from a log, but for two things that only a log holds: what
receivers are told now is taken from the owner's status, as is the last tick, and attaches from before
are not known.
"""

from collections.abc import Iterable

from flyball_cli.audit import Audit
from flyball_cli.going_back import Question, Stretch, go_back
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.merging import FleetStatus, Owned
from flyball_cli.operating.status_document import mode_of
from flyball_core.errors import InvalidDocument
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, Incarnation, LogId, PoolId
from flyball_core.inputs import Attach, TargetKind
from flyball_core.outputs import Directive, LaneRule, Route, RoutingTable, TickRecord
from flyball_policies.reading import read_document
from flyball_proto.codec.words import TARGET_KINDS, read_known, read_version
from flyball_proto.v1.services_pb2 import DecisionsRequest, TargetStatus

_WEIGHT, _CAP = "weight:", "cap:"


async def read_remote_audit(fleet: Fleet, asked: Question) -> Audit:
    """The audit of the pools that are meant, as far back as answers what is asked. Raises `FlyballError`."""
    status = await fleet.status()
    if asked.pool is not None:
        status.pool(asked.pool)
    owned = [one for one in status.pools.values() if asked.pool in (None, one.status.pool)]
    meant = _meant(owned, asked.name) or owned
    receivers = {target.target for one in meant for target in one.status.targets}
    enough = asked.enough([one.status.pool for one in meant], receivers)
    audit = Audit(where=_log(status))
    for one in meant:
        _take_tick(audit, one)
        back = await go_back(_Served(fleet, one), enough)
        audit.take_back(back, [one.status.pool])
        text = (await fleet.policy(one.address, one.status.pool)).text
        lanes = _lanes(text)
        for target in one.status.targets:
            _take_target(audit, one, target, lanes)
    return audit


def _log(status: FleetStatus) -> str:
    return ", ".join(sorted({answer.status.log for answer in status.answers})) or "no log"


def _meant(pools: list[Owned], name: str | None) -> list[Owned]:
    """The pools that a name can be of: of a decision its own, of a receiver those that have it."""
    if name is None:
        return []
    of_decision = [one for one in pools if one.status.pool in (name, name.rpartition("@")[0])]
    return of_decision or [one for one in pools if name in {target.target for target in one.status.targets}]


class _Served:
    """The audit of one pool behind a controller's door, as `Stretches`."""

    def __init__(self, fleet: Fleet, owned: Owned) -> None:
        self._fleet, self._owned = fleet, owned

    async def before(self, offset: int | None, last: int) -> Stretch:
        """The `last` offsets before `offset`, or before the end. Raises `FlyballError`."""
        pool = self._owned.status
        request = DecisionsRequest(
            pool=pool.pool, partition=pool.partition, without_ticks=True, last=last, before_offset=offset or 0
        )
        begin: int | None = None
        values: list[bytes] = []
        unreadable = 0
        async for page in self._fleet.decisions(self._owned.address, request):
            begin = page.from_offset if begin is None else begin
            unreadable += page.unreadable
            # A controller that does not know `without_ticks` sends them: they are not decision records.
            told = (entry.record for entry in page.entries if entry.record.HasField("decision"))
            values += [record.SerializeToString(deterministic=True) for record in told]
        return Stretch(begin or 0, values, unreadable)


def _take_tick(audit: Audit, owned: Owned) -> None:
    """What the pool's owner says of its last tick, as the tick's record."""
    pool = owned.status
    audit.pools.add(pool.pool)
    if not pool.wall_s:
        return
    tick = TickRecord(
        pool=PoolId(pool.pool),
        version=Version(log_id=LogId(""), partition=pool.partition, epoch=pool.epoch, revision=0),
        time_s=pool.time_s,
        wall_s=pool.wall_s,
        inputs_digest=0,
        mode=mode_of(pool),
        regime=pool.regime,
        confidence=pool.confidence,
        alarm=False,
    )
    audit.take_tick(tick)


def _lanes(text: str) -> tuple[LaneRule, ...]:
    try:
        lanes = read_document(text).lanes if text else ()
    except InvalidDocument:
        return ()  # of a newer Flyball: the rest can be told without its lanes
    return tuple(LaneRule(lane=one.name, priority=one.priority, max_wait_s=one.longest_wait_s) for one in lanes)


def _take_target(audit: Audit, owned: Owned, target: TargetStatus, lanes: tuple[LaneRule, ...]) -> None:
    if not TARGET_KINDS.knows(target.kind):
        return
    kind = TARGET_KINDS.member(target.kind, TargetKind)
    pool = PoolId(owned.status.pool)
    key = (kind, str(pool), target.target)
    held, wanted = read_known(target.effective), read_known(target.wanted)
    audit.attached[key] = Attach(
        pool=pool, kind=kind, target=target.target, incarnation=Incarnation(target.incarnation), effective=held
    )
    if not target.HasField("told"):
        return
    version = read_version(target.told)
    decision = _decision(audit, str(pool), target.target, version.revision)
    if kind is TargetKind.ENGINE:
        audit.told[key] = Directive(
            pool=pool,
            engine=EngineId(target.target),
            incarnation=Incarnation(""),
            capability_hash="",
            version=version,
            values=wanted,
            decision=decision,
        )
        return
    audit.told[key] = RoutingTable(
        pool=pool,
        gateway=GatewayId(target.target),
        version=version,
        routes=_routes({**held, **wanted}),
        lanes=lanes,
        decision=decision,
    )


def _decision(audit: Audit, pool: str, target: str, revision: int) -> str:
    """The decision that a version came of: the last one about the target up to it, else the version's own tick."""
    own = f"{pool}@{revision}"
    if own in audit.stories:
        return own
    about = [
        story.record.version.revision
        for story in audit.decisions(pool)
        if story.record is not None and target in {verdict.proposal.target for verdict in story.record.verdicts}
    ]
    return f"{pool}@{max((one for one in about if one <= revision), default=revision)}"


def _routes(settings: dict[str, bool | int | float | str]) -> tuple[Route, ...]:
    return tuple(
        Route(
            engine=EngineId(engine),
            weight=_whole(settings, _WEIGHT + engine),
            in_flight_cap=_whole(settings, _CAP + engine),
        )
        for engine in _engines(settings)
    )


def _engines(settings: Iterable[str]) -> list[str]:
    return sorted({name.removeprefix(_WEIGHT) for name in settings if name.startswith(_WEIGHT)})


def _whole(settings: dict[str, bool | int | float | str], name: str) -> int:
    value = settings.get(name, 0)
    return value if isinstance(value, int) else 0
