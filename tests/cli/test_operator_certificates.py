"""As whom an operator's command talks to a controller, and whether that is the controller it meant: by certificate."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer, call
from flyball_cli.operating.connection import own_certificate
from flyball_core.errors import Rejected
from flyball_service.config import TlsConfig
from flyball_service.tls import Tls
from issued_certificates import certify, certify_server
from operator_examples import pool, status
from scripted_controller import Script, scripted_controller

Flyball = Callable[..., Answer]

WHY = ("--reason", "incident 4711", "--author", "alice")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a controller, two operators and a viewer."""
    folder = tmp_path_factory.mktemp("certs")
    wanted = ("c-0=controller", "alice=operator", "bob=operator", "eve=viewer")
    assert 0 == call("certs", "dev", folder, *wanted, "--host", "controllers.test").code
    return folder


@pytest.fixture
def script() -> Script:
    """A controller of a well fleet."""
    return Script(status(pool()))


def test_certificates_speak_for_themselves(flyball: Flyball, script: Script, certificates: Path) -> None:
    """With certificates the author is left to them; several operators in a folder are asked about."""
    server = Tls(TlsConfig(folder=certificates / "controller-c-0")).server_credentials()
    with scripted_controller(script, server) as at:
        alice = ("--tls", certificates / "operator-alice", "--controller", at)

        assert 0 == flyball("pause", "chat", "--reason", "why", *alice).code
        assert "" == script.orders[0].author
        assert 2 == flyball("pause", "chat", *WHY, *alice).code
        assert "operator-alice or" in flyball("status", "--tls", certificates, "--controller", at).err
        plain = flyball("status", "--controller", at)

    assert 2 == plain.code
    assert f"no controller answered at {at}" in plain.err
    assert "--tls" in plain.err


def test_a_name_stands_for_all_its_controllers(
    flyball: Flyball, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every address that a name resolves to is asked, whatever host names the controllers' certificates bear."""
    server = Tls(TlsConfig(folder=certificates / "controller-c-0")).server_credentials()
    one, two = Script(status(pool("chat"), controller="a")), Script(status(pool("batch"), controller="b"))
    asked: list[str] = []

    def resolve(host: str, port: int, *_: int, **__: int) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 1)]

    with (
        scripted_controller(one, server) as at,
        scripted_controller(two, server, at=f"127.0.0.2:{at.rpartition(':')[2]}"),
    ):
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        name = f"controllers.test:{at.rpartition(':')[2]}"
        found = flyball("status", "--controller", name, "--tls", certificates / "operator-alice", "--json")

    assert (0, ["batch", "chat"]) == (found.code, [one["pool"] for one in found.document["pools"]])
    assert ["controllers.test"] == asked


@pytest.mark.parametrize("role", ["agent", "engine", "operator"])
def test_only_a_controller_passes_for_one(flyball: Flyball, script: Script, tmp_path: Path, role: str) -> None:
    """A certificate of another role that may serve, under the right host name, is told nothing and gives nothing."""
    impostor = certify_server(tmp_path, role, "mallory")
    alice = certify(tmp_path, "operator", "alice")
    with scripted_controller(script, Tls(TlsConfig(folder=impostor)).server_credentials()) as at:
        found = flyball("pause", "chat", "--reason", "why", "--controller", at, "--tls", alice)

    assert 2 == found.code
    assert "its certificate is not a controller's" in found.err
    assert [] == script.orders


def test_the_trust_domain_is_that_of_ones_own_certificate(flyball: Flyball, script: Script, tmp_path: Path) -> None:
    """With a folder alone, a controller of the certificate's own trust domain is talked to, and of no other."""
    own, other = (certify(tmp_path, "controller", name, trust_domain=name) for name in ("acme", "elsewhere"))
    alice = certify(tmp_path, "operator", "alice", trust_domain="acme")
    codes = []
    for server in (own, other):
        with scripted_controller(script, Tls(TlsConfig(folder=server)).server_credentials()) as at:
            codes.append(flyball("status", "--controller", at, "--tls", alice).code)

    assert [0, 2] == codes


def test_a_name_that_does_not_resolve(flyball: Flyball, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an answer as well: exit code 2, with the resolver's words."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found = flyball("status", "--controller", "nowhere.test:7460", "--tls", certificates / "operator-alice")

    assert 2 == found.code
    assert "at nowhere.test:7460: the name does not resolve: Name or service not known" in found.err


def test_a_folder_without_certificates(flyball: Flyball, tmp_path: Path) -> None:
    """Exit code 2, and what was looked for."""
    found = flyball("status", "--tls", tmp_path)

    assert 2 == found.code
    assert "tls.crt" in found.err


def test_of_a_folder_of_many_ones_own_is_shown(
    flyball: Flyball, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--tls` and by the services' file alike: the operator's of this login, else the only one there is."""
    wanted = ("c-0=controller", "eve=viewer")
    assert 0 == flyball("certs", "dev", tmp_path / "certs", *wanted).code
    file = tmp_path / "flyball.yaml"
    file.write_text("tls: {folder: certs}\nlogs: {}\n")
    server = Tls(TlsConfig(folder=tmp_path / "certs" / "controller-c-0")).server_credentials()
    monkeypatch.setenv("LOGNAME", "alice")
    with scripted_controller(script, server) as at:
        ways = (("--tls", tmp_path / "certs", "--controller", at), ("--config", file, "--controller", at))
        for added in ((), ("bob=operator",), ("alice=operator",)):
            flyball("certs", "dev", tmp_path / "certs", "--force", *wanted, *added)

            assert [0, 0] == [flyball("status", *way).code for way in ways], added


@pytest.mark.parametrize(
    ("login", "there", "shown"),
    [
        ("alice", ("operator-alice", "operator-bob", "viewer-eve"), "operator-alice"),
        ("carol", ("operator-bob", "viewer-eve", "agent-a"), "operator-bob"),
        ("carol", ("viewer-eve", "agent-a"), "viewer-eve"),
        ("carol", ("operator-alice", "operator-bob"), None),
        ("carol", ("viewer-eve", "viewer-dan"), None),
        ("carol", ("agent-a", "controller-c"), None),
    ],
)
def test_whose_certificate_is_shown(
    login: str, there: tuple[str, ...], shown: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login's, else the only operator's, else the only viewer's; else all that are there are listed."""
    monkeypatch.setenv("LOGNAME", login)
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tls.crt").touch()

    if shown is not None:
        assert tmp_path / shown == own_certificate(tmp_path)
        return
    with pytest.raises(Rejected) as refused:
        own_certificate(tmp_path)
    assert all(name in str(refused.value) for name in there)
