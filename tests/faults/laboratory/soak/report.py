"""What a soak found: a document for programs, and the same as a page for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from laboratory.soak.rounds import Round
from laboratory.soak.watching import Sample, Watch, lives, slope

SCHEMA = "flyball.soak/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What record and log say once all is over."""

    lost: Sequence[str]
    unexpected: Sequence[str]
    recovered: int
    broken: Sequence[str]
    """Every finding that breaks a promise, those lost and unexpected among them."""
    replay: str
    """What replaying the log said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What clients and the operator saw."""

    requests: int
    finished: int
    failed: int
    orders_taken: int
    orders_unanswered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """Everything that a soak gives to report."""

    seed: int
    minutes: float
    watch: Watch
    rounds: Sequence[Round]
    served: Served
    judged: Judged
    inputs: int
    """Records of the inputs."""


def document(soaked: Soaked) -> dict[str, Any]:
    """The soak as one JSON document."""
    watch, rounds = soaked.watch, soaked.rounds
    settled = [one.settled_s for one in rounds if one.settled_s is not None]
    sizes = [size for _, size in watch.disk]
    return {
        "schema": SCHEMA,
        "seed": soaked.seed,
        "minutes": round(soaked.minutes, 1),
        "rounds": [asdict(one) for one in rounds],
        "faults": sum(one.faults for one in rounds),
        "settled_s": {"most": max(settled, default=None), "never": sum(one.settled_s is None for one in rounds)},
        "parts": {name: _part(samples) for name, samples in sorted(watch.samples.items())},
        "disk_mib": {"first": round(sizes[0], 1), "most": round(max(sizes), 1), "last": round(sizes[-1], 1)},
        "served": asdict(soaked.served),
        "inputs": soaked.inputs,
        "promises": asdict(soaked.judged),
    }


def _part(samples: Sequence[Sample]) -> dict[str, Any]:
    grown = slope(samples)
    sizes = [sample.rss_mib for sample in samples]
    return {
        "starts": len({sample.life for sample in samples}),
        "rss_mib": {"last": round(sizes[-1], 1), "most": round(max(sizes), 1)},
        "rss_mib_every_10_min": _every(samples, 600.0),
        "slope_mib_per_h": None if grown is None else round(grown.mib_per_h, 2),
        "slope_error_mib_per_h": None if grown is None else round(grown.error_mib_per_h, 2),
        "slope_over_s": None if grown is None else round(grown.over_s),
        "descriptors": {
            "first": samples[0].descriptors,
            "last": samples[-1].descriptors,
            "most": max(sample.descriptors for sample in samples),
        },
    }


def _every(samples: Sequence[Sample], seconds: float) -> list[float]:
    """Memory of the longest life at its beginning and after every so many seconds: whether growth wears off."""
    longest = max(lives(samples), key=lambda life: life[-1].at_s - life[0].at_s)
    found: list[float] = []
    for sample in longest:
        if sample.at_s - longest[0].at_s >= len(found) * seconds:
            found.append(round(sample.rss_mib, 1))
    return found


def page(found: dict[str, Any]) -> str:
    """The document in words and tables (Markdown)."""
    promises, served, disk = found["promises"], found["served"], found["disk_mib"]
    head = (
        f"Seed {found['seed']}, {found['minutes']:g} minutes, {len(found['rounds'])} rounds, {found['faults']} faults"
    )
    clients = f"Clients: {served['requests']} requests, {served['finished']} finished, {served['failed']} failed."
    orders = f"Orders: {served['orders_taken']} taken, {served['orders_unanswered']} not answered in time."
    kept = ", ".join(f"{len(promises[name])} {name}" for name in ("lost", "unexpected", "broken"))
    lines = [
        f"{head}, {found['inputs']:,} inputs.",
        "",
        "| Round | Faults | Itself again after |",
        "|---|---|---|",
        *(f"| {one['number']} | {one['faults']} | {_settled(one)} |" for one in found["rounds"]),
        "",
        "| Part | Starts | Memory at the end, at most | Growth of its longest life | Descriptors first, last, most |",
        "|---|---|---|---|---|",
        *(_row(name, part) for name, part in found["parts"].items()),
        "",
        f"Disk: {disk['first']:.0f} MiB at the beginning, {disk['most']:.0f} at most, {disk['last']:.0f} at the end.",
        "",
        f"{clients} {orders}",
        "",
        f"Promises: {kept}; {promises['recovered']} recovered. Replay: {promises['replay']}.",
        *(f"- {finding}" for finding in promises["broken"]),
    ]
    return "\n".join(lines) + "\n"


def _settled(one: dict[str, Any]) -> str:
    return f"{one['settled_s']:.1f} s" if one["settled_s"] is not None else f"never: {one['missing']}"


def _row(name: str, part: dict[str, Any]) -> str:
    held, files = part["rss_mib"], part["descriptors"]
    growth = "too short a life"
    if part["slope_mib_per_h"] is not None:
        growth = (
            f"{part['slope_mib_per_h']:+.2f} ± {part['slope_error_mib_per_h']:.2f} MiB/h "
            f"over {part['slope_over_s'] / 60:.0f} min"
        )
    return (
        f"| {name} | {part['starts']} | {held['last']:.0f}, {held['most']:.0f} MiB | {growth} "
        f"| {files['first']}, {files['last']}, {files['most']} |"
    )
