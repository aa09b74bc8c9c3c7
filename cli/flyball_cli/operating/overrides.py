"""`flyball override`: an operator's pinned values, each with an end, a reason and an author."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from typing import Any

import click

from flyball_cli.operating.acknowledging import Receiver, holdings, not_pushed, receiver_lines
from flyball_cli.operating.connection import Connection, connected
from flyball_cli.operating.fleet import Fleet, with_fleet
from flyball_cli.operating.merging import Owned
from flyball_cli.operating.ordering import (
    NOT_TAKEN,
    author_of,
    author_option,
    json_option,
    order_document,
    order_line,
    reason_option,
    taken,
)
from flyball_cli.operating.status_document import overrides_of
from flyball_cli.operating.status_words import override_row
from flyball_cli.operating.times import moment, read_moment, read_span, typed_value
from flyball_cli.wording import aligned, nearest
from flyball_core.errors import Rejected
from flyball_core.knobs import WEIGHT, KnobClass, KnobKind, KnobSpec, Value
from flyball_proto.codec.words import fill_value, knows_knob, read_knob
from flyball_proto.v1.common_pb2 import TARGET_KIND_ENGINE
from flyball_proto.v1.inputs_pb2 import OverrideClear, OverrideSet
from flyball_proto.v1.services_pb2 import WriteResponse

LIST_SCHEMA = "flyball.overrides/1"
POLL_S = 0.25
"""How often the owner is asked whether receivers have answered."""

_WEIGHT = KnobSpec(name=WEIGHT, knob_class=KnobClass.ROUTING, kind=KnobKind.INTEGER, safe=0)


@click.group()
def override() -> None:
    """Pin a knob for a while, see what is pinned, let go of it."""


@override.command(
    "set",
    epilog="""\b
Examples:
  flyball override set chat max_active_requests 32 --for 30m --reason "incident 4711"
  flyball override set chat weight 0 --engine engine-0 --until 2026-11-21T18:00:00Z --reason "fan replaced"
""",
)
@click.argument("pool")
@click.argument("knob")
@click.argument("value")
@click.option("--for", "span", metavar="SPAN", help="How long, as in 90s, 30m, 1h30m, 2d.")
@click.option("--until", metavar="TIME", help="Until when, as in 2026-11-21T18:00:00Z.")
@click.option("--engine", default="", metavar="ID", help="One engine; else all of POOL.")
@click.option("--wait", default="10s", show_default=True, metavar="SPAN", help="For receivers' answers; 0 for none.")
@reason_option
@author_option
@json_option
@connected
def set_override(*, connection: Connection, author: str | None, as_json: bool, **asked: str) -> int:
    """Pin KNOB of POOL, or of one engine of it, at VALUE; then wait until its receivers hold it.

    Exit code: 0 in force (and held, where anything is pushed), 1 refused or not held in time,
    2 bad input or no controller answered.
    """
    wait_s = 0.0 if asked["wait"].strip("s") == "0" else read_span(asked["wait"])
    name = author_of(connection, author)
    done = with_fleet(connection, lambda fleet: _set(fleet, asked, name, wait_s))
    return _show_set(*done, as_json=as_json)


async def _set(
    fleet: Fleet, asked: dict[str, str], author: str, wait_s: float
) -> tuple[OverrideSet, WriteResponse, Owned, list[Receiver] | None]:
    pool, knob = asked["pool"], asked["knob"]
    owned = (await fleet.status(pool)).pool(pool)
    value = typed_value(asked["value"], knob_spec(owned, knob, asked["engine"]))
    order = OverrideSet(
        pool=pool,
        override_id=f"o-{uuid.uuid4().hex[:8]}",
        target=asked["engine"],
        knob=knob,
        expires_wall_s=expiry(owned.wall_s, asked["span"], asked["until"]),
        reason=asked["reason"],
        author=author,
    )
    fill_value(order.value, value)
    response = await fleet.write(owned.address, lambda stub, timeout_s: stub.SetOverride(order, timeout=timeout_s))
    if not taken(response) or not wait_s or not_pushed(owned):
        return order, response, owned, None
    return order, response, owned, await _held(fleet, order, value, wait_s)


async def _held(fleet: Fleet, order: OverrideSet, value: Value, wait_s: float) -> list[Receiver]:
    """Who holds the value, once all do or the wait is over."""
    found: list[Receiver] = []
    try:
        async with asyncio.timeout(wait_s):
            while True:
                found = holdings((await fleet.status(order.pool)).pool(order.pool), order, value)
                if all(one.holds for one in found):
                    return found
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return found


def expiry(now_s: float, span: str | None, until: str | None) -> float:
    """When an override ends, by the owner's clock; `Rejected` unless exactly one way says it, and later than now."""
    if (span is None) == (until is None):
        raise Rejected("an override has an end: say --for SPAN or --until TIME, and not both")
    ends_s = read_moment(until) if until is not None else now_s + read_span(span or "")
    if ends_s <= now_s:
        raise Rejected(f"{moment(ends_s)} is past: the controller's clock says {moment(now_s)}")
    return ends_s


def knob_spec(owned: Owned, knob: str, engine: str) -> KnobSpec:
    """What the knob takes on the engines that are meant; `Rejected`, with the nearest, if there is none such."""
    engines = {one.target: one for one in owned.status.targets if one.kind == TARGET_KIND_ENGINE}
    if engine and engine not in engines:
        raise Rejected(f"no engine {engine!r} in pool {owned.status.pool}: {nearest(engine, engines)}")
    if knob == WEIGHT:
        return _WEIGHT
    known: dict[str, KnobSpec] = {}
    for one in [engines[engine]] if engine else engines.values():
        known.update((spec.name, read_knob(spec)) for spec in one.knobs if knows_knob(spec))
    if knob not in known:
        raise Rejected(f"no engine that is meant has a knob {knob!r}: {nearest(knob, [*known, WEIGHT])}")
    return known[knob]


def _show_set(
    order: OverrideSet, response: WriteResponse, owned: Owned, receivers: list[Receiver] | None, *, as_json: bool
) -> int:
    why_not = not_pushed(owned) if taken(response) else ""
    if as_json:
        found = {
            **order_document("override set", order.pool, response),
            "override": order.override_id,
            "expires_wall_s": order.expires_wall_s,
            "not_pushed": why_not or None,
            "receivers": [one.document() for one in receivers or ()],
        }
        click.echo(json.dumps(found, indent=2))
    else:
        lines = [order_line(order.pool, response)]
        if taken(response):
            lines.append(f"override {order.override_id}, until {moment(order.expires_wall_s)}")
            lines += [why_not] if why_not else [] if receivers is None else receiver_lines(receivers)
        click.echo("\n".join(lines))
    return 0 if taken(response) and all(one.holds for one in receivers or ()) else NOT_TAKEN


@override.command("list", epilog="\b\nExample:\n  flyball override list chat")
@click.argument("pool", required=False)
@json_option
@connected
def list_overrides(*, connection: Connection, pool: str | None, as_json: bool) -> int:
    """List the overrides in force, those that end first in front."""
    fleet = with_fleet(connection, lambda one: one.status(pool or ""))
    pools: Sequence[Owned] = [fleet.pool(pool)] if pool is not None else list(fleet.pools.values())
    found = overrides_of(pools)
    if as_json:
        click.echo(json.dumps({"schema": LIST_SCHEMA, "overrides": found}, indent=2))
    else:
        click.echo("\n".join(aligned([(one["pool"], *override_row(one)) for one in found], "")) or "no override")
    for silence in fleet.silences:
        click.echo(f"flyball: no answer from {silence.address}: {silence.why}", err=True)
    return 0


@override.command(
    "clear", epilog="\b\nExamples:\n  flyball override clear chat o-1a2b3c4d\n  flyball override clear chat --all"
)
@click.argument("pool")
@click.argument("override_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="Every override of POOL.")
@author_option
@json_option
@connected
def clear_override(
    *, connection: Connection, pool: str, override_id: str | None, every: bool, author: str | None, as_json: bool
) -> int:
    """Lift an override, or all of POOL, before its end. Exit code: 0 lifted, 1 there is none such, 2 bad input."""
    if every == (override_id is not None):
        raise Rejected("say which override to lift by its id (flyball override list), or --all")
    name = author_of(connection, author)
    given = with_fleet(connection, lambda fleet: _clear(fleet, pool, override_id, name))
    if as_json:
        orders: list[dict[str, Any]] = [
            {**order_document("override clear", pool, response), "override": one} for one, response in given
        ]
        click.echo(json.dumps({"schema": LIST_SCHEMA, "cleared": orders}, indent=2))
    else:
        click.echo("\n".join(order_line(pool, response) for _, response in given) or f"{pool} has no override")
    return 0 if all(taken(response) for _, response in given) else NOT_TAKEN


async def _clear(fleet: Fleet, pool: str, override_id: str | None, author: str) -> list[tuple[str, WriteResponse]]:
    owned = (await fleet.status(pool)).pool(pool)
    ids = [one.override_id for one in owned.status.overrides] if override_id is None else [override_id]
    orders = [OverrideClear(pool=pool, override_id=one, author=author) for one in ids]
    return [(order.override_id, await _clear_one(fleet, owned.address, order)) for order in orders]


async def _clear_one(fleet: Fleet, address: str, order: OverrideClear) -> WriteResponse:
    return await fleet.write(address, lambda stub, timeout_s: stub.ClearOverride(order, timeout=timeout_s))
