"""`flyball bench twin`: how fast the simulation is, without control and with all of it.

Whatever is compared is measured in the same call, in turns where that is a ratio. What is too long to be played in full
is scaled up from a slice, and said to be. Nothing is promised here: the figures are of this machine and this moment.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flyball_cli.bench_twin_runs import (
    GPU,
    MODEL,
    Ran,
    Workload,
    peak_rss_mb,
    run_bare,
    run_governed,
    workload,
)
from flyball_cli.wording import aligned

SCHEMA = "flyball.bench-twin/1"
ENGINES = 8
BEATS_S = (1.0, 5.0)
"""The beats that are measured with control: what controllers and agents keep by default, and the longest that a
controller may be told to."""

AIMS = {"requests_per_s": 20_000.0, "week_s": 120.0}
"""Of bare runs."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is played."""

    turns: int
    """Of one engine, leaping and step by step."""
    single_s: float
    fleet_s: float
    """Of the fleet without control, unless the trace is the week: that is played in full."""
    beats: int
    """Of a governed fleet; a quarter of them first."""


FULL = Sizes(turns=3, single_s=6_000.0, fleet_s=12_000.0, beats=1_200)
SHORT = Sizes(turns=1, single_s=300.0, fleet_s=600.0, beats=40)


@dataclass(slots=True, kw_only=True)
class TwinSpeed:
    """What was measured."""

    load: Workload
    leaping: list[Ran]
    stepped: list[Ran]
    scored: Ran
    single_governed: Ran
    fleet: tuple[Ran, Ran]
    """A quarter of the stretch, and all of it."""
    governed: dict[float, tuple[Ran, Ran]]
    """By beat: a quarter of the beats, and all of them."""


async def measure_twin(trace: Path | None, sizes: Sizes, say: Say) -> TwinSpeed:
    """Measure. Raises `Rejected` for a trace that cannot be played or is shorter than what is played of it."""
    load = workload(trace)
    single_s, fleet_s = min(sizes.single_s, load.length_s), min(sizes.fleet_s, load.length_s)
    if load.is_the_week and sizes is FULL:
        fleet_s = load.length_s
    say("one engine, leaping and step by step, in turns")
    run_bare(load, 1, single_s)  # the first of anything is slower
    leaping, stepped = [], []
    for _ in range(sizes.turns):
        leaping.append(run_bare(load, 1, single_s))
        stepped.append(run_bare(load, 1, single_s, stepped=True))
    scored = run_bare(load, 1, single_s, scored=True)
    say(f"{ENGINES} engines without control, {fleet_s:,.0f} s")
    fleet = run_bare(load, ENGINES, fleet_s / 4), run_bare(load, ENGINES, fleet_s)
    governed = {}
    for beat_s in BEATS_S:
        say(f"{ENGINES} engines with control, a beat every {beat_s:g} s")
        run_s = sizes.beats * beat_s
        governed[beat_s] = (
            await run_governed(load, ENGINES, run_s / 4, beat_s),
            await run_governed(load, ENGINES, run_s, beat_s),
        )
    say("one engine with control")
    single_governed = await run_governed(load, 1, sizes.beats * BEATS_S[0], BEATS_S[0])
    return TwinSpeed(
        load=load,
        leaping=leaping,
        stepped=stepped,
        scored=scored,
        single_governed=single_governed,
        fleet=fleet,
        governed=governed,
    )


def twin_document(found: TwinSpeed) -> dict[str, Any]:
    """The documented JSON."""
    bare, (_, governed) = found.fleet[1], found.governed[BEATS_S[0]]
    every = [*found.leaping, *found.stepped, found.scored, found.single_governed, *found.fleet]
    every += [ran for pair in found.governed.values() for ran in pair]
    ratios = [
        leap.requests_per_s / step.requests_per_s for leap, step in zip(found.leaping, found.stepped, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "requests_per_s": {
            "bare": round(median(ran.requests_per_s for ran in found.leaping), 1),
            "controlled": round(found.single_governed.requests_per_s, 1),
        },
        "week_s": {"bare": _week_s(found.load, bare), "controlled": round(governed.week_s, 1)},
        "week_is": {"bare": _week_is(found.load, bare), "controlled": _week_is(found.load, governed)},
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "leap_vs_step": round(median(ratios), 2),
        "stepped_requests_per_s": round(median(ran.requests_per_s for ran in found.stepped), 1),
        "scored_requests_per_s": round(found.scored.requests_per_s, 1),
        "aims": AIMS,
        "beats": [_beat(beat_s, ran) for beat_s, (_, ran) in found.governed.items()],
        "rss_mb": {
            "bare": _memory(*found.fleet),
            "controlled": _memory(*found.governed[BEATS_S[0]]),
        },
        "single": _single(found.leaping),
        "fleet": {"engines": ENGINES, "gpu": GPU, "model": MODEL, "nodes": 1, "slice_s": round(bare.slice_s, 1)},
        "trace": {
            "name": found.load.name,
            "speed": round(found.load.speed, 3),
            "requests_per_s": round(found.load.requests / found.load.length_s, 3),
            "length_s": round(found.load.length_s, 1),
        },
        "clock_over_cpu": round(sum(ran.clock_s for ran in every) / sum(ran.cpu_s for ran in every), 2),
        "machine": {"cpu": _cpu(), "python": platform.python_version()},
    }


def _beat(beat_s: float, ran: Ran) -> dict[str, float]:
    return {
        "beat_s": beat_s,
        "ms_per_beat": round(ran.cpu_s / ran.beats * 1e3, 3),
        "week_s": round(ran.week_s, 1),
        "slice_s": ran.slice_s,
    }


def _single(turns: Sequence[Ran]) -> dict[str, float]:
    first = turns[0]
    return {
        "slice_s": round(first.slice_s, 1),
        "requests": first.requests,
        "turns": len(turns),
        "running": round(first.running, 2),
        "busy_share": round(first.busy_share, 3),
    }


def _memory(quarter: Ran, whole: Ran) -> dict[str, float]:
    return {
        "slice_s": round(quarter.slice_s, 1),
        "after_1x": round(quarter.rss_mb, 1),
        "after_4x": round(whole.rss_mb, 1),
    }


def _week_s(load: Workload, ran: Ran) -> float:
    return round(ran.cpu_s if load.is_the_week and ran.slice_s == load.length_s else ran.week_s, 1)


def _week_is(load: Workload, ran: Ran) -> str:
    if load.is_the_week and ran.slice_s == load.length_s:
        return "measured"
    return f"extrapolated from {ran.slice_s:.0f} s"


def _cpu() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def twin_lines(document: Mapping[str, Any]) -> list[str]:
    """The same in words."""
    speed, week, week_is = document["requests_per_s"], document["week_s"], document["week_is"]
    single, fleet, memory = document["single"], document["fleet"], document["rss_mb"]
    rows: list[tuple[str, ...]] = [
        ("", "bare", "with control"),
        ("requests/s, one engine", f"{speed['bare']:,.0f}", f"{speed['controlled']:,.0f}"),
        (f"a week on {fleet['engines']} engines", f"{week['bare']:,.0f} s", f"{week['controlled']:,.0f} s"),
        ("", *(week_is[kind] for kind in ("bare", "controlled"))),
        *(
            (
                f"memory after {times}x",
                *(f"{memory[kind][f'after_{times}x']:,.0f} MB" for kind in ("bare", "controlled")),
            )
            for times in (1, 4)
        ),
    ]
    beats = [
        f"{beat['ms_per_beat']:.2f} ms, a week {beat['week_s']:,.0f} s at {beat['beat_s']:g} s"
        for beat in document["beats"]
    ]
    stepped, scored = document["stepped_requests_per_s"], document["scored_requests_per_s"]
    played = f"trace {document['trace']['name']}, {document['trace']['requests_per_s']:.2f} requests/s"
    cpu, slower = document["machine"]["cpu"], document["clock_over_cpu"]
    return [
        f"{fleet['model']} on {fleet['gpu']}, {played}",
        *aligned(rows),
        f"  leaping over stepping: {document['leap_vs_step']:.1f} ({stepped:,.0f} requests/s step by step)",
        f"  with its score kept, bare: {scored:,.0f} requests/s",
        f"  a beat with control: {'; '.join(beats)}",
        f"  one engine: {single['running']:.1f} requests on the average, busy {single['busy_share']:.0%} of the time",
        f"  seconds are of one core of {cpu}; by the clock {slower:.2f} times as long",
    ]
