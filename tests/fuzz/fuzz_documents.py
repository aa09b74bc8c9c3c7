"""Targets: the two documents that people write, the policy document and the configuration file.

The promises: a wrong one is refused with `InvalidDocument`, its place in it and one line of text that can be
written anywhere; a right one is taken by `step`, which goes on within its promises whatever it says.
"""

import tempfile
from pathlib import Path

from flyball_core.errors import InvalidDocument, Rejected
from flyball_core.inputs import PolicyText
from flyball_policies.reading import read_document
from flyball_service.reading import read_config
from fuzz_bytes import says
from fuzz_wire import live_on, publishable, small_pool
from harness.scripted_engine import POOL

SECONDS = 3
_LINE_ENDS = ("\n", "\r", "\x85", "\u2028", "\u2029")


def policy(data: bytes) -> None:
    """A policy document: read, and put in force."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
        _refused(text)
        return
    try:
        document = read_document(text)
    except InvalidDocument as error:
        _placed(error, text)
        if len(data) % 8:
            return  # what `step` makes of a refusal does not hang on the document
    else:
        assert document == read_document(text)
    pool = small_pool()
    publishable(pool.put(PolicyText(pool=POOL, text=text, author="op")))
    live_on(pool, SECONDS)


def _refused(text: str) -> None:
    try:
        read_document(text)
    except InvalidDocument as error:
        _placed(error, text)
    else:
        raise AssertionError("text that is not UTF-8 was taken")


def _placed(error: InvalidDocument, text: str) -> None:
    """The error tells a place that there is, in text that can be sent."""
    assert str(error).encode()
    assert 1 <= error.line <= sum(map(text.count, _LINE_ENDS)) + 1
    assert error.column >= 1


def configuration(data: bytes) -> None:
    """A configuration file: read whole, or refused with its place."""
    with tempfile.TemporaryDirectory(prefix="flyball-fuzz-") as folder:
        file = Path(folder) / "flyball.yaml"
        file.write_bytes(data)
        try:
            config = read_config(file)
        except InvalidDocument as error:
            _placed(error, data.decode(errors="surrogateescape"))
        except Rejected as error:
            says(error)
        else:
            assert config.file == file
            assert [path.name for path in Path(folder).iterdir()] == [file.name]  # reading makes nothing
