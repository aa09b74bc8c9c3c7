"""The pages on deploying: the files, commands, alerts and versions that they name are there.

Their blocks need machines that the suite has not, so none is run; what can be wrong in them is looked for here.
"""

import re
import subprocess
import sys
from functools import cache

import pytest

from project_paths import CONTAINERS, IMAGES, ROOT
from test_alerts import ALERTS
from test_kubernetes import VERSIONS

PAGES = ("deploy.md", "kubernetes.md")


def text(page: str) -> str:
    """A page."""
    return (ROOT / "docs" / page).read_text()


@cache
def helped(*command: str) -> str:
    """What `flyball COMMAND --help` says; empty if there is no such command."""
    program = f"import sys; sys.argv = ['flyball', *{command!r}, '--help']; from flyball_cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    """Each path below deploy/ that a page names exists."""
    named = set(re.findall(r"\bdeploy/[\w./-]+[\w]", text(page)))

    assert named
    assert [] == sorted(name for name in named if not (ROOT / name).exists())


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_are_there(page: str) -> None:
    """Each `flyball` command in a block, here or in a pod, exists, and takes the options that stand there."""
    lines = re.findall(r"^\$ (?:\S*/|kubectl .* -- )?flyball ([a-z].*)$", text(page), re.MULTILINE)

    assert lines
    for line in lines:
        words = line.split()
        command = words[:2] if words[0] in {"topics", "config", "certs", "twin"} else words[:1]
        said = helped(*command)

        assert said, line
        assert [] == [word for word in words if word.startswith("--") and word not in said], line


def test_every_alert_is_on_the_page() -> None:
    """The table of alerts has each of them, and no other."""
    assert set(ALERTS) == set(re.findall(r"`(Flyball\w+)`", text("deploy.md")))


def test_versions_are_those_that_were_tried() -> None:
    """The versions of Kubernetes on the pages are those of the schema check."""
    assert f"Kubernetes {VERSIONS[0]} and {VERSIONS[1]}" in text("deploy.md")
    assert f"Kubernetes {VERSIONS[0]} and later" in text("kubernetes.md")


def test_numbers_of_packages_are_those_of_the_locks() -> None:
    """How many packages an image has is what its lock says."""
    told = dict(re.findall(r"^\| (`\w+`(?:, `\w+`)?) \| ([\d, ]+) \|", text("deploy.md"), re.MULTILINE))
    pairs = {
        image: int(count)
        for images, counts in told.items()
        for image, count in zip(re.findall(r"\w+", images), counts.split(", "), strict=True)
    }

    assert pairs == {image: (CONTAINERS / f"{image}.lock").read_text().count("==") for image in IMAGES}
