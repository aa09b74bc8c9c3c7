"""The document of `status_document` in words: troubled engines first, and no more of the others than one reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from flyball_cli.wording import aligned, counted, features, span

Document = Mapping[str, Any]

SHOWN = 12
"""Engines that are as wanted of which each pool shows so many, unless all are asked for."""


def status_lines(found: Document, *, shown: int | None = SHOWN) -> list[str]:
    """The lines of a status; `shown` bounds the untroubled engines of each pool, None shows all."""
    lines = headline(found)
    lines += ["", *_controllers(found["controllers"])]
    for pool in found["pools"]:
        lines += ["", *_pool(pool, shown)]
    if not found["pools"]:
        lines += ["", "No pool yet: nothing has reported or attached to these controllers."]
    return lines


def headline(found: Document) -> list[str]:
    """Whether anything needs attention, and what."""
    attention = found["attention"]
    if not attention:
        engines = sum(len(pool["engines"]) for pool in found["pools"])
        pools, controllers = len(found["pools"]), len(found["controllers"])
        what = f"{counted(pools, 'pool')}, {counted(engines, 'engine')}, {counted(controllers, 'controller')}"
        return [f"All is well: {what}."]
    lines = [f"{counted(len(attention), 'thing')} {'needs' if len(attention) == 1 else 'need'} attention:"]
    for one in attention:
        where = " ".join(part for part in (one["pool"], one["target"]) if part)
        remedy = f" ({one['remedy']})" if one["remedy"] else ""
        lines.append(f"  {where + ': ' if where else ''}{one['what']}{remedy}")
    return lines


def _controllers(controllers: Sequence[Document]) -> list[str]:
    rows = []
    for one in controllers:
        if not one["answered"]:
            rows.append((one["address"], "no answer", one["why_not"]))
            continue
        state = "ready" if one["ready"] else f"waits for {', '.join(one['waiting_for']) or 'something'}"
        owned = ", ".join(
            f"{part['partition']}" + (f" ({part['inputs_behind']:,} behind)" if part["inputs_behind"] else "")
            for part in one["owned"]
        )
        owns = f"owns partitions {owned} (of {one['partitions']})" if owned else "owns no partition"
        rows.append((one["address"], one["controller"], f"{state}, {owns}, log {one['log']}"))
    return ["controllers", *aligned(rows)]


def _pool(pool: Document, shown: int | None) -> list[str]:
    paused = ", PAUSED" if pool["paused"] else ""
    regime = f"{pool['regime'] or 'unknown'} ({pool['confidence']:.0%}) for {span(pool['regime_for_s'])}"
    lines = [f"pool {pool['pool']}: {pool['mode']}{paused}, regime {regime}"]
    policy = f"policy by {pool['policy_author']}" if pool["policy_author"] else "no policy applied, defaults hold"
    age = "no tick yet" if pool["tick_age_s"] is None else f"last tick {span(pool['tick_age_s'])} ago"
    lines.append(f"  {policy}; owner {pool['owner']}, partition {pool['partition']}, epoch {pool['epoch']}; {age}")
    if pool["features"]:
        lines.append(f"  seen: {'; '.join(features(pool['features']))}")
    lines += [f"  quarantined: {one['policy']}: {one['why']}" for one in pool["quarantined"]]
    if pool["relaunching"]:
        lines.append(f"  relaunching: {', '.join(pool['relaunching'])}")
    if pool["overrides"]:
        lines += ["  overrides", *aligned([override_row(one) for one in pool["overrides"]], "    ")]
    lines += _agents(pool["agents"])
    lines += _targets("engines", pool["engines"], shown, pool["mode"])
    return lines + _targets("gateways", pool["gateways"], shown, pool["mode"])


def override_row(one: Document) -> tuple[str, ...]:
    """One override as cells of a table."""
    where = one["target"] or "all engines"
    pinned = f"{one['knob']} of {where} at {one['value']}"
    return one["override"], pinned, f"{span(one['left_s'])} left", f"{one['author']}: {one['reason']}"


def _agents(agents: Sequence[Document]) -> list[str]:
    if not agents:
        return ["  agents: none has reported"]
    ages = [one["age_s"] for one in agents if not one["stale"] and one["age_s"] is not None]
    fresh = f", newest frames up to {span(max(ages))} old" if ages else ""
    stale = [
        f"{one['agent']} ({'never' if one['age_s'] is None else span(one['age_s'])})" for one in agents if one["stale"]
    ]
    silent = f"; silent: {', '.join(stale)}" if stale else ""
    return [f"  agents: {counted(len(agents), 'agent')}{fresh}{silent}"]


def _targets(title: str, targets: Sequence[Document], shown: int | None, mode: str) -> list[str]:
    if not targets:
        return [f"  {title}: none"]
    troubled = [one for one in targets if one["trouble"]]
    moving = [one for one in targets if not one["trouble"] and not _settled(one)]
    calm = [one for one in targets if not one["trouble"] and _settled(one)]
    room = len(calm) if shown is None else max(0, shown - len(moving))
    rows = [_head(title, targets), *[_row(one, targets, mode) for one in [*troubled, *moving, *calm[:room]]]]
    lines = ["", *aligned(rows)] if title == "engines" else aligned(rows)
    left = len(calm) - room
    if left > 0:
        lines.append(f"  and {left:,} more, all as wanted (--all shows them)")
    return lines


def _settled(one: Document) -> bool:
    as_wanted = all(setting["as_wanted"] for setting in one["settings"])
    return as_wanted and one["told"] == one["acked"] and one.get("phase", "serving") in ("", "serving")


def _knobs(targets: Sequence[Document]) -> list[str]:
    """The knobs that get a column of their own: of engines all but the variant, of gateways none."""
    if not targets or "variant" not in targets[0]:
        return []
    return sorted({setting["knob"] for one in targets for setting in one["settings"]} - {"variant", "weight"})


def _head(title: str, targets: Sequence[Document]) -> tuple[str, ...]:
    if title == "gateways":
        return "gateway", "state", "settings", "told"
    return "engine", "state", "variant", "weight", *_knobs(targets), "told"


def _row(one: Document, targets: Sequence[Document], mode: str) -> tuple[str, ...]:
    settings = {setting["knob"]: setting for setting in one["settings"]}
    if "variant" not in one:
        return one["name"], _state(one, mode), _routes(one), _told(one)
    variant, weight = settings.get("variant"), settings.get("weight")
    return (
        one["name"],
        _state(one, mode),
        one["variant"] or "-" if variant is None else _setting(variant),
        str(one["weight"]) if weight is None else _setting(weight),
        *[_setting(settings[knob]) if knob in settings else "-" for knob in _knobs(targets)],
        _told(one),
    )


def _state(one: Document, mode: str) -> str:
    if one["trouble"]:
        return str(one["trouble"]).partition(":")[0]
    if not one["attached"]:
        return "observed only" if mode == "observe" else "not attached"
    return one.get("phase", "") or "attached"


def _setting(setting: Document) -> str:
    held = "-" if setting["held"] is None else str(setting["held"])
    return held if setting["as_wanted"] else f"{held} (wanted {setting['wanted']})"


def _routes(one: Document) -> str:
    differing = [setting for setting in one["settings"] if not setting["as_wanted"]]
    if not one["settings"]:
        return "-"
    if not differing:
        return f"{counted(len(one['settings']), 'setting')}, all as wanted"
    first = differing[0]
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return f"{first['knob']} {_setting(first)}{more}"


def _told(one: Document) -> str:
    if one["told"] is None:
        return "nothing yet"
    if one["told"] == one["acked"]:
        return f"{one['told']}, acknowledged"
    return f"{one['told']}, not acknowledged" + (f" (holds {one['acked']})" if one["acked"] else "")
