"""The pages leave nothing out: commands, keys, exit codes and failures have their place, and each path exists."""

import re
from collections.abc import Iterator

import click
import pytest

from doc_blocks import ROOT, pages
from flyball_cli import main
from flyball_service.config import Config
from flyball_service.keys import walk

COMMAND_PAGES = ("docs/commands.md", "docs/operator.md")


def text_of(*names: str) -> str:
    """These pages, one after the other; one that is not there is empty."""
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).exists())


def commands(group: click.Group, words: tuple[str, ...] = ("flyball",)) -> Iterator[str]:
    """Every command that can be called, as one types it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        elif command is not None and not command.hidden:
            yield " ".join((*words, name))


@pytest.mark.parametrize("command", sorted(commands(main.cli)))
def test_every_command_is_documented(command: str) -> None:
    """A command has its place on the page of commands or on the operator's."""
    first, *rest = command.removeprefix("flyball ").split()
    # Verbs of one group may stand together: `flyball topics create|check`.
    together = rf"flyball {first} (?:[\w-]+\|)*{rest[0]}\b" if rest else rf"flyball (?:[\w-]+\|)*{first}\b"

    assert re.search(together, text_of(*COMMAND_PAGES)), f"{command} is on neither of {', '.join(COMMAND_PAGES)}"


def test_every_exit_code_is_documented() -> None:
    """The codes that the command's root speaks of are those of the page's table."""
    said = set(re.findall(r"(?<![\w.])(\d+) [a-z]", (main.__doc__ or "").split("Exit codes:")[1]))
    table = set(re.findall(r"^\| (\d+) \|", text_of("docs/commands.md"), re.MULTILINE))

    assert said == table
    assert {str(main.BAD_INPUT), str(main.INTERRUPTED)} <= table


def test_every_key_of_the_configuration_is_documented() -> None:
    """No key is on the page that is not read, and none is read that is not on the page."""
    page = text_of("docs/configuration.md")
    shown = set(re.findall(r"^([a-z_.\[\]]+): ", page, re.MULTILINE)) - {"flyball.yaml"}

    assert {path for path, _ in walk(Config)} == shown


@pytest.mark.parametrize("page", pages())
def test_every_path_on_a_page_exists(page: str) -> None:
    """What a page points at in the checkout is there."""
    folders = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
    named = re.findall(rf"`((?:{folders})/[\w./-]+\.(?:py|md|yaml|yml|json|svg|toml|txt|in|service))`", text_of(page))

    assert [] == [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_outside_the_site_leads_somewhere(page: str) -> None:
    """The site's own links are checked by its build; these two pages are not on it."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text_of(page))

    assert [] == [link for link in links if not (ROOT / link).exists()]


def test_every_failure_names_its_test() -> None:
    """A row of the failure model is a claim, so each names a test; one that is not there fails above."""
    rows = re.findall(r"^\| (?!what fails|---)(.*) \|$", text_of("docs/failure.md"), re.MULTILINE)

    assert len(rows) > 20
    assert [] == [row for row in rows if not re.search(r"`tests/[\w/]+\.py`$", row)]


def test_every_fault_that_has_a_test_is_in_the_failure_model() -> None:
    """A fault's test that no row names would be found by nobody."""
    page = text_of("docs/failure.md")
    tests = sorted(path.name for path in (ROOT / "tests" / "faults").glob("test_f*.py"))

    assert [] == [name for name in tests if f"tests/faults/{name}" not in page]
