"""The JSON schema of a scenario, for editors; and the tables of its keys, for the documentation."""

from collections.abc import Iterator

from flyball_twin.scenario.forms import ByName, Form, ListOf, Schema
from flyball_twin.scenario.keys import SCENARIO
from flyball_twin.scenario.sections import Section


def schema() -> Schema:
    """JSON schema, draft 2020-12. It says what the reader says of each value, not whether they fit each other."""
    defs: Schema = {}
    root = SCENARIO.schema(defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Flyball scenario",
        "description": "Fleet, traffic, faults and seeds of a simulated run.",
        **root,
        "$defs": dict(sorted(defs.items())),
    }


def tables() -> str:
    """A heading and a table in Markdown for each section, the document's own first."""
    parts = [part for section in _sections(SCENARIO, set()) for part in _table(section)]
    return "\n".join(parts) + "\n"


def _sections(form: Form, told: set[str]) -> Iterator[Section]:
    if isinstance(form, Section) and form.name not in told:
        told.add(form.name)
        yield form
        for key in form.keys:
            yield from _sections(key.form, told)
    elif isinstance(form, ListOf | ByName):
        yield from _sections(form.form, told)


def _table(section: Section) -> Iterator[str]:
    yield f"### {section.name}"
    yield ""
    if section.short:
        yield f"`{section.short}` alone may stand for all of it."
        yield ""
    yield "| key | is | if left out | |"
    yield "|---|---|---|---|"
    for key in section.keys:
        chosen = "one of these" if key.name in section.one_of else key.default
        yield f"| `{key.name}` | {_cell(key.form)} | {'must be there' if key.required else chosen} | {key.doc} |"
    yield ""


def _cell(form: Form) -> str:
    """What a form wants, with links to the tables that say more."""
    if isinstance(form, Section):
        return f"[{form.what}](#{form.name})"
    if isinstance(form, ListOf):
        return f"list of {_cell(form.form)}"
    if isinstance(form, ByName):
        return f"by {form.key.wanted}: {_cell(form.form)}"
    return form.wanted
