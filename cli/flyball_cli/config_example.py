"""A complete, commented configuration file, made from the keys themselves so that it cannot drift.

Keys with a default stand as comments, with that default; what must be given stands with an example.
"""

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from textwrap import wrap

from flyball_service.config import Config
from flyball_service.keys import Key, Many, keys_of
from flyball_service.reading import spell_duration

SERVICES = ("controller", "agent", "gateway", "twin")
KINDS = (*SERVICES, "up")
_WIDTH = 100
_STEP = "  "


def example(kind: str) -> str:
    """The file for one service, or for all of them in one process (`up`)."""
    wanted = SERVICES if kind == "up" else (kind,)
    command = {"up": "flyball up", "twin": "flyball twin serve"}.get(kind, f"flyball {kind}")
    lines = [f"# For `{command} --config FILE`. What stands behind `#` is the default.", ""]
    for key in keys_of(Config):
        if key.name == "tls":
            lines += [*_comment(key, ""), "tls: none", "# tls:", *_behind("", _section(key, _STEP)), ""]
        elif key.name == "kafka":
            lines += [*_comment(key, ""), "# kafka:", *_behind("", _section(key, _STEP)), ""]
        elif key.name not in SERVICES or key.name in wanted:
            lines += [*_key(key, ""), ""]
    return "\n".join(lines)


def written(key: Key, value: object) -> object:
    """A value as the file has it, in JSON's types; None for what is not written."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return None if key.section else [written(key, one) for one in value]
    if isinstance(value, float) and key.duration:
        return spell_duration(value)
    if isinstance(value, Path):
        return str(value)
    return None if key.section else value


def _section(key: Key, indent: str) -> list[str]:
    return [line for inner in keys_of(key.of) for line in _key(inner, indent)]


def _key(key: Key, indent: str) -> Iterator[str]:
    yield from _comment(key, indent)
    if key.section and key.many is Many.LIST:
        yield from _list(key, indent)
    elif key.section:
        yield f"{indent}{key.name}:"
        yield from _section(key, indent + _STEP)
    elif key.required:
        yield f"{indent}{key.name}: {_plain(key.example)}"
    else:
        default = written(key, key.default)
        yield f"{indent}# {key.name}:" + ("" if default is None else f" {_plain(default)}")


def _list(key: Key, indent: str) -> Iterator[str]:
    """One entry; or behind `#`, as a list that has a default need not be given."""
    inner = indent + _STEP
    entry = _section(key, inner + _STEP)
    first = next(at for at, line in enumerate(entry) if not line.lstrip().startswith("#"))
    entry[first] = f"{inner}- {entry[first].lstrip()}"
    # Its comments go above the dash.
    entry[:first] = [inner + line.lstrip() for line in entry[:first]]
    lines = [f"{indent}{key.name}:", *entry]
    yield from lines if key.shown else _behind(indent, lines)


def _behind(indent: str, lines: list[str]) -> list[str]:
    """The lines as comments."""
    return [f"{indent}# {line.removeprefix(indent)}" for line in lines]


def _comment(key: Key, indent: str) -> list[str]:
    return [f"{indent}## {line}" for line in wrap(key.doc, _WIDTH - len(indent))]


def _plain(value: object) -> str:
    """A value in YAML's flow style; plain where nothing needs quotes."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and value and not set(value) & set("#,[]{}&*!|>'\"%@`"):
        return value
    return json.dumps(value)
