"""Targets: what is typed at a terminal, and what controllers answer to it.

The promises: `flyball` with any arguments, environment and files ends with one of its documented exit codes and
never with a traceback; spans, moments and values are read or refused in a sentence; whatever a controller
answers, it can be shown.

Nothing here connects anywhere, serves anything or leaves its folder: a command ends where it would begin to.
"""

import asyncio
import io
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Never
from unittest.mock import patch

import click
from google.protobuf.message import DecodeError

from flyball_cli.main import cli, main
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.merging import Answer, Silence, merge
from flyball_cli.operating.overrides import expiry
from flyball_cli.operating.refusals import NoAnswer
from flyball_cli.operating.status_document import overrides_of, status_document
from flyball_cli.operating.status_words import override_row, status_lines
from flyball_cli.operating.times import LONGEST_S, moment, read_moment, read_span, typed_value
from flyball_core.errors import LogUnavailable, Rejected
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec
from flyball_log.kafka import KafkaLog
from flyball_proto.v1.services_pb2 import StatusResponse
from fuzz_bytes import Draw, says
from fuzz_files import log_template, scratch, written
from fuzz_protobuf import change
from harness.scripted_pool import POLICY

EXITS = (0, 1, 2, 3)
MOST_ARGUMENTS = 8
LONGEST_ARGUMENT = 400
SERVING = frozenset({"agent", "bench", "controller", "demo", "gateway", "receiver", "twin", "up", "topics"})
"""Commands that would serve, measure or connect for long: they end where they would begin to."""

CONFIG = """\
tls: none
log: log
controller: {listen: 127.0.0.1:0, http: 127.0.0.1:0}
agent: {gpus: none}
"""
_WORDS = (
    "chat", "e0-0", "chat@7", "5", "0", "-1", "1e400", "nan", "90s", "1h30m", "2026-11-21T18:00:00Z", "127.0.0.1:1",
    "[::1]:1", "example.org:1", "kafka://127.0.0.1:1/x", "kafka://", "a=agent", "control", "bash", "weight", "",
    "-", "--",     "@policy", "@config", "@log", "@file", "@folder", "@missing",
)  # fmt: skip


class _Begins(SystemExit):
    """A command would begin to serve, measure or connect now."""


def _begins(*_: object, **__: object) -> Never:
    raise _Begins(0)


@cache
def commands() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """The words of each command, and its options."""
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def look(command: click.Command, words: tuple[str, ...]) -> None:
        found.append((words, tuple(option for param in command.params for option in param.opts if option[0] == "-")))
        if isinstance(command, click.Group):
            with click.Context(command) as context:
                for name in command.list_commands(context):
                    inner = command.get_command(context, name)
                    if inner is not None:
                        look(inner, (*words, name))

    look(cli, ())
    return tuple(found)


def _tame(text: str) -> str:
    """An argument that stays in this folder: what is fuzzed here is the command, not the machine."""
    if text.startswith("kafka://"):
        return text[:LONGEST_ARGUMENT].replace("\x00", "")
    return text[:LONGEST_ARGUMENT].replace("\x00", "").replace("..", "__").replace("/", "_").replace("~", "_")


def _typed(draw: Draw) -> tuple[list[str], dict[str, str]]:
    words, options = draw.pick(commands())
    made = list(words)
    for _ in range(draw.byte() % MOST_ARGUMENTS):
        kind = draw.byte() % 4
        if kind == 0 and options:
            made.append(draw.pick(options))
        elif kind == 1 and options:
            made += [draw.pick(options), draw.pick(_WORDS)]
        elif kind == 2:
            made.append(draw.pick(_WORDS))
        else:
            made.append(_tame(draw.take(draw.byte()).decode(errors="surrogateescape")))
    environment = {}
    for name in ("FLYBALL_CONTROLLERS", "FLYBALL_TLS", "FLYBALL_CONFIG"):
        if draw.byte() % 4 == 1:
            environment[name] = draw.pick(_WORDS)
    return made, environment


@contextmanager
def _contained(
    arguments: list[str], environment: dict[str, str], folder: Path
) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """The process as the command sees it: its arguments, streams, folder and surroundings."""
    out, err = io.BytesIO(), io.BytesIO()
    names = ("FLYBALL_CONTROLLERS", "FLYBALL_TLS", "FLYBALL_CONFIG")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    handlers, before = list(logging.getLogger().handlers), Path.cwd()
    with ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", ["flyball", *arguments]))
        stack.enter_context(patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8")))
        stack.enter_context(patch.object(sys, "stdout", io.TextIOWrapper(out, encoding="utf-8", write_through=True)))
        stderr = io.TextIOWrapper(err, encoding="utf-8", errors="backslashreplace", write_through=True)
        stack.enter_context(patch.object(sys, "stderr", stderr))
        stack.enter_context(patch.dict(os.environ, {**kept, **environment}, clear=True))
        stack.enter_context(patch.object(Fleet, "__aenter__", _nobody))
        stack.enter_context(patch.object(KafkaLog, "open", _unavailable))
        stack.enter_context(patch("subprocess.Popen", _begins))
        if SERVING.intersection(arguments):
            stack.enter_context(patch.object(asyncio, "run", _closing))
        os.chdir(folder)
        try:
            yield out, err
        finally:
            os.chdir(before)
            logging.getLogger().handlers[:] = handlers


async def _nobody(*_: object) -> Never:
    raise NoAnswer([Silence(address="127.0.0.1:1", why="nobody is there")])


async def _unavailable(*_: object, **__: object) -> Never:
    raise LogUnavailable("there are no brokers here")


def _closing(coroutine: object, **_: object) -> Never:
    getattr(coroutine, "close", lambda: None)()
    raise _Begins(0)


def command(data: bytes) -> None:
    """A command line, an environment and a file."""
    draw = Draw(data)
    arguments, environment = _typed(draw)
    places = {
        "@policy": "policy.yaml",
        "@config": "flyball.yaml",
        "@log": "log",
        "@file": "file",
        "@folder": ".",
        "@missing": "no",
    }
    arguments = [places.get(argument, argument) for argument in arguments]
    environment = {name: places.get(value, value) for name, value in environment.items()}
    with scratch() as folder:
        files, _ = log_template()
        written({f"log/{name}": content for name, content in files.items()}, folder)
        written({"policy.yaml": POLICY.encode(), "flyball.yaml": CONFIG.encode(), "file": draw.rest()}, folder)
        with _contained(arguments, environment, folder) as (_, err):
            try:
                main()
            except SystemExit as end:
                code = end.code
            said = err.getvalue()
        assert code in EXITS, (arguments, code)
        assert b"Traceback" not in said
        assert code != 2 or said.strip(), arguments


_SPECS = tuple(KnobSpec(name="k", knob_class=KnobClass.LIVE, kind=kind, safe=0, unit="u") for kind in KnobKind)


def times(data: bytes) -> None:
    """Spans, moments and values as they are typed."""
    text = data.decode(errors="surrogateescape")
    try:
        assert 0.0 < read_span(text) <= LONGEST_S
    except Rejected as error:
        says(error)
    try:
        told_s = read_moment(text)
        assert math.isfinite(told_s)
        assert moment(told_s)
    except Rejected as error:
        says(error)
    for span, until in ((text, None), (None, text)):
        try:
            assert expiry(1.8e9, span, until) > 1.8e9
        except Rejected as error:
            says(error)
    for spec in _SPECS:
        try:
            json.dumps(typed_value(text, spec))
        except Rejected as error:
            says(error)


def answers(data: bytes) -> None:
    """What one or two controllers answer, as status, overrides and their JSON show it."""
    draw = Draw(data)
    heard: list[Answer] = []
    for number in range(draw.byte() % 2 + 1):
        try:
            status = StatusResponse.FromString(draw.piece())
        except DecodeError:
            continue
        for _ in range(draw.byte() % 6):
            change(status, draw)
        heard.append(Answer(address=f"127.0.0.1:{number + 1}", status=status))
    fleet = merge(heard, [Silence(address="127.0.0.1:9", why="no answer")])
    found = status_document(fleet)
    json.dumps(found)
    assert status_lines(found)
    assert status_lines(found, shown=None)
    for one in overrides_of(fleet.pools.values()):
        assert override_row(one)
        assert moment(one["expires_wall_s"])
