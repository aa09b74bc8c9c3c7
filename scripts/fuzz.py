"""Coverage-guided fuzzing of every boundary: what `tests/fuzz` promises, against input that searches for its end.

    scripts/fuzz                           every target for 60 s, one after the other
    scripts/fuzz policy times --seconds 5  two of them, for 5 s each
    scripts/fuzz --list                    the targets
    scripts/fuzz --replay policy FILE      one input again, with the traceback that it ends in
    scripts/fuzz --keep policy             choose the target's corpus anew from it and what was found since

A target's run begins with its corpus in `tests/fuzz/corpus/` and with what earlier runs found, which stands in
`.flyball/fuzz/TARGET/found/`. An input that raises, takes 20 s or 2 GiB is a find: it is written beside that
folder, and the run of that target ends. Exits with 1 if there was one.

The fuzzer itself (atheris) lives in `.venv-fuzz`, which is made when it is first needed; everything else that
the targets import is taken from `.venv`, so that what is fuzzed is what is tested. Each run is nice to others.
"""

import argparse
import logging
import os
import re
import shutil
import site
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-fuzz"
LOCK = ROOT / "requirements" / "fuzz.txt"
FOUND = ROOT / ".flyball" / "fuzz"
PLACES = ("tests", "tests/agents", "tests/fuzz")
PACKAGES = ("core", "proto", "policies", "log", "service", "controller", "agents", "twin", "planner", "cli")
INSTRUMENTED = tuple(f"flyball_{package}" for package in PACKAGES)
OF_YAML = frozenset({"policy", "configuration"})
"""Targets that look into the YAML library as well; others would only be slower for it."""

SECONDS = 60
LONGEST_S = 20
"""An input that takes longer is a find; the slowest that is none takes a tenth of a second."""
MOST_MIB = 2048
MOST_BYTES = 4096
MOST_KEPT = 16
MOST_KEPT_BYTES = 8 * 1024

Target = Callable[[bytes], None]
Lines = frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run of one target came to."""

    target: str
    executions: int
    per_s: int
    edges: int
    features: int
    finds: tuple[Path, ...]

    def __str__(self) -> str:
        reached = f"{self.edges:>6,} edges  {self.features:>7,} features"
        return f"{self.target:<20} {self.executions:>9,} runs  {self.per_s:>6,}/s  {reached}  {len(self.finds)} finds"


def main() -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing of every boundary.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which; all if none is named")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"per target (default {SECONDS})")
    parser.add_argument("--list", action="store_true", help="the targets")
    parser.add_argument(
        "--replay", nargs="+", default=[], metavar=("TARGET", "FILE"), help="run inputs once, as they are"
    )
    parser.add_argument("--keep", action="store_true", help="choose the corpus anew from it and what was found")
    asked = parser.parse_args()
    known = targets()
    if asked.list:
        print("\n".join(known))
        return 0
    names = asked.targets or asked.replay[:1] or known
    if unknown := [name for name in names if name not in known]:
        print(f"fuzz: there is no target {', '.join(unknown)}; there is {', '.join(known)}", file=sys.stderr)
        return 2
    if asked.replay:
        return replay(target_of(names[0]), [Path(file) for file in asked.replay[1:]])
    if asked.keep:
        for name in names:
            keep(name, target_of(name))
        return 0
    set_up()
    runs = [fuzz(name, asked.seconds) for name in names]
    print(
        f"{sum(run.executions for run in runs):,} runs of {len(runs)} targets, {sum(len(r.finds) for r in runs)} finds"
    )
    return 1 if any(run.finds or not run.executions for run in runs) else 0


def targets() -> Sequence[str]:
    """The names of all targets."""
    sys.path[:0] = [str(ROOT / place) for place in PLACES]
    from fuzz_targets import TARGETS

    return TARGETS


def target_of(name: str) -> Target:
    """A target, imported as the tests import it; what the product would log is not written."""
    import structlog

    from fuzz_targets import target_of as target

    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return target(name)


def set_up() -> None:
    """Make `.venv-fuzz` unless it is there, from the hashed lock."""
    done = ENVIRONMENT / ".done"
    if done.exists() and done.stat().st_mtime >= LOCK.stat().st_mtime:
        return
    print("fuzz: setting up the fuzzer in .venv-fuzz")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--only-binary=:all:", "--require-hashes", "-r", str(LOCK)], check=True)
    done.touch()


def fuzz(name: str, seconds: int) -> Run:
    """Run one target for so long; its figures are printed, and its finds with the command that replays them."""
    found, corpus = FOUND / name / "found", ROOT / "tests" / "fuzz" / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    before = set((FOUND / name).glob("*-*"))
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={LONGEST_S}",
        f"-rss_limit_mb={MOST_MIB}",
        f"-max_len={MOST_BYTES}",
        f"-artifact_prefix={FOUND / name}/",
        "-print_final_stats=1",
    ]
    python = str(ENVIRONMENT / "bin" / "python")
    command = [python, __file__, "--guided", name, *options, str(found), str(corpus)]
    said = (FOUND / name / "said.txt").open("w+", errors="replace")
    with said:
        began_s = time.monotonic()
        # A find that hangs in C is not interrupted by the fuzzer's own alarm.
        subprocess.run(command, stdout=said, stderr=said, check=False, timeout=seconds + 10 * LONGEST_S)
        took_s = time.monotonic() - began_s
        said.seek(0)
        text = said.read()
    executions = _last(r"stat::number_of_executed_units:\s*(\d+)", text) or _last(r"^#(\d+)", text)
    run = Run(
        target=name,
        executions=executions,
        per_s=int(executions / max(took_s, 1.0)),
        edges=_last(r"cov: (\d+)", text),
        features=_last(r"ft: (\d+)", text),
        finds=tuple(sorted(set((FOUND / name).glob("*-*")) - before)),
    )
    print(run, flush=True)
    for find in run.finds:
        where = find.relative_to(ROOT)
        print(f"  {_what(text)}\n  scripts/fuzz --replay {name} {where}", flush=True)
    if not executions:
        print("  nothing was run:", *text.splitlines()[-3:], sep="\n  ", flush=True)
    return run


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def _what(text: str) -> str:
    """What a find is, in a line: the exception, or what the fuzzer says of it."""
    exception = re.search(r"^ === Uncaught Python exception: ===\n(.*)", text, re.MULTILINE)
    summary = re.search(r"^SUMMARY: (.*)", text, re.MULTILINE)
    return exception[1] if exception else summary[1] if summary else "what it is stands in said.txt"


def guided(name: str, arguments: Sequence[str]) -> None:
    """Be the process in which a target is run; does not return."""
    os.nice(10)
    libraries = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(str(ROOT / ".venv" / "lib" / libraries / "site-packages"))
    import atheris

    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=[*INSTRUMENTED, *(["yaml"] if name in OF_YAML else [])]):
        targets()
        target = target_of(name)
    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


def replay(target: Target, files: Sequence[Path]) -> int:
    """Run inputs once each and say what each ends in; 1 if one of them is a find."""
    bad = 0
    for file in files:
        began_s = time.monotonic()
        try:
            target(file.read_bytes())
        except Exception:  # noqa: BLE001 - whatever it raises is what is asked for
            bad += 1
            traceback.print_exc()
            said = "a find"
        else:
            said = "keeps the promises"
        print(f"{file}: {said}, {time.monotonic() - began_s:.2f} s")
    return 1 if bad else 0


def keep(name: str, target: Target) -> None:
    """Choose of the corpus and the finds the few examples that together reach the most lines of the product.

    An example with a name of its own was put there by somebody, and stays; numbered ones are chosen anew.
    """
    corpus = ROOT / "tests" / "fuzz" / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    named = [file for file in corpus.iterdir() if not file.name.isdecimal()]
    numbered = [file for file in corpus.iterdir() if file.name.isdecimal()]
    files = sorted([*numbered, *(FOUND / name / "found").glob("*")], key=lambda file: file.stat().st_size)
    reached = {data: lines_of(target, data) for file in files if len(data := file.read_bytes()) <= MOST_KEPT_BYTES}
    chosen: list[bytes] = []
    seen = {line for file in named for line in lines_of(target, file.read_bytes())}
    while len(chosen) < MOST_KEPT - len(named):
        best = max(reached, key=lambda data: (len(reached[data] - seen), -len(data)), default=b"")
        if not reached or not reached[best] - seen:
            break
        chosen.append(best)
        seen |= reached.pop(best)
    for file in numbered:
        file.unlink()
    for number, data in enumerate(chosen):
        (corpus / f"{number:02d}").write_bytes(data)
    kept = f"{len(named):>3} named, {len(chosen):>3} of {len(files):,} others, {sum(map(len, chosen)):,} bytes"
    print(f"{name:<20} {kept}, {len(seen):,} lines")


def lines_of(target: Target, data: bytes) -> Lines:
    """The lines of the product that an input reaches, in this thread and those begun meanwhile."""
    lines: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - itself, or nothing
        file = frame.f_code.co_filename
        if "/flyball_" not in file:
            return None
        if event == "line":
            lines.add((file, frame.f_lineno))
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return frozenset(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--guided"]:
        guided(sys.argv[2], sys.argv[3:])
    sys.exit(main())
