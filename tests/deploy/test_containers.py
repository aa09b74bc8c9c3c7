"""The container files: of one form, from locked packages, and each image can start with what it installs.

No container runtime is needed or used: instructions are read as text, and what an image lacks is hidden from a
fresh interpreter.
"""

import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from flyball_core.version import __version__
from project_paths import CONTAINERS, IMAGES, ROOT, SYSTEMD

LOCKS = (*IMAGES, "build")
BASE = "python:3.11-slim-bookworm"
INSTRUCTIONS = {
    "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR",
}  # fmt: skip
PORTS = {"agent": {7463}, "cli": set(), "controller": {7460, 7461}, "gateway": {8080, 7465}, "twin": set()}
HEAVY = {"numpy", "scipy", "river", "matplotlib"}
HIDING = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    names = frozenset({names!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{{name}} is not in this image", name=name)

sys.meta_path.insert(0, Hidden())
{program}
"""
COMMANDS = {
    "agent": (["agent"], "flyball_agents.node.service"),
    "cli": (["status"], "flyball_cli.operating.status"),
    "controller": (["controller"], "flyball_controller.serving.service"),
    "gateway": (["gateway"], "flyball_agents.gateway.serving"),
    "twin": (["twin", "serve"], "flyball_twin.serving.service"),
}
"""What each image is for: the command, and the module that does it."""


@cache
def instructions(image: str) -> tuple[tuple[str, str], ...]:
    """The instructions of an image's container file, in order, each with its arguments."""
    text = (CONTAINERS / f"{image}.Containerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return tuple((line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines)


def arguments(image: str, instruction: str) -> list[str]:
    """The arguments of each such instruction."""
    return [rest for name, rest in instructions(image) if name == instruction]


@cache
def locked(lock: Path) -> dict[str, frozenset[str]]:
    """Package and version in a lock, each with its hashes."""
    found: dict[str, frozenset[str]] = {}
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        head = line.split()[0]
        if "==" in head:
            found[head] = frozenset(re.findall(r"--hash=(\S+)", line))
    return found


def normal(name: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_in_two_stages_and_runs_as_nobody(image: str) -> None:
    """Only known instructions; a build stage that stays behind; another user than root; `flyball` as what runs."""
    names = [name for name, _ in instructions(image)]

    assert set(names) <= INSTRUCTIONS
    assert [f"{BASE} AS build", BASE] == arguments(image, "FROM")
    assert ["65532:65532"] == arguments(image, "USER")
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in {"COPY", "RUN"})
    assert ["flyball"] == json.loads(arguments(image, "ENTRYPOINT")[0])
    assert f"-t flyball-{image}:{__version__} ." in (CONTAINERS / f"{image}.Containerfile").read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_locked_packages_only(image: str) -> None:
    """Every installation is from a hashed lock, or of the wheel that was just built, without its dependencies."""
    installs = [part for run in arguments(image, "RUN") for part in run.split("&&") if "pip install" in part]

    assert 3 == len(installs)
    for install in installs:
        assert "--require-hashes -r" in install or "--no-deps --no-index" in install, install
    assert f"deploy/containers/build.lock deploy/containers/{image}.lock ./" in arguments(image, "COPY")


@pytest.mark.parametrize("image", IMAGES)
def test_images_differ_in_what_must_differ(image: str) -> None:
    """Container files are alike but for name, ports, health check and command."""
    varying = {"EXPOSE", "HEALTHCHECK", "CMD"}

    def form(name: str) -> list[tuple[str, str]]:
        return [(key, rest.replace(f"{name}.lock", "X")) for key, rest in instructions(name) if key not in varying]

    assert form(IMAGES[0]) == form(image)


@pytest.mark.parametrize("image", IMAGES)
def test_ports_and_health_are_the_services(image: str) -> None:
    """An image exposes its service's default ports, and is asked at /live of its own HTTP door whether it is well."""
    exposed = {int(port) for line in arguments(image, "EXPOSE") for port in line.split()}
    health = "".join(arguments(image, "HEALTHCHECK"))
    asked = re.search(r"http://127\.0\.0\.1:(\d+)/live", health)

    assert PORTS[image] == exposed
    assert bool(exposed) == (asked is not None)
    assert asked is None or int(asked[1]) in exposed


@pytest.mark.parametrize("lock", LOCKS)
def test_an_image_has_what_was_tested(lock: str) -> None:
    """Each package of an image's lock is the version, with the hashes, that the whole suite runs with."""
    tested = locked(ROOT / "requirements" / "dev.txt")
    found = locked(CONTAINERS / f"{lock}.lock")

    assert found
    assert {} == {package: hashes for package, hashes in found.items() if not hashes or hashes != tested.get(package)}
    assert "://" not in (CONTAINERS / f"{lock}.lock").read_text()


def test_the_images_beside_engines_are_light() -> None:
    """Agent and gateway carry no numerics: they run where memory belongs to somebody else."""
    for image in ("agent", "gateway"):
        assert not {package.split("==")[0] for package in locked(CONTAINERS / f"{image}.lock")} & HEAVY


def run_within(image: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter where every package is hidden that the image's lock lacks."""
    has = {normal(package.split("==")[0]) for package in locked(CONTAINERS / f"{image}.lock")} | {"flyball"}
    lacks = sorted(
        name
        for name, owners in packages_distributions().items()
        if not {normal(owner) for owner in owners} & has and name not in sys.stdlib_module_names
    )
    assert {"mypy", "pytest"} <= set(lacks)
    hiding = HIDING.format(names=lacks, program=program)
    return subprocess.run([sys.executable, "-c", hiding], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_its_service_imports(image: str) -> None:
    """With every package hidden that an image's lock lacks, its service's module and Kafka's client are imported."""
    kafka = "" if image == "gateway" else ", flyball_log.kafka"
    done = run_within(image, f"import {COMMANDS[image][1]}, flyball_service.reading{kafka}")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_an_images_command_comes_up(image: str) -> None:
    """So does the command that the image is for."""
    arguments = ["flyball", *COMMANDS[image][0], "--help"]
    done = run_within(image, f"sys.argv = {arguments!r}; from flyball_cli.main import main; main()")

    assert done.returncode == 0, done.stderr
    assert "Usage: flyball" in done.stdout


def test_topics_are_made_from_a_controllers_image() -> None:
    """Whoever may enter a controller's pod can make the topics there: nothing that the image lacks is needed for it."""
    file = ROOT / "deploy" / "kubernetes" / "kafka" / "config" / "controller.yaml"
    arguments = ["flyball", "topics", "check", "--config", str(file)]
    done = run_within("controller", f"sys.argv = {arguments!r}; from flyball_cli.main import main; main()")

    assert 2 == done.returncode, done.stderr
    assert "Kafka credentials cannot be read" in done.stderr


def test_a_missing_package_is_noticed() -> None:
    """The hiding works: what the agent's image lacks cannot be imported within it."""
    assert "numpy is not in this image" in run_within("agent", "import numpy").stderr


def test_a_build_sees_the_packages_and_little_else() -> None:
    """The build context lets in each package and what builds it, and nothing that could hold a secret."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    packages = {path.parent.parent.name for path in ROOT.glob("*/flyball_*/__init__.py")}

    assert "*" == next(line for line in lines if not line.startswith("#"))
    assert packages <= {line.removeprefix("!") for line in lines}
    assert {"!pyproject.toml", "!README.md", "!LICENSE", "!NOTICE", "!deploy/containers/*.lock"} <= set(lines)


def test_each_unit_of_systemd_has_an_image() -> None:
    """What runs under systemd can run in a container."""
    assert {path.stem.removeprefix("flyball-") for path in SYSTEMD.glob("*.service")} <= set(IMAGES)
