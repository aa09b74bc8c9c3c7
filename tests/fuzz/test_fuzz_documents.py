"""Policy documents and configuration files: refused with their place, or taken and lived under."""

import time

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_core.errors import InvalidDocument
from flyball_policies.reading import read_document
from fuzz_documents import configuration, policy
from fuzz_strategies import mutated


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("policy"))
def test_policy_with_any_bytes(data: bytes) -> None:
    """A document is refused with its place, or `step` lives under it within its promises."""
    policy(data)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("configuration"))
def test_configuration_with_any_bytes(data: bytes) -> None:
    """A file is refused with its place, or read; reading makes no file."""
    configuration(data)


@pytest.mark.parametrize(
    "text",
    [
        'version: 1\nmode: "\\U00110000"\n',  # no character has that number
        f"%YAML {'1' * 5000}.1\n---\nversion: 1\n",  # more digits than Python makes a number of
        'version: 1\nlanes: {"\\ud800": {}}\n',  # half a character, which no record can carry
        'version: 1\npools: ["\\udfff"]\n',
    ],
)
def test_what_the_scanner_trips_over_is_refused(text: str) -> None:
    """Escapes and directives that YAML's scanner itself does not bear are refused like any other fault."""
    with pytest.raises(InvalidDocument):
        read_document(text)


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nhold: '{'9' * 60_000}x'\n",
        f"version: 1\nhold: '{'.' * 60_000}s'\n",
        "{" + ",".join(f"{number:x}" for number in range(11_000)) + "}",
        "[" * 60_000,
    ],
    ids=["digits", "dots", "keys", "brackets"],
)
def test_a_document_of_60_kib_is_refused_within_3_s(text: str) -> None:
    """`step` reads documents, so none may hold it up: what takes long is the work of a second, not of a minute."""
    began_s = time.process_time()
    with pytest.raises(InvalidDocument):
        read_document(text)

    assert 3.0 > time.process_time() - began_s
