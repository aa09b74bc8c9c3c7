"""The compose file: at one with the container files, the configuration and the certificates that it asks for.

Structure only: that the compose specification accepts it was tried by hand (docs/deploy.md says with what).
"""

import os
import re
import shlex
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import yaml

from flyball_core.addresses import split_address
from flyball_core.inputs import Mode
from flyball_core.version import __version__
from flyball_policies.reading import read_document
from flyball_service.reading import read_config
from project_paths import COMPOSE, IMAGES

FILE: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("flyball-")}
CONFIG = read_config(COMPOSE / "flyball.yaml")
Section = TypeVar("Section")


def present(section: Section | None) -> Section:
    """The section, which must be in the file."""
    assert section is not None
    return section


CONTROLLER = present(CONFIG.controller)
AGENT = present(CONFIG.agent)
GATEWAY = present(CONFIG.gateway)
TWIN = present(CONFIG.twin)


def asked_for() -> set[str]:
    """The folders of certificates that the script makes."""
    script = (COMPOSE / "make-certificates").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^flyball certs dev .*$", script, re.MULTILINE)
    pairs = [word.split("=") for word in shlex.split(line) if "=" in word]
    return {f"{role}-{name}" for name, role in pairs}


def hosts_of_certificates() -> set[str]:
    """The host names that the certificates hold for."""
    return set(re.findall(r"--host (\S+)", (COMPOSE / "make-certificates").read_text()))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_mounts_what_is_there(name: str) -> None:
    """Each mounted file exists beside the compose file, and each volume is declared; files are mounted read-only."""
    for mount in SERVICES[name].get("volumes", ()):
        source, target, *mode = mount.split(":")

        assert target.startswith("/")
        if source.startswith("."):
            assert (COMPOSE / source).is_file(), source
            assert ["ro"] == mode
        else:
            assert source in FILE["volumes"], source
    assert set(SERVICES[name].get("depends_on", ())) <= set(SERVICES)


def test_every_volume_is_used() -> None:
    """No volume is declared that no service mounts."""
    used = {mount.split(":")[0] for mount in chain(*(service.get("volumes", ()) for service in SERVICES.values()))}

    assert set(FILE["volumes"]) == {source for source in used if not source.startswith(".")}


def test_images_are_ours_and_of_this_version() -> None:
    """Each of our images is one that a container file here builds, at this version; the others name theirs."""
    assert {service["image"] for service in OURS.values()} == {f"flyball-{name}:{__version__}" for name in IMAGES}
    assert all(re.fullmatch(r"[a-z/-]+:\d+\.\d+\.\d+", service["image"]) for service in SERVICES.values())


@pytest.mark.parametrize("name", sorted(OURS))
def test_rights_are_the_least(name: str) -> None:
    """Each of our containers has a read-only root, no capability, and no way to more of either."""
    assert OURS[name]["read_only"] is True
    assert ["ALL"] == OURS[name]["cap_drop"]
    assert ["no-new-privileges:true"] == OURS[name]["security_opt"]


def test_nothing_but_the_gateway_is_published_and_that_on_loopback() -> None:
    """From outside only the gateway is reached, and only from this machine."""
    assert {"gateway": ["127.0.0.1:8080:8080"]} == {
        name: service["ports"] for name, service in SERVICES.items() if "ports" in service
    }


def test_each_service_reads_the_one_file() -> None:
    """Each service is started on the mounted configuration, and its section is there."""
    for name in ("controller-1", "controller-2", "agent", "gateway", "twin"):
        *command, option, file = SERVICES[name]["command"]
        section = command[0]

        assert ("--config", "/etc/flyball/flyball.yaml") == (option, file)
        assert command == (["twin", "serve"] if section == "twin" else [section])
        assert getattr(CONFIG, section) is not None
        assert f"./flyball.yaml:{file}:ro" in SERVICES[name]["volumes"]


def test_topics_are_made_as_the_services_connect() -> None:
    """What makes the topics reads the file and the certificates of the services, and shares nobody's network."""
    topics = SERVICES["topics"]

    assert ["topics", "create"] == topics["command"][:2]
    assert ["--config", "/etc/flyball/flyball.yaml"] == topics["command"][-2:]
    assert {"./flyball.yaml:/etc/flyball/flyball.yaml:ro", "tls:/etc/flyball-tls:ro"} == set(topics["volumes"])
    assert "on-failure" == topics["restart"]
    assert "network_mode" not in topics


def test_addresses_are_those_of_services() -> None:
    """Every host in the configuration is a service of the compose file, at a port that it listens on there."""
    listening = {
        ("controller-1", split_address(CONTROLLER.listen)[1]),
        ("controller-2", split_address(CONTROLLER.listen)[1]),
        ("gateway", split_address(GATEWAY.http)[1]),
        ("kafka", 9093),
        *(("twin", split_address(engine.listen)[1]) for engine in TWIN.engines),
    }
    urls = [engine.metrics for engine in AGENT.engines] + [engine.url for engine in GATEWAY.engines]
    urls += [gateway.metrics for gateway in AGENT.gateways] + [CONFIG.log]
    called = {(parts.hostname, parts.port) for parts in map(urlsplit, urls)}
    called |= {split_address(address) for address in (*GATEWAY.controllers, *TWIN.controllers)}

    assert called <= listening
    assert {host for host, _ in listening} <= set(SERVICES)
    assert all(SERVICES[name]["hostname"] == name for name in ("controller-1", "controller-2"))


def test_engines_are_the_same_for_all() -> None:
    """The agent watches, and the gateway fronts, exactly the engines that the twin serves."""
    served = {engine.engine for engine in TWIN.engines}

    assert served == {engine.engine for engine in AGENT.engines}
    assert served == {engine.engine for engine in GATEWAY.engines}


def test_there_is_a_certificate_for_everybody() -> None:
    """The script makes a certificate for each service under its own name, and for the hosts that are called."""
    needed = {f"agent-{AGENT.name}", f"gateway-{GATEWAY.name}"}
    needed |= {f"engine-{engine.engine}" for engine in TWIN.engines}
    needed |= {"controller-controller-1", "controller-controller-2", "viewer-kafka-client"}
    needed |= {SERVICES["cli"]["environment"]["FLYBALL_TLS"].rsplit("/")[-1]}
    called = {split_address(address)[0] for address in TWIN.controllers} | {"kafka"}

    assert needed <= asked_for()
    assert called == hosts_of_certificates()
    assert Path("/etc/flyball-tls/viewer-kafka-client") == present(CONFIG.kafka).tls_folder
    assert {
        address.split(":")[0] for address in SERVICES["cli"]["environment"]["FLYBALL_CONTROLLERS"].split(",")
    } <= called


def test_the_policy_starts_in_advise() -> None:
    """The try-out changes nothing by itself either."""
    document = read_document((COMPOSE / "policy-chat.yaml").read_text(), "policy-chat.yaml")

    assert Mode.ADVISE == document.mode


def test_config_check_finds_nothing_wrong(tmp_path: Path) -> None:
    """With the certificates that the script makes, `flyball config check` finds no fault on either host."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "kafka").mkdir()
    script = ["sh", str(COMPOSE / "make-certificates"), str(tmp_path / "tls"), str(tmp_path / "kafka")]
    subprocess.run(script, env=env, check=True, capture_output=True)
    (tmp_path / "policy-chat.yaml").write_text((COMPOSE / "policy-chat.yaml").read_text())
    text = (COMPOSE / "flyball.yaml").read_text().replace("/etc/flyball-tls", str(tmp_path / "tls"))
    for host in ("controller-1", "controller-2"):
        file = tmp_path / f"{host}.yaml"
        file.write_text(text.replace("  listen: 0.0.0.0:7460", f"  name: {host}\n  listen: 0.0.0.0:7460"))
        done = subprocess.run(
            ["flyball", "config", "check", str(file)], env=env, check=False, capture_output=True, text=True
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert f"controller {host}" in done.stdout
