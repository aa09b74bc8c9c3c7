"""`flyball certs dev`: what it makes is what services take."""

import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_cli.issuing import CA_FOLDER, Terms, Wanted, issue, make_authority
from flyball_service.channels import channel, grpc_server
from flyball_service.config import TlsConfig
from flyball_service.tls import Call, Identity, Tls, peer_identity

Flyball = Callable[..., Answer]


def made(flyball: Flyball, folder: Path, *arguments: str) -> Any:
    """The document of a call that made certificates."""
    answer = flyball("certs", "dev", folder, *arguments, "--json")
    assert answer.code == 0
    return answer.document


def certificate(folder: Path) -> x509.Certificate:
    """The certificate in a folder."""
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())


def names(folder: Path) -> x509.SubjectAlternativeName:
    """What the certificate in a folder is for."""
    return certificate(folder).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_the_usual_set(flyball: Flyball, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without names there is one certificate for every part of a try-out, and an operator of one's own name."""
    monkeypatch.setenv("LOGNAME", "ada")
    document = made(flyball, tmp_path)

    assert [(one["role"], one["name"]) for one in document["certificates"]] == [
        ("controller", "controller-0"),
        ("agent", "agent-0"),
        ("engine", "engine-0"),
        ("engine", "engine-1"),
        ("gateway", "gateway-0"),
        ("viewer", "viewer"),
        ("operator", "ada"),
    ]
    same_shape("certs-dev", document)


def test_a_user_name_that_no_certificate_carries(
    flyball: Flyball, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the user's name cannot be an id, the operator is called operator."""
    monkeypatch.setenv("LOGNAME", "Ada Lovelace/1")

    assert made(flyball, tmp_path)["certificates"][-1]["name"] == "operator"


def test_files_are_laid_out_as_cert_manager_does(flyball: Flyball, tmp_path: Path) -> None:
    """Three files a folder, keys for their owner only, P-256, the SPIFFE id and the names of this machine."""
    made(flyball, tmp_path, "node-7=agent", "--host", "10.0.0.7", "--host", "node-7.example")
    folder = tmp_path / "agent-node-7"

    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / CA_FOLDER / "tls.key").stat().st_mode) == 0o600
    key = certificate(folder).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert names(folder).get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://flyball/agent/node-7"]
    assert names(folder).get_values_for_type(x509.DNSName) == ["localhost", "node-7.example"]
    assert [str(one) for one in names(folder).get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.7"]


def test_they_last_as_long_as_asked(flyball: Flyball, tmp_path: Path) -> None:
    """`--days` is how long they hold, and the document says until when."""
    document = made(flyball, tmp_path, "a=agent", "--days", "3")

    until = certificate(tmp_path / "agent-a").not_valid_after_utc
    assert timedelta(days=2.99) < until - datetime.now(UTC) <= timedelta(days=3)
    assert abs(document["certificates"][0]["expires_wall_s"] - until.timestamp()) <= 1.0


async def _seen(server: Tls, client: Tls) -> Identity | None:
    """Whom a server with one certificate sees behind a client with another."""
    seen: list[Identity | None] = []

    async def who(request: bytes, context: Call) -> bytes:
        seen.append(peer_identity(context))
        return request

    def add(to: grpc.aio.Server) -> None:
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(who)
        to.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Who", {"Who": handler}),))

    running, port = await grpc_server("127.0.0.1:0", server, add)
    connection = channel(f"127.0.0.1:{port}", client)
    try:
        await connection.unary_unary("/test.Who/Who", bytes, bytes)(b"", timeout=5.0)
    finally:
        await connection.close(None)
        await running.stop(None)
    return seen[0]


async def test_later_certificates_are_of_the_same_authority(flyball: Flyball, tmp_path: Path) -> None:
    """A certificate that is added later is taken by those who were there first."""
    assert made(flyball, tmp_path, "c=controller")["authority"]["made"]
    assert not made(flyball, tmp_path, "engine-7=engine")["authority"]["made"]
    config = TlsConfig(folder=tmp_path)

    server, client = Tls(config, role="controller", name="c"), Tls(config, role="engine", name="engine-7")

    assert await _seen(server, client) == Identity("engine", "engine-7")


def test_a_strict_client_takes_them(flyball: Flyball, tmp_path: Path) -> None:
    """The chain holds under the strict rules of RFC 5280, which other programs may ask for."""
    made(flyball, tmp_path, "c=controller")
    context = ssl.create_default_context(cafile=tmp_path / "controller-c" / "ca.crt")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "controller-c" / "tls.crt", tmp_path / "controller-c" / "tls.key")
    out, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = context.wrap_bio(back, out, server_hostname="localhost")
    there = server.wrap_bio(out, back, server_side=True)

    for _ in range(4):
        for end in (here, there):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue

    assert here.getpeercert() is not None


def test_nothing_is_overwritten_unasked(flyball: Flyball, tmp_path: Path) -> None:
    """Certificates that are there stay; with `--force` they are replaced, and the authority still stays."""
    made(flyball, tmp_path, "a=agent")
    before = (tmp_path / "agent-a" / "tls.crt").read_bytes()
    authority = (tmp_path / CA_FOLDER / "tls.crt").read_bytes()

    refused = flyball("certs", "dev", tmp_path, "a=agent", "b=agent")
    assert refused.code == 2
    assert "holds agent-a already; --force replaces them" in refused.err
    assert not (tmp_path / "agent-b").exists()
    assert (tmp_path / "agent-a" / "tls.crt").read_bytes() == before

    made(flyball, tmp_path, "a=agent", "--force")
    assert (tmp_path / "agent-a" / "tls.crt").read_bytes() != before
    assert (tmp_path / CA_FOLDER / "tls.crt").read_bytes() == authority


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "'a' is not NAME=ROLE"),
        (["a=root"], "'root' is no role; a certificate is of agent, engine"),
        (["a/b=agent"], "'a/b': a certificate's name has"),
        (["=agent"], "'': a certificate's name has"),
        (["a=agent", "a=agent"], "asked for twice"),
        (["a=agent", "--host", "exämple"], "neither an IP address nor a host's name"),
        (["a=agent", "--trust-domain", "a/b"], "'a/b' is no trust domain"),
    ],
)
def test_what_no_certificate_can_carry_is_refused(
    flyball: Flyball, tmp_path: Path, arguments: list[str], said: str
) -> None:
    """Wrong names, roles and hosts are said before anything is made."""
    answer = flyball("certs", "dev", tmp_path / "certs", *arguments)

    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "certs").exists()


def test_an_authority_that_cannot_be_used_is_said(flyball: Flyball, tmp_path: Path) -> None:
    """A spoiled, mixed-up or expired authority is an error, never silently replaced."""
    made(flyball, tmp_path, "a=agent")
    key = tmp_path / CA_FOLDER / "tls.key"
    key.write_bytes((tmp_path / "agent-a" / "tls.key").read_bytes())
    assert "tls.key is not the key of tls.crt" in flyball("certs", "dev", tmp_path, "b=agent").err

    key.write_text("spoiled")
    assert "cannot be used" in flyball("certs", "dev", tmp_path, "b=agent").err

    make_authority(tmp_path, "flyball", datetime.now(UTC) - timedelta(days=3700))
    assert "expired on" in flyball("certs", "dev", tmp_path, "b=agent").err


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    """An old authority shortens what it gives."""
    authority = make_authority(tmp_path, "flyball", datetime.now(UTC) - timedelta(days=3649))
    wanted = Wanted(role="agent", name="a")
    asked = datetime.now(UTC) + timedelta(days=30)

    given = issue(authority, wanted, tmp_path, Terms(expires=asked))

    assert given.expires == authority.cert.not_valid_after_utc


def test_words_say_what_to_write_into_the_file(flyball: Flyball, tmp_path: Path) -> None:
    """The lines name every folder, and the key that the configuration file needs."""
    out = flyball("certs", "dev", tmp_path, "a=agent", "--trust-domain", "acme").out

    assert f"  tls: {{folder: {tmp_path}, trust_domain: acme}}" in out
    assert "spiffe://acme/agent/a" in out
