"""What comes from elsewhere: locked packages, generated code, bundled data, licences."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from project_files import ROOT, pyproject

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)( ; (?P<marker>[^\\]+?))?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
VERBS = {"help", "setup", "demo", "test", "check", "bench", "proto", "docs", "fuzz", "soak", "faults-full"}
TRACKED_TEXT = {".cfg", ".in", ".json", ".md", ".proto", ".py", ".pyi", ".toml", ".txt", ".xml", ".yaml", ".yml", ""}
FOLDERS = (
    "agents",
    "cli",
    "controller",
    "core",
    "deploy",
    "docs",
    "log",
    "planner",
    "policies",
    "proto",
    "scripts",
    "service",
    "twin",
)


def entries(lock: Path) -> list[str]:
    """The logical lines of a lock: a package and its hashes each."""
    return lock.read_text().replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_are_names_versions_hashes(lock: Path) -> None:
    """Each line of a lock is one package with its version and hashes; no line names a place to get it from."""
    for line in entries(lock):
        head, *hashes = (part.strip() for part in re.split(r"(?=--hash)", line))

        assert ENTRY.fullmatch(head), head
        assert hashes, f"{head} has no hash"
        assert all(HASH.fullmatch(found) for found in hashes), head
    assert "://" not in lock.read_text()


def test_the_lock_covers_what_is_asked_for() -> None:
    """Each package that pyproject.toml asks for, extras and build included, is in the lock."""
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *pyproject()["build-system"]["requires"],
        *(one for extra in extras.values() for one in extra),
    ]
    names = {re.split(r"[^A-Za-z0-9._-]", one)[0].lower() for one in asked} - {"flyball"}
    locked = {
        found["name"].lower() for line in entries(ROOT / "requirements" / "dev.txt") if (found := ENTRY.match(line))
    }

    assert set() == names - locked


def test_generated_code_has_no_version_check() -> None:
    """The generated code asks for no version: it imports on the oldest protobuf of an engine and on the newest."""
    generated = sorted((ROOT / "proto").rglob("*_pb2*.py"))

    assert len(generated) >= 6
    for path in generated:
        assert "ValidateProtobufRuntimeVersion" not in path.read_text(), path.name
        assert "GRPC_GENERATED_VERSION" not in path.read_text(), path.name


def test_the_licence_is_there() -> None:
    """The licence that the metadata names is the text that ships."""
    text = (ROOT / "LICENSE").read_text()

    assert "Apache-2.0" == pyproject()["project"]["license"]
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_bundled_trace_is_in_the_notice() -> None:
    """NOTICE names each data file that ships, and so does the README beside them; none of either is missing."""
    data = ROOT / "twin" / "flyball_twin" / "data"
    shipped = {path.name for path in data.iterdir() if path.suffix == ".gz"}

    assert shipped
    for page in (ROOT / "NOTICE", data / "README.md"):
        assert shipped == set(re.findall(r"[\w.]+\.csv\.gz", page.read_text()))


def test_the_makefile_has_few_verbs() -> None:
    """The Makefile has the verbs that the documentation names, and no other."""
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)

    assert phony
    assert VERBS == set(phony[1].split())
    assert VERBS == {found[1] for found in re.finditer(r"^([a-z-]+):", makefile, re.MULTILINE)}


def test_nothing_names_a_developers_machine() -> None:
    """No file of the project holds a path of the machine that it was written on."""
    homes = re.compile(r"(?<![\w.])/(?:root|home|Users|work)/\w")
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TRACKED_TEXT]
    paths += [path for path in ROOT.iterdir() if path.suffix in TRACKED_TEXT]
    texts = {path: path.read_text(errors="replace") for path in paths if path.is_file()}

    assert [] == [str(path.relative_to(ROOT)) for path, text in texts.items() if homes.search(text)]


def test_the_version_is_said_once() -> None:
    """The installed version is the one in the code."""
    from flyball_core import __version__

    assert __version__ == importlib.metadata.version("flyball")
