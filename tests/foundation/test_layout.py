"""The layout: lists that must agree, packages that say what they are, layers that hold."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from project_files import ROOT, modules, packages, pyproject

MOST_MODULE_LINES = 500
MOST_FUNCTION_LINES = 45
NAMES_THAT_SAY_NOTHING = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}
PACKAGES = [str(package.relative_to(ROOT)) for package in packages()]
LAYERS = (
    "pyproject.toml",
    "core",
    "proto",
    "policies",
    "log",
    "service",
    "controller",
    "agents",
    "twin",
    "planner",
    "cli",
)


def relative(path: Path) -> str:
    """A path as a message should show it."""
    return str(path.relative_to(ROOT))


def test_the_lists_of_packages_agree() -> None:
    """What a wheel carries, what an editable install sees and what exists are the same packages."""
    build = pyproject()["tool"]["hatch"]["build"]

    assert sorted(build["targets"]["wheel"]["packages"]) == PACKAGES
    assert sorted(build["dev-mode-dirs"]) == sorted(package.split("/")[0] for package in PACKAGES)


def test_every_tool_sees_every_package() -> None:
    """Type checker, linter and import layers cover each package; none was forgotten when it was added."""
    tools = pyproject()["tool"]
    names = {package.split("/")[1] for package in PACKAGES}
    roots = {package.split("/")[0] for package in PACKAGES}

    assert set(PACKAGES) <= set(tools["mypy"]["files"])
    assert roots <= set(tools["mypy"]["mypy_path"])
    assert roots <= set(tools["ruff"]["src"])
    assert names == set(tools["ruff"]["lint"]["isort"]["known-first-party"])
    assert names == set(tools["importlinter"]["root_packages"])


def test_no_module_is_exempt_from_types() -> None:
    """There are no exemptions from the strict type check, neither by configuration nor in the code."""
    assert "overrides" not in pyproject()["tool"]["mypy"]
    folders = [ROOT / package for package in PACKAGES] + [ROOT / "scripts", ROOT / "tests"]
    excuse = "# type: " + "ignore"

    assert [] == [relative(path) for path in modules(*folders) if excuse in path.read_text()]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed_and_say_why(package: str) -> None:
    """Each package ships its types and opens with why it exists."""
    assert (ROOT / package / "py.typed").is_file()
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_and_functions_stay_small(package: str) -> None:
    """No module has more than 500 lines and no function more than 45: a giant file is a regret."""
    too_long: list[str] = []
    for path in modules(ROOT / package):
        text = path.read_text()
        if text.count("\n") > MOST_MODULE_LINES:
            too_long.append(relative(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                too_long += [f"{relative(path)}:{node.name} ({lines})"] if lines > MOST_FUNCTION_LINES else []

    assert [] == too_long


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_named_after_what_they_do(package: str) -> None:
    """No module has a name that could hold anything."""
    assert [] == [relative(path) for path in modules(ROOT / package) if path.stem in NAMES_THAT_SAY_NOTHING]


def test_test_modules_have_names_of_their_own() -> None:
    """Outside packages a test module's name (a conftest's apart) occurs once: it is all that tells it from others."""
    plain = (path for path in modules(ROOT / "tests") if not (path.parent / "__init__.py").exists())
    names = [path.stem for path in plain if path.stem != "conftest"]

    assert [] == sorted({name for name in names if names.count(name) > 1})


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/flyball_core/planted.py", "import flyball_proto.codec", "Imports run down only"),
        ("controller/flyball_controller/planted.py", "import flyball_agents", "Imports run down only"),
        ("controller/flyball_controller/planted.py", "import flyball_twin", "never learns the simulator"),
        ("controller/flyball_controller/machine/planted.py", "import time", "Pure modules have no clock"),
        ("proto/flyball_proto/codec/planted.py", "import grpc", "Pure modules have no clock"),
    ],
)
def test_the_layers_are_held(module: str, line: str, contract: str, tmp_path: Path) -> None:
    """An import that the design forbids breaks the contract of that name."""
    for name in LAYERS:
        if name == "pyproject.toml":
            shutil.copy(ROOT / name, tmp_path)
        else:
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc", "data", "*.gz"))
    (tmp_path / module).write_text(f'"""Planted."""\n\n{line}\n')
    roots = os.pathsep.join(str(tmp_path / name) for name in LAYERS[1:])
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": roots}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert any(contract in said and "BROKEN" in said for said in done.stdout.splitlines()), done.stdout
