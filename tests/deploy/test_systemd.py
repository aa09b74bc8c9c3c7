"""The systemd units: systemd itself reads them without a word, and they fit their configuration files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flyball_service.reading import read_config
from project_paths import SYSTEMD

UNITS = ("agent", "controller", "gateway")
PROGRAM = "/opt/flyball/bin/flyball"
MOST_EXPOSURE = 20
"""In tenths: `systemd-analyze security` gives 0 (nothing is exposed) to 100, and 96 to a unit without any setting."""


def unit(name: str) -> Path:
    """A unit's file."""
    return SYSTEMD / f"flyball-{name}.service"


def settings(name: str) -> dict[str, list[str]]:
    """The settings of a unit, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in unit(name).read_text().splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze. Skips the test without it, or fails it if nothing may be missing."""
    program = shutil.which("systemd-analyze")
    if program is None and os.environ.get("FLYBALL_REQUIRE") != "all":
        pytest.skip("there is no systemd-analyze on the path")
    assert program is not None, "there is no systemd-analyze on the path"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def copied(name: str, folder: Path) -> str:
    """A copy of the unit that starts a program which exists on this machine, for systemd looks for it."""
    text = unit(name).read_text()
    assert PROGRAM in text
    path = folder / unit(name).name
    path.write_text(text.replace(PROGRAM, "/bin/true"))
    return str(path)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say: no unknown key, no wrong value."""
    done = analyze("verify", "--man=no", copied(name, tmp_path))

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_the_check_can_fail(tmp_path: Path) -> None:
    """A misspelt key is found."""
    path = Path(copied("agent", tmp_path))
    path.write_text(path.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))

    assert "NoNewPrivilege" in analyze("verify", "--man=no", str(path)).stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_hardened(name: str, tmp_path: Path) -> None:
    """The measure that systemd has for what a service could reach stays under 2.0 of 10."""
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", copied(name, tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_configuration_fits_the_unit(name: str) -> None:
    """Each unit's example file is read, keeps its state in the unit's folder, and takes the unit's credentials."""
    config = read_config(SYSTEMD / "config" / f"{name}.yaml")
    found = settings(name)
    state = Path("/var/lib") / found["StateDirectory"][0]

    assert [f"{PROGRAM} {name} --config /etc/flyball/{name}.yaml"] == found["ExecStart"]
    assert getattr(config, name) is not None
    assert config.state.is_relative_to(state)
    assert name != "controller" or Path(config.log).is_relative_to(state)
    assert config.tls is not None
    assert Path(f"/run/credentials/{unit(name).name}") == config.tls.folder
    assert {"tls.crt", "tls.key", "ca.crt"} == {value.split(":")[0] for value in found["LoadCredential"]}


@pytest.mark.parametrize("name", UNITS)
def test_a_wrong_configuration_is_not_tried_for_ever(name: str) -> None:
    """A service is started again whatever ends it, but for exit code 2, which is a wrong configuration."""
    found = settings(name)

    assert (["always"], ["2"]) == (found["Restart"], found["RestartPreventExitStatus"])
    assert ["0"] == found["StartLimitIntervalSec"]


def test_only_the_agent_sees_devices() -> None:
    """The agent reaches NVIDIA's character devices and no other; controller and gateway reach none."""
    assert ["char-nvidia* rw"] == settings("agent")["DeviceAllow"]
    assert all(["closed"] == settings(name)["DevicePolicy"] for name in UNITS)
    assert all(["yes"] == settings(name)["PrivateDevices"] for name in ("controller", "gateway"))
