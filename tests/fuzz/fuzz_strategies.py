"""Hypothesis strategies of bytes: examples of a target's corpus, mutated, and bytes of no meaning."""

from functools import cache

from hypothesis import strategies as st

from fuzz_bytes import Draw, edited
from fuzz_targets import examples


@cache
def _corpus(target: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in examples(target))


def mutated(target: str, *more: bytes) -> st.SearchStrategy[bytes]:
    """Inputs for a target: mostly its examples (and `more`) with some edits, now and then anything."""
    known = st.sampled_from([*_corpus(target), *more, b""])
    changed = st.builds(lambda base, edits: edited(base, Draw(edits)), known, st.binary(max_size=60))
    spliced = st.builds(lambda one, other, at: one[:at] + other[at:], known, known, st.integers(0, 200))
    return st.one_of(changed, changed, spliced, st.binary(max_size=200))
