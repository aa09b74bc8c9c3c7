"""Every fenced block of every page says how it is kept true, and each claim can be held to something."""

import re

import pytest

from doc_blocks import ROOT, NotRun, Run, Shape, blocks_of, pages


@pytest.mark.parametrize("page", pages())
def test_every_block_has_a_marker(page: str) -> None:
    """No block on a page is just there: it is run, compared, or left out for a reason that counts."""
    unmarked = [block.where for block in blocks_of(page) if block.marker is None]

    assert [] == unmarked, "put a marker directly above each; CONTRIBUTING.md says which there are"


def test_every_shape_is_compared_by_a_test() -> None:
    """The name of each documented JSON document occurs in a test, in quotes."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))
    shapes = [(block.where, block.marker.name) for page in pages() for block in blocks_of(page)
              if isinstance(block.marker, Shape)]  # fmt: skip

    assert [] == [(where, name) for where, name in shapes if f'"{name}"' not in tests]


def test_json_that_is_no_shape_is_a_file() -> None:
    """A JSON example is compared key by key, or it is read by the command that it is meant for."""
    loose = [
        block.where
        for page in pages()
        for block in blocks_of(page)
        if block.language == "json" and not isinstance(block.marker, (Shape, Run))
    ]

    assert [] == loose


def test_what_can_be_judged_is_not_left_out() -> None:
    """YAML and Python have a judge here, so they are left out only where another program than Flyball reads them."""
    elsewhere = {"needs Kubernetes", "needs a container runtime", "needs systemd"}
    left_out = [
        block.where
        for page in pages()
        for block in blocks_of(page)
        if isinstance(block.marker, NotRun)
        and block.language in ("yaml", "python")
        and block.marker.reason not in elsewhere
    ]

    assert [] == left_out


def test_no_page_hides_a_marker() -> None:
    """A marker that stands anywhere but directly above a block would be believed and mean nothing."""
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        comments = re.findall(r"^ *<!-- (?:run|shape|not run): .*? -->$", text, re.MULTILINE)

        assert len(comments) == sum(block.marker is not None for block in blocks_of(page)), page
