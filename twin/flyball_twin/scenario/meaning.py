"""What a scenario's document means: its sections as the data model, and whether they fit each other.

Every fault is kept with its place; nothing is opened but the policy documents that are named.
"""

from collections.abc import Mapping

from flyball_core.errors import Rejected
from flyball_core.ids import PoolId
from flyball_twin.fleet.faults import Fault, FaultKind
from flyball_twin.fleet.scoring import Phase
from flyball_twin.scenario.fleet_plans import FleetPlanner
from flyball_twin.scenario.forms import Entry, ScenarioReader
from flyball_twin.scenario.model import (
    DiurnalSource,
    MmppSource,
    PoolPlan,
    Scenario,
    SessionSource,
    Source,
    Stream,
    TraceSource,
)
from flyball_twin.traffic.files import find_trace

NEVER = float("inf")
MOST_TURNS = 1_000_000
"""Jumps or stretches of a stream on average: what is shorter asks for nothing that could be told from a mean."""
LEAST_KEPT = 0.001
"""Least share of a trace that is kept: what is left out is read all the same."""
SHORTEST_BEAT_S = 0.1
LONGEST_BEAT_S = 5.0
"""As `controller.tick` and `agent.period` of the configuration file."""


def meaning(reader: ScenarioReader, entry: Entry, name: str) -> Scenario:
    """The scenario of a document whose every value is of the right form; what is wrong with it the reader keeps."""
    planner = FleetPlanner(reader)
    pools = planner.pools(entry.get("pools"), entry.get("objectives", {}))
    duration_s = entry.get("duration")
    if not duration_s > 0.0:
        reader.fault(entry.at("duration"), "a scenario lasts longer than nothing")
        duration_s = NEVER
    streams = [_stream(reader, one, pools, duration_s, lanes_known=planner.lanes_known) for one in entry.get("traffic")]
    beat_s = entry.get("beat", 1.0)
    if not SHORTEST_BEAT_S <= beat_s <= LONGEST_BEAT_S:
        reader.fault(entry.at("beat"), f"a beat lasts {SHORTEST_BEAT_S:g} to {LONGEST_BEAT_S:g} s, not {beat_s:g} s")
        beat_s = 1.0
    seeds = tuple(entry.get("seeds", [1]))
    if len(set(seeds)) != len(seeds):
        reader.fault(entry.at("seeds"), "a seed is given twice")
    return Scenario(
        name=name,
        title=entry.get("title", name),
        pools=pools,
        slos=tuple(planner.slos.values()),
        streams=tuple(streams),
        faults=tuple(_fault(reader, one, pools) for one in entry.get("faults", [])),
        phases=_phases(reader, entry.get("phases", []), duration_s),
        seeds=seeds,
        duration_s=duration_s,
        grace_s=entry.get("grace", 60.0),
        beat_s=beat_s,
        compare=entry.get("compare", True),
        folder=reader.folder,
    )


def _stream(
    reader: ScenarioReader, entry: Entry, pools: tuple[PoolPlan, ...], duration_s: float, *, lanes_known: bool
) -> Stream:
    from_s, to_s = entry.get("from", 0.0), entry.get("to", duration_s)
    _forward(reader, entry, from_s, to_s, "a stream")
    if to_s > duration_s:
        reader.fault(entry.at("to"), "the stream ends after the scenario", "make `duration` longer, or leave `to` out")
    by_name = {str(plan.pool): plan for plan in pools}
    chosen = _shares(reader, entry, "pools", by_name)
    lanes: dict[str, None] = {}
    for plan in pools:
        if plan.pool in chosen:
            lanes.update(dict.fromkeys(rule.lane for rule in plan.lanes))
    shares = _shares(reader, entry, "lanes", lanes) if lanes_known else {}
    for plan in pools:
        missing = [lane for lane in shares if lane not in [rule.lane for rule in plan.lanes]]
        if plan.pool in chosen and missing and all(lane in lanes for lane in missing):
            reader.fault(entry.at("lanes"), f"pool {plan.pool!r} has no lane {missing[0]!r}")
    source = _source(reader, entry, to_s - from_s)
    return Stream(
        source=source, from_s=from_s, to_s=to_s, pools={PoolId(name): chosen[name] for name in chosen}, lanes=shares
    )


def _shares(reader: ScenarioReader, entry: Entry, key: str, known: Mapping[str, object]) -> dict[str, float]:
    """The given shares; the only one there is gets everything where none are given."""
    given: dict[str, float] | None = entry.get(key)
    if given is None:
        if len(known) > 1:
            hint = f"add `{key}: {{{', '.join(f'{name}: ...' for name in known)}}}`"
            reader.fault(entry.node, f"there are several {key}, and the stream does not say which it is for", hint)
        return dict.fromkeys(known, 1.0)
    for name in given:
        if name not in known:
            reader.unknown(entry.at(key), key.removesuffix("s"), name, known)
    return given


def _source(reader: ScenarioReader, entry: Entry, span_s: float) -> Source:
    if (trace := entry.get("trace")) is not None:
        return _trace(reader, trace, span_s)
    if (mmpp := entry.get("mmpp")) is not None:
        states: list[Entry] = mmpp.get("states")
        for state in states:
            if not state.get("stay") > 0.0:
                reader.fault(state.at("stay"), "a state lasts longer than nothing")
        if not any(state.get("rate") > 0.0 for state in states):
            reader.fault(mmpp.at("states"), "no state has a rate above 0")
        _seldom(reader, mmpp, "states", span_s * len(states), sum(state.get("stay") for state in states))
        return MmppSource(
            rates_rps=tuple(state.get("rate") for state in states),
            mean_stay_s=tuple(state.get("stay") for state in states),
            prompt_tokens=_spread(mmpp.get("prompt")),
            output_tokens=_spread(mmpp.get("output")),
            longest_tokens=mmpp.get("longest", 120_000),
        )
    if (day := entry.get("diurnal")) is not None:
        if not day.get("period", 1.0) > 0.0:
            reader.fault(day.at("period"), "a period is longer than nothing")
        return DiurnalSource(
            mean_rps=day.get("rate"),
            swing=day.get("swing"),
            period_s=day.get("period", 86_400.0),
            shift_s=day.get("shift", 0.0),
            prompt_tokens=_spread(day.get("prompt")),
            output_tokens=_spread(day.get("output")),
            longest_tokens=day.get("longest", 120_000),
        )
    return _sessions(reader, entry.get("sessions"))


def _trace(reader: ScenarioReader, entry: Entry, span_s: float) -> TraceSource:
    _findable(reader, entry, "name")
    from_s, to_s = entry.get("from", 0.0), entry.get("to", NEVER)
    _forward(reader, entry, from_s, to_s, "a cut")
    splice_s = entry.get("splice")
    if splice_s is not None and from_s < to_s and not 0.0 < splice_s <= to_s - from_s:
        reader.fault(entry.at("splice"), "stretches are longer than nothing and no longer than the cut")
    elif splice_s is not None:
        _seldom(reader, entry, "splice", span_s * entry.get("speed", 1.0), splice_s)
    if entry.get("keep", 1.0) < LEAST_KEPT:
        reader.fault(entry.at("keep"), f"at least {LEAST_KEPT:.1%} of a trace is kept")
    return TraceSource(
        trace=entry.get("name"),
        from_s=from_s,
        to_s=to_s,
        speed=entry.get("speed", 1.0),
        keep=entry.get("keep", 1.0),
        splice_s=splice_s,
        repeat=entry.get("repeat", False),
    )


def _sessions(reader: ScenarioReader, entry: Entry) -> SessionSource:
    fields = {
        "steps": "steps",
        "first_prompt": "first_prompt_tokens",
        "added": "added_tokens",
        "output": "output_tokens",
        "think": "think_s",
    }
    given = {field: _spread(entry.get(key)) for key, field in fields.items() if key in entry.values}
    if "trace" in entry.values:
        _findable(reader, entry, "trace")
        for key in (*fields, "opening"):
            if key in entry.values:
                reader.fault(entry.at(key), f"{key!r} is for sessions that are drawn; the trace says it here")
    return SessionSource(
        sessions_per_s=entry.get("rate"),
        trace=entry.get("trace", ""),
        opening_tokens=entry.get("opening", 0),
        longest_tokens=entry.get("longest", 120_000),
        **given,
    )


def _seldom(reader: ScenarioReader, entry: Entry, key: str, span_s: float, each_s: float) -> None:
    """What a stream does again and again it does at most `MOST_TURNS` times on average."""
    if 0.0 < each_s < span_s / MOST_TURNS and span_s < NEVER:
        hint = f"make each at least {span_s / MOST_TURNS:.3g} s long on average"
        reader.fault(entry.at(key), f"more than {MOST_TURNS:,} of these are in the stream", hint)


def _spread(entry: Entry) -> tuple[float, float]:
    return entry.get("median"), entry.get("spread")


def _findable(reader: ScenarioReader, entry: Entry, key: str) -> None:
    try:
        find_trace(entry.get(key), reader.folder)
    except Rejected as error:
        reader.fault(entry.at(key), str(error))


def _fault(reader: ScenarioReader, entry: Entry, pools: tuple[PoolPlan, ...]) -> Fault:
    kind = next(kind for kind in FaultKind if kind.value in entry.values)
    of_nodes = kind in (FaultKind.TELEMETRY_LOSS, FaultKind.CLOCK_SKEW)
    known = {plan.node if of_nodes else str(plan.engine) for pool in pools for plan in pool.engines}
    target = entry.get(kind.value)
    if target not in known:
        reader.unknown(entry.at(kind.value), "node" if of_nodes else "engine", target, sorted(known))
    from_s, to_s = entry.get("from"), entry.get("to", NEVER)
    _forward(reader, entry, from_s, to_s, "a fault")
    return Fault(
        kind=kind,
        target=target,
        from_s=from_s,
        to_s=to_s,
        factor=entry.get("factor", 1.0),
        skew_s=entry.get("skew", 0.0),
    )


def _phases(reader: ScenarioReader, entries: list[Entry], duration_s: float) -> tuple[Phase, ...]:
    """Phases in order; one without an end goes to the next one's beginning."""
    begins = [entry.get("from") for entry in entries] + [duration_s]
    phases: list[Phase] = []
    for entry, following_s in zip(entries, begins[1:], strict=True):
        from_s, to_s = entry.get("from"), entry.get("to", following_s)
        _forward(reader, entry, from_s, to_s, "a phase")
        if phases and from_s < phases[-1].to_s:
            reader.fault(entry.at("from"), "the phase begins before the one above it ends")
        phases.append(Phase(name=entry.get("name"), from_s=from_s, to_s=to_s))
    return tuple(phases)


def _forward(reader: ScenarioReader, entry: Entry, from_s: float, to_s: float, what: str) -> None:
    if not from_s < to_s:
        place = "to" if "to" in entry.nodes else "from"
        reader.fault(entry.at(place), f"{what} runs forward, not from {from_s:g} s to {to_s:g} s")
