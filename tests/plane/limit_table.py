"""The table of limits in `docs/limits.md`, the constants it names, and the cases that go one beyond each.

A limit in the code is a constant of a module whose name begins with MAX, MOST, LONGEST or LARGEST or ends with BYTES,
AT_ONCE or PER_S, or a field so named (in small letters) of a class called `...Limits`. Each is in a row, or on the
short list of those that bound nothing that comes in.
"""

import ast
import dataclasses
import importlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "limits.md"
PACKAGES = ("core", "proto", "policies", "log", "service", "controller", "agents", "twin", "planner", "cli")

Answers = tuple[str, str]
"""What was answered at the limit, and what one beyond it."""

_UNITS = {"KiB": 2**10, "MiB": 2**20, "bytes": 1}
_ROW = re.compile(r"\| `([a-z-]+)` \| (.+?) \| ([\d,]+)(?: (KiB|MiB|bytes))? \| `([\w.]+)` \| (.+?) \| (yes|no) \|")
_CONSTANT = re.compile(r"_?(MAX|MOST|LONGEST|LARGEST)_\w+|\w*_?(BYTES|AT_ONCE|PER_S)")
_FIELD = re.compile(r"(max|most)_\w+|\w+_(bytes|at_once|per_s|frames)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One limit, as the page tells of it."""

    id: str
    number: int
    where: str
    """The constant: module and name, or module, class and field."""
    word: str
    """What one beyond the limit is answered with, or counted as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a case is given."""

    limit: int
    """The page's number."""
    folder: Path
    """An empty one."""


Case = Callable[[Bench], Answers | Awaitable[Answers]]
CASES: dict[str, Case] = {}
"""By row, what goes one beyond it."""


def beyond(row: str) -> Callable[[Case], Case]:
    """Let a case go beyond the limit of this row."""

    def keep(case: Case) -> Case:
        assert row not in CASES, f"{row} has a case already"
        CASES[row] = case
        return case

    return keep


def rows() -> tuple[Row, ...]:
    """The rows of the page. Raises ValueError for one that cannot be read."""
    found = []
    table = PAGE.read_text(encoding="utf-8").partition("| id |")[2].splitlines()[2:]
    for line in table:
        match = _ROW.fullmatch(line)
        if match is None:
            raise ValueError(f"{PAGE.name}: this row cannot be read: {line}")
        name, _, number, unit, where, one_more, _ = match.groups()
        [word, *_] = re.findall(r"`([^`]+)`", one_more)
        size = int(number.replace(",", "")) * _UNITS[unit or "bytes"]
        found.append(Row(id=name, number=size, where=where, word=word))
    return tuple(found)


def value_at(where: str) -> object:
    """The constant's value, or the default of a class's field."""
    path, _, name = where.rpartition(".")
    try:
        found = importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, of = path.rpartition(".")
        fields = {one.name: one.default for one in dataclasses.fields(getattr(importlib.import_module(module), of))}
        return fields[name]
    return getattr(found, name)


def limits_in_code() -> Iterator[str]:
    """Every limit in the code, by the rule above."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if not file.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                module = ".".join(file.relative_to(ROOT / package).with_suffix("").parts)
                yield from (f"{module}.{name}" for name in _names(ast.parse(file.read_text(encoding="utf-8"))))


def _names(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Limits"):
            fields = (name for one in node.body for name in _assigned(one))
            yield from (f"{node.name}.{name}" for name in fields if _FIELD.fullmatch(name))
        yield from (name for name in _assigned(node) if _CONSTANT.fullmatch(name))


def _assigned(node: ast.stmt) -> Iterator[str]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        yield from (name.id for name in names if isinstance(name, ast.Name))


def words_of(error: Exception) -> str:
    """An error in words: its status and constant reason if it has such, and what it says."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    code = getattr(getattr(error, "code", None), "name", "")
    return f"{code} {getattr(error, 'reason', '')} {type(error).__name__}: {error}"


def said(act: Callable[[], object]) -> str:
    """What is raised, in words; empty if nothing is."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is, its words are compared with the page's
        return words_of(error)
    return ""


async def heard(call: Awaitable[object]) -> str:
    """What a call ends with, in words; empty if it goes well."""
    try:
        await call
    except Exception as error:  # noqa: BLE001 - whatever it is, its words are compared with the page's
        return words_of(error)
    return ""


def padded(record: bytes, size: int) -> bytes:
    """A message of this size: beside what it says, a field that nobody knows. At least some hundred bytes more."""
    for width in (2, 3, 4):
        left = size - len(record) - 2 - width
        if 1 << 7 * (width - 1) <= left < 1 << 7 * width:
            length = bytes([left >> 7 * at & 127 | 128 * (at < width - 1) for at in range(width)])
            return record + b"\x82\x01" + length + bytes(left)
    raise ValueError(f"{len(record)} bytes cannot be padded to {size}")
