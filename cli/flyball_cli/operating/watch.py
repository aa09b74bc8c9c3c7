"""`flyball watch`: a fleet as it goes, on a screen where there is a terminal, one line an event where there is none."""

import asyncio
import json
from typing import Any, Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from flyball_cli.operating.connection import Connection, connected
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.following import Event, Followed, Recorded, follow
from flyball_cli.operating.ordering import json_option
from flyball_cli.operating.status_document import Document, status_document
from flyball_cli.operating.status_words import headline, status_lines
from flyball_cli.wording import calendar
from flyball_core.errors import FlyballError

SCHEMA = "flyball.watch/1"
EVERY_S = 1.0
"""How often the status is asked for."""

_OTHER_LINES = 14
"""Lines of a status beside its engines, about: the rest of the screen is theirs."""


class View(Protocol):
    """What a watch shows itself through."""

    def event(self, event: Event) -> None:
        """Something was recorded, or the connection changed."""
        ...

    def status(self, found: Document) -> None:
        """The status, anew."""
        ...

    def silence(self, why: str) -> None:
        """No controller gave a status."""
        ...

    def close(self) -> None:
        """The watch is over."""
        ...


def event_document(event: Event) -> Document:
    """One event as one JSON document."""
    if isinstance(event, Recorded):
        record = event.record
        return {
            "schema": SCHEMA,
            "event": "record",
            "pool": record.pool,
            "kind": record.kind.value,
            "decision": record.decision,
            "offset": event.offset,
            "version": str(record.version),
            "time_s": record.time_s,
            "wall_s": record.wall_s,
            "mode": record.mode,
            "regime": record.regime,
            "confidence": record.confidence,
            "summary": record.summary,
            "refused": record.refused,
            "target_kind": None if record.target_kind is None else record.target_kind.value,
            "target": record.target or None,
        }
    if isinstance(event, Followed):
        found: dict[str, Any] = {"event": "followed", "address": event.address, "missed": event.missed, "why": None}
    else:
        found = {"event": "lost", "address": None, "missed": None, "why": event.why}
    return {"schema": SCHEMA, "what": event.what, **found}


def event_line(event: Event) -> str:
    """One event in words."""
    if isinstance(event, Recorded):
        record = event.record
        when = calendar(record.wall_s, "%H:%M:%S")
        refused = " (refused)" if record.refused else ""
        return f"{when}  {record.pool}  {record.kind.value:8s}{refused}  {record.summary}  [{record.decision}]"
    if isinstance(event, Followed):
        missed = "; records may have been missed" if event.missed else ""
        return f"following the decisions of {event.what} at {event.address}{missed}"
    return f"lost the decisions of {event.what}: {event.why}"


class Lines:
    """A line for each event, in words or as JSON; of the status only what needs attention, when that changes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last: Any = None

    def event(self, event: Event) -> None:
        """A line for it."""
        self._say(json.dumps(event_document(event)) if self._as_json else event_line(event))

    def status(self, found: Document) -> None:
        """A line if what needs attention has changed."""
        concerned = [(one["pool"], one["target"], one["what"].partition(":")[0]) for one in found["attention"]]
        if concerned == self._last:
            return
        self._last = concerned
        document = {
            "schema": SCHEMA,
            "event": "attention",
            "healthy": found["healthy"],
            "attention": found["attention"],
        }
        self._say(json.dumps(document) if self._as_json else "\n".join(headline(found)))

    def silence(self, why: str) -> None:
        """A line at the first of several."""
        if self._last == why:
            return
        self._last = why
        document = {"schema": SCHEMA, "event": "silence", "why": why}
        self._say(json.dumps(document) if self._as_json else why)

    def close(self) -> None:
        """Nothing is left open."""

    def _say(self, line: str) -> None:
        click.echo(line)


class Screen:
    """The status redrawn in place, and events as lines above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")
        self._live.start()

    def event(self, event: Event) -> None:
        """A line above the status."""
        self._console.print(event_line(event), highlight=False, markup=False, soft_wrap=True)

    def status(self, found: Document) -> None:
        """Draw anew, as many engines as there is room for."""
        room = max(1, self._console.size.height - _OTHER_LINES)
        first, *others = status_lines(found, shown=room)
        picture = Text(first, style="bold green" if found["healthy"] else "bold red")
        picture.append("\n" + "\n".join(others), style="not bold default")
        self._live.update(picture, refresh=True)

    def silence(self, why: str) -> None:
        """Say so in place of the status."""
        self._live.update(Text(why, style="bold red"), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


@click.command(
    epilog="\b\nExamples:\n  flyball watch\n  flyball watch chat --json | jq -c 'select(.kind == \"alarm\")'"
)
@click.argument("pool", required=False)
@json_option
@connected
def watch(*, connection: Connection, pool: str | None, as_json: bool) -> int:
    """Show a fleet, or one POOL of it, as it goes: its status every second and its decisions as they come.

    Without a terminal, or with --json, one line an event. Goes on over controllers that come and
    go; Ctrl-C ends it (130).
    """
    console = Console()
    plain = as_json or not console.is_terminal
    view: View = Lines(as_json=as_json) if plain else Screen(console)
    try:
        asyncio.run(watch_fleet(connection, pool or "", view))
    except* FlyballError as errors:
        raise next(_leaves(errors)) from None
    finally:
        view.close()
    return 0


def _leaves(errors: ExceptionGroup[FlyballError]) -> Any:  # noqa: ANN401 - an iterator of errors of any depth
    for one in errors.exceptions:
        if isinstance(one, ExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


async def watch_fleet(connection: Connection, pool: str, view: View) -> None:
    """Show until cancelled. Raises `FlyballError`, in a group, if nothing can be shown from the start."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(connection, pool, view.event))
        tasks.create_task(_status(connection, pool, view))


async def _status(connection: Connection, pool: str, view: View) -> None:
    async with Fleet(connection) as fleet:
        while True:
            try:
                status = await fleet.status(pool)
                if pool:
                    status.pool(pool)
                view.status(status_document(status))
            except FlyballError as error:
                view.silence(str(error))
            await asyncio.sleep(EVERY_S)
