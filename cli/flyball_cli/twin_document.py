"""What a scenario's runs come to: one documented JSON document.

The document's shape is described in docs/commands.md; keys are only ever added.
"""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from flyball_cli.demo_report import shifts_document
from flyball_cli.twin_playing import Played
from flyball_twin.fleet.scoring import Score
from flyball_twin.governed.scorecard import Scorecard
from flyball_twin.scenario.model import PoolPlan, Scenario

SCHEMA = "flyball.twin-run/1"

HOUR_S = 3600.0


def document(runs: Sequence[Played]) -> dict[str, Any]:
    """The JSON document of one scenario under one or more seeds."""
    first = runs[0]
    return {
        "schema": SCHEMA,
        "scenario": _scenario(first.scenario),
        "assumed": {kind: list(said) for played in runs for kind, said in played.assumed.items()},
        "runs": [_run(played) for played in runs],
        "summary": {
            name: {
                plan.pool: {rule.lane: spreads(runs, name, plan, rule.lane) for rule in plan.lanes}
                for plan in first.scenario.pools
            }
            for name in first.cards
        },
    }


def _scenario(scenario: Scenario) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "title": scenario.title,
        "duration_s": scenario.duration_s,
        "grace_s": scenario.grace_s,
        "beat_s": scenario.beat_s,
        "pools": {
            plan.pool: {"engines": len(plan.engines), "gpus": gpus_of(plan), "balance": plan.balance}
            for plan in scenario.pools
        },
        "objectives": [asdict(slo) for slo in scenario.slos],
        "phases": [asdict(phase) for phase in scenario.phases],
        "faults": [_fault(fault) for fault in map(asdict, scenario.faults)],
    }


def _fault(fault: dict[str, Any]) -> dict[str, Any]:
    """A fault; the end of one that is never over is null, for infinity is no JSON."""
    return {**fault, "to_s": None if fault["to_s"] == float("inf") else fault["to_s"]}


def _run(played: Played) -> dict[str, Any]:
    scenario, observed = played.scenario, played.observed
    return {
        "seed": played.seed,
        "fleets": {
            name: {plan.pool: _pool(scenario, plan, card) for plan in scenario.pools}
            for name, card in played.cards.items()
        },
        "regime_s": {
            plan.pool: dict(sorted(observed.regime_s.get(str(plan.pool), {}).items())) for plan in scenario.pools
        },
        "regime_shifts": [shift for shift in shifts_document(observed) if shift["pool"] in pool_names(scenario)],
        "changes_per_knob": {
            plan.pool: {knob: number for (pool, knob), number in sorted(observed.changed.items()) if pool == plan.pool}
            for plan in scenario.pools
        },
        "stopped": observed.stopped,
        "frames": None if played.frames is None else asdict(played.frames),
        "log": played.log,
        "picture": played.picture,
        "wall_s": round(played.wall_s, 3),
    }


def pool_names(scenario: Scenario) -> set[str]:
    """The pools' names in the log, where they are governed."""
    return {str(plan.pool) for plan in scenario.pools}


def gpus_of(plan: PoolPlan) -> int:
    """GPUs of all engines of a pool."""
    return sum(engine.tensor_parallel for engine in plan.engines)


def _pool(scenario: Scenario, plan: PoolPlan, card: Scorecard) -> dict[str, Any]:
    tally = card.tally
    return {
        **_figures(tally.score(pool=plan.pool), plan, scenario),
        "lanes": {rule.lane: _lane(scenario, plan, card, rule.lane) for rule in plan.lanes},
        "phases": {
            phase.name: {
                "arrivals": (score := tally.score(pool=plan.pool, phase=phase.name)).arrivals,
                "attainment": dict(score.lanes),
                "slo_goodput_rps": score.slo_goodput_rps,
            }
            for phase in scenario.phases
        },
        "timeline": _timeline(plan, card),
    }


def _lane(scenario: Scenario, plan: PoolPlan, card: Scorecard, lane: str) -> dict[str, Any]:
    """A lane's figures, and the tokens a second that its finished requests were given."""
    figures = _figures(card.tally.score(pool=plan.pool, lane=lane), plan, scenario)
    return {**figures, "output_tokens_per_s": card.output_tokens.get((plan.pool, lane), 0) / scenario.duration_s}


def _figures(score: Score, plan: PoolPlan, scenario: Scenario) -> dict[str, Any]:
    return {
        "arrivals": score.arrivals,
        "finished": score.finished,
        "unfinished": dict(score.unfinished),
        "attained": score.attained,
        "attainment": score.attainment if score.arrivals else None,
        "slo_goodput_rps": score.slo_goodput_rps,
        "slo_goodput_per_gpu_h": score.attained / (gpus_of(plan) * scenario.duration_s / HOUR_S),
        "ttft_p50_s": score.ttft_p50_s,
        "ttft_p99_s": score.ttft_p99_s,
        "tpot_p50_s": score.tpot_p50_s,
        "tpot_p99_s": score.tpot_p99_s,
    }


def _timeline(plan: PoolPlan, card: Scorecard) -> dict[str, Any]:
    """Columns of equal length: what arrived in each bin and met its objective, and how the pool stood meanwhile."""
    moments = card.trail.moments(plan.pool)
    asked = {
        row.from_s: (sum(row.arrivals.values()), sum(row.attained.values())) for row in card.tally.timeline(plan.pool)
    }
    arrived = [asked.get(moment.from_s, (0, 0)) for moment in moments]
    return {
        "bin_s": card.trail.bin_s,
        "from_s": [moment.from_s for moment in moments],
        "arrivals": [arrivals for arrivals, _ in arrived],
        "attained": [attained for _, attained in arrived],
        "running": [round(moment.running, 3) for moment in moments],
        "waiting": [round(moment.waiting + moment.queued, 3) for moment in moments],
        "kv_used_max": [round(moment.kv_max, 4) for moment in moments],
        "serving": [round(moment.serving, 3) for moment in moments],
    }


SPREAD = (
    "attainment",
    "slo_goodput_per_gpu_h",
    "ttft_p50_s",
    "ttft_p99_s",
    "tpot_p50_s",
    "tpot_p99_s",
    "output_tokens_per_s",
)
"""The figures that are compared over seeds."""


def spreads(runs: Sequence[Played], fleet: str, plan: PoolPlan, lane: str) -> dict[str, dict[str, float] | None]:
    """Mean, least and greatest of each figure of a lane over the seeds; None of one that a seed has not."""
    cards = [played.cards[fleet] for played in runs]
    of_seeds = [_lane(runs[0].scenario, plan, card, lane) for card in cards]
    return {name: _spread([figures[name] for figures in of_seeds]) for name in SPREAD}


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return None
    return {"mean": fmean(known), "low": min(known), "high": max(known)}
