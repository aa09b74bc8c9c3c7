"""The long-context collapse as a section of the report; it needs no table, because what was reported is a sentence."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flyball_twin.validation.long_context import (
    CASES,
    COMPARED,
    CONCURRENCIES,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REPORTED,
    STEADY_S,
    CaseResult,
    collapse,
)
from flyball_twin.validation.seam import Grid, Section

NAME = "long_context"
PICTURE = "twin-long-context.png"


def long_context_section(pictures: Path | None) -> Section:
    """Serve all cases, and draw them into `pictures` if asked. Takes some seconds."""
    results = [collapse(case) for case in CASES]
    if pictures is not None:
        from flyball_twin.validation.pictures import draw_collapse

        draw_collapse(results, pictures / PICTURE)
    return Section(
        kind=NAME,
        details={
            "reported_inflation": list(REPORTED),
            "prompt_tokens": PROMPT_TOKENS,
            "output_tokens": OUTPUT_TOKENS,
            "steady_s": STEADY_S,
            "cases": [_case(result) for result in results],
        },
        grids=[_latencies(results), _parts(results)],
        notes=(
            f"Reported: {REPORTED[0]:g} to {REPORTED[1]:g} times the latency of one, at {COMPARED} requests at once.",
            f"`steadily`: {COMPARED} in the time of one alone, for {STEADY_S / 60:g} minutes; cap free / held at 1.",
            f"`left`: what the parts leave of the least that was reported, {REPORTED[0]:g}x.",
            "Nothing is fitted. `by piece`: requests are let in as soon as the first piece of their prompt fits.",
        ),
    )


def _case(result: CaseResult) -> dict[str, object]:
    return {
        **asdict(result.case),
        "kv_use_of_one": result.kv_use,
        "prefill_at_peaks_s": result.prefill_at_peaks_s,
        "free": [asdict(latency) for latency in result.free],
        "held": [asdict(latency) for latency in result.held],
        "parts": asdict(result.parts),
        "inflation": result.parts.inflation,
        "unexplained": result.parts.unexplained,
        "steady": asdict(result.steady),
    }


def _latencies(results: Sequence[CaseResult]) -> Grid:
    rows = [
        [
            result.case.name,
            f"{result.kv_use:.0%}",
            f"{result.free[0].ttft_s:.1f} ({result.prefill_at_peaks_s:.1f})",
            *(f"{free.e2e_s:.0f} / {held.e2e_s:.0f}" for free, held in zip(result.free, result.held, strict=True)),
        ]
        for result in results
    ]
    return Grid(
        title="Long context: median latency in seconds, cap free / held at 1, by requests at once",
        heads=("case", "KV of one", "prefill (peaks)", *map(str, CONCURRENCIES)),
        rows=rows,
    )


def _parts(results: Sequence[CaseResult]) -> Grid:
    rows = [
        [
            result.case.name,
            f"{result.parts.alone_s:.1f}",
            f"+{result.parts.bandwidth_s:.1f}",
            f"+{result.parts.prefill_s:.1f}",
            f"+{result.parts.memory_s:.1f}",
            f"{result.parts.inflation:.1f}x",
            f"{result.parts.unexplained:.1f}x",
            f"{result.steady.free_s / result.parts.alone_s:.0f}x / {result.steady.held_s / result.parts.alone_s:.0f}x",
        ]
        for result in results
    ]
    heads = ("case", "alone", "bandwidth", "prefill", "memory", "in all", "left", "steadily")
    return Grid(title=f"Long context: where the seconds of {COMPARED} at once come from", heads=heads, rows=rows)
