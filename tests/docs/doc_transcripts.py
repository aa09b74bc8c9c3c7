"""What a console block says: commands, and what a reader will see below each; and whether that is what was seen.

The rule of comparison is meant to be small enough to keep in mind. Output is compared line by line; runs of blanks
count as one. `...` alone on a line stands for any number of lines, within a line for any text. In a loose block every
number stands for any number. A command with nothing below it is not compared, only its exit code is.
"""

import re
from dataclasses import dataclass

_NUMBER = r"\d+(?:[.,]\d+)*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of a console block and the lines below it."""

    line: int
    """The line of its prompt in the block, from 1."""
    command: str
    shown: tuple[str, ...]


def steps_of(text: str) -> list[Step]:
    """The commands of a console block; raises ValueError if it does not open with a prompt."""
    steps: list[Step] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        start = at
        if not lines[at].startswith("$ "):
            if lines[at].strip() and not steps:
                raise ValueError(f"line {at + 1}: a console block opens with a prompt, `$ `")
            at += 1
            continue
        command = lines[at][2:]
        while command.endswith("\\") and at + 1 < len(lines):
            at += 1
            command += "\n" + lines[at].removeprefix("> ")
        at += 1
        shown: list[str] = []
        while at < len(lines) and not lines[at].startswith("$ "):
            shown.append(lines[at])
            at += 1
        while shown and not shown[-1].strip():
            shown.pop()
        steps.append(Step(line=start + 1, command=command, shown=tuple(shown)))
    return steps


def agrees(shown: tuple[str, ...], seen: str, *, loose: bool) -> bool:
    """Whether what a page shows is what was seen."""
    if not shown:
        return True
    pattern = "".join(_line_pattern(line, loose=loose) for line in shown)
    lines = [_plain(line) for line in seen.strip("\n").split("\n")]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def _line_pattern(line: str, *, loose: bool) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    text = "[^\n]*?".join(_text_pattern(part, loose=loose) for part in _plain(line).split("..."))
    return f"{text}\n"


def _text_pattern(text: str, *, loose: bool) -> str:
    parts = re.split(_NUMBER, text) if loose else [text]
    return _NUMBER.join(re.escape(part) for part in parts)


def _plain(line: str) -> str:
    return " ".join(line.split())
