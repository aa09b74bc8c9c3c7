"""The keys of the configuration file are all documented, bounded and exemplified."""

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from flyball_service import config as sections
from flyball_service.config import Config
from flyball_service.forms import Form, Within
from flyball_service.keys import Key, keys_of, walk

KEYS = dict(walk(Config))


@pytest.mark.parametrize("path", KEYS)
def test_every_key_says_what_it_is_for(path: str) -> None:
    """Each field has a docstring, a whole sentence or a phrase of some words."""
    doc = KEYS[path].doc

    assert len(doc) > 8
    assert doc.rstrip().endswith((".", ")"))
    assert "  " not in doc


@pytest.mark.parametrize("path", [path for path, key in KEYS.items() if key.of in (int, float)])
def test_every_number_has_bounds(path: str) -> None:
    """No number is taken whatever it is, and every default lies within its bounds."""
    key = KEYS[path]

    assert isinstance(key.mark, Within)
    if isinstance(key.default, (int, float)):
        assert key.mark.low <= key.default <= key.mark.high


@pytest.mark.parametrize("path", [path for path, key in KEYS.items() if key.of is str])
def test_every_text_has_a_meaning(path: str) -> None:
    """No text is taken as it comes."""
    assert KEYS[path].mark is not None


@pytest.mark.parametrize("path", [path for path, key in KEYS.items() if key.required])
def test_every_key_that_must_be_given_has_an_example(path: str) -> None:
    """An example file can be written without asking."""
    assert KEYS[path].example


def test_every_section_is_reached() -> None:
    """No dataclass of the configuration is forgotten: all of them hang together below the file."""
    reached = {key.of for key in KEYS.values() if key.section} | {Config}
    there = {one for one in vars(sections).values() if isinstance(one, type) and is_dataclass(one)} - {Within}

    assert {one for one in there if one.__module__ == sections.__name__} == reached


def test_durations_are_written_without_their_unit() -> None:
    """A field in seconds is a key without `_s`; other names are the same."""
    written = {key.field: key.name for key in KEYS.values()}

    assert written["tick_s"] == "tick"
    assert written["engines"] == "engines"
    assert all(field.removesuffix("_s") == name for field, name in written.items())


def test_no_two_keys_of_a_section_are_written_alike() -> None:
    """Leaving the unit out makes no two keys the same."""
    for key in [key for key in KEYS.values() if key.section]:
        names = [inner.name for inner in keys_of(key.of)]
        assert len(names) == len(set(names))


def test_the_file_itself_is_no_key() -> None:
    """Where it was read from is said by nobody but the reader."""
    assert "file" in {one.name for one in fields(Config)}
    assert "file" not in KEYS


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("controller.tick", "duration"),
        ("controller.create_log", "true | false"),
        ("controller.policies", "path by name"),
        ("agent.gpus", "nvml | none"),
        ("agent.controllers", "list of HOST:PORT"),
        ("agent.engines", "list of section"),
        ("agent.engines[].gpus", "list of whole number"),
        ("agent.spool.megabytes", "number"),
        ("log", Form.LOG.value),
    ],
)
def test_types_are_said_in_words(path: str, wanted: str) -> None:
    """A type is said as an operator writes its values."""
    key: Key = KEYS[path]
    default: Any = key.default

    assert key.wanted == wanted
    assert default is not None
