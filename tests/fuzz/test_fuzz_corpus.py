"""The corpus: every example that ever taught something keeps the promises, and stays small."""

from pathlib import Path

import pytest

from fuzz_targets import CORPUS, TARGETS, examples, target_of

MOST_EXAMPLES = 20
MOST_BYTES = 200 * 1024


@pytest.fixture(autouse=True)
def _servers_closed(close_what_targets_keep: None) -> None:
    """Some targets keep a server between calls."""


@pytest.mark.parametrize(
    ("target", "example"),
    [(name, path) for name in TARGETS for path in examples(name)],
    ids=lambda each: str(getattr(each, "name", each)),
)
def test_the_example_keeps_the_promises(target: str, example: Path) -> None:
    """What a target's run or a mended defect left in the corpus raises nothing."""
    target_of(target)(example.read_bytes())


def test_every_target_has_examples_and_nobody_else_has() -> None:
    """A target without examples would begin each run from nothing."""
    assert set(TARGETS) == {path.name for path in CORPUS.iterdir()}
    for name in TARGETS:
        assert 1 <= len(examples(name)) < MOST_EXAMPLES, name


def test_the_corpus_is_small() -> None:
    """A clone does not grow with every run of the fuzzer."""
    assert MOST_BYTES > sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
