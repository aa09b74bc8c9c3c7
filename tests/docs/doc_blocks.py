"""The fenced blocks of the project's pages, each with the marker above it that says how it is kept true.

A marker is an HTML comment on the line directly above a block, so it does not show on the site. CONTRIBUTING.md
says what each means. Nothing is run here, and a marker that cannot be read is an error of the page, never ignored.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = frozenset({"shell", "checkout", "laptop", "operator", "kafka", "python", "config", "policy", "file"})
"""Where a block is run."""

REASONS = frozenset(
    {
        "needs a GPU",
        "needs Kubernetes",
        "needs a container runtime",
        "needs systemd",
        "needs vLLM",
        "needs hosts of your own",
        "needs tables of others",
        "is a figure",
        "is a layout",
        "is the suite itself",
        "sets up the machine",
    }
)
"""Why a block may be left out of the suite. Nothing else is a reason."""


class BadPage(Exception):
    """A page that the suite cannot hold to anything; says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`<!-- run: SETTING[, file NAME][, loose][, within N s][, exit N] -->`."""

    setting: str
    file: str = ""
    """The name under which the block lies in the page's folder; empty for none."""
    loose: bool = False
    """Whether numbers of the output may differ."""
    within_s: float = 0.0
    """How long each command may be repeated until it answers as shown; 0 for once."""
    code: int = 0
    """The exit code of each of its commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`<!-- shape: NAME -->`: a JSON document whose keys a test compares."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """`<!-- not run: REASON -->`."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block. `marker` is None if nothing stands directly above it."""

    page: str
    """The page's path from the root."""
    line: int
    """The line of its opening fence, from 1."""
    language: str
    text: str
    marker: Run | Shape | NotRun | None

    @property
    def where(self) -> str:
        """`docs/page.md:12`."""
        return f"{self.page}:{self.line}"


def pages() -> tuple[str, ...]:
    """Every page whose blocks are held to something, as paths from the root."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return tuple(str(page.relative_to(ROOT)) for page in found)


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page, in order. Raises `BadPage` for a marker or a fence that cannot be read."""
    return list(read_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def read_blocks(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a page's text."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opening = re.fullmatch(r"( *)(`{3,}|~{3,})[ ]*([\w-]*).*", lines[at])
        if opening is None:
            at += 1
            continue
        indent, fence, language = opening.groups()
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == fence), None)
        if end is None:
            raise BadPage(f"{page}:{at + 1}: this block is never closed")
        body = "".join(f"{line.removeprefix(indent)}\n" for line in lines[at + 1 : end])
        above = lines[at - 1].strip() if at else ""
        where = f"{page}:{at + 1}"
        yield Block(page=page, line=at + 1, language=language, text=body, marker=read_marker(above, where))
        at = end + 1


def read_marker(line: str, where: str) -> Run | Shape | NotRun | None:
    """The marker on a line; None if the line is none. Raises `BadPage` if it is one that means nothing."""
    found = re.fullmatch(r"<!-- (run|shape|not run): (.*?) -->", line)
    if found is None:
        return None
    kind, rest = found.groups()
    if kind == "shape":
        return Shape(name=rest)
    if kind == "not run":
        if rest not in REASONS:
            raise BadPage(f"{where}: {rest!r} is no reason; reasons are: {', '.join(sorted(REASONS))}")
        return NotRun(reason=rest)
    setting, *options = rest.split(", ")
    if setting not in SETTINGS:
        raise BadPage(f"{where}: there is no setting {setting!r}; settings are: {', '.join(sorted(SETTINGS))}")
    return _with_options(Run(setting=setting), options, where)


def _with_options(run: Run, options: list[str], where: str) -> Run:
    values: dict[str, str] = {}
    for option in options:
        found = re.fullmatch(r"(file) (\S+)|(loose)|(within) (\d+) s|(exit) (\d+)", option)
        if found is None:
            raise BadPage(f"{where}: a run is told `file NAME`, `loose`, `within N s` or `exit N`, not {option!r}")
        name, *value = (part for part in found.groups() if part is not None)
        values[name] = value[0] if value else "yes"
    return Run(
        setting=run.setting,
        file=values.get("file", ""),
        loose="loose" in values,
        within_s=float(values.get("within", 0)),
        code=int(values.get("exit", 0)),
    )
