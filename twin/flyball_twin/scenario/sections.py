"""Sections: mappings with keys that are known, each with its form and what it is for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

import yaml

from flyball_twin.scenario.forms import Entry, Form, ScenarioReader, Schema


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    form: Form
    doc: str
    default: str = ""
    """What holds if it is left out, for the documentation; empty: see `doc`."""
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A mapping with known keys."""

    name: str
    """Of the schema's definition."""
    what: str
    """As errors call it."""
    keys: tuple[Key, ...]
    one_of: tuple[str, ...] = ()
    """Keys of which exactly one must be there."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys that a key does not make sense without."""
    only_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys that make sense only beside one of some others."""
    short: str = ""
    """A key whose value may stand for the whole section; empty: none."""

    @property
    def wanted(self) -> str:
        """In a few words."""
        return self.what

    def read(self, reader: ScenarioReader, node: yaml.Node) -> Entry:
        """The section; every fault in it is kept. Raises `InvalidDocument` if it is no mapping."""
        known = {key.name: key for key in self.keys}
        if self.short and isinstance(node, yaml.ScalarNode):
            return Entry(node, {self.short: known[self.short].form.read(reader, node)}, {self.short: node})
        values, nodes = {}, {}
        for name, key_node, value in reader.items(node, self.what):
            if name in known:
                values[name], nodes[name] = reader.attempt(known[name].form, value), value
            else:
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(known)
                reader.fault(key_node, f"unknown key {name!r} in {self.what}", hint)
        self._judge(reader, Entry(node, values, nodes))
        return Entry(node, values, nodes)

    def _judge(self, reader: ScenarioReader, entry: Entry) -> None:
        """Keep what is missing and what does not go together."""
        there = entry.nodes.keys()
        for key in self.keys:
            if key.required and key.name not in there:
                hint = f"add `{key.name}: ...`, {key.form.wanted}"
                reader.fault(entry.node, f"{self.what} does not say its {key.name}", hint)
        if self.one_of and len(chosen := [name for name in self.one_of if name in there]) != 1:
            found = f"{' and '.join(chosen)} together" if chosen else "none"
            reader.fault(entry.node, f"{self.what} has one of {', '.join(self.one_of)}; here is {found}")
        for name, others in self.needs.items():
            for other in others:
                if name in there and other not in there:
                    reader.fault(entry.node, f"{name!r} in {self.what} needs {other!r} beside it")
        for name, others in self.only_with.items():
            if name in there and not any(other in there for other in others):
                reader.fault(entry.at(name), f"{name!r} in {self.what} belongs to {' or '.join(others)}")

    def schema(self, defs: Schema) -> Schema:
        """A reference to its definition, which is added."""
        if self.name not in defs:
            defs[self.name] = {}
            defs[self.name] = self._definition(defs)
        return {"$ref": f"#/$defs/{self.name}"}

    def _definition(self, defs: Schema) -> Schema:
        found: Schema = {
            "type": "object",
            "properties": {key.name: {"description": key.doc, **key.form.schema(defs)} for key in self.keys},
            "additionalProperties": False,
        }
        if required := [key.name for key in self.keys if key.required]:
            found["required"] = required
        if self.one_of:
            found["oneOf"] = [{"required": [name]} for name in self.one_of]
        if self.needs:
            found["dependentRequired"] = {name: list(others) for name, others in self.needs.items()}
        if self.only_with:
            found["dependentSchemas"] = {
                name: {"anyOf": [{"required": [other]} for other in others]} for name, others in self.only_with.items()
            }
        if not self.short:
            return found
        short = next(key for key in self.keys if key.name == self.short)
        return {"anyOf": [short.form.schema(defs), found]}
