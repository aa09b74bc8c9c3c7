"""Who is at the other end: mutual TLS for every gRPC port, and roles by certificate.

A certificate carries one SPIFFE id, `spiffe://DOMAIN/ROLE/NAME`. The certificate authority vouches for it;
nothing here makes certificates, and nothing is taken from a request's own words. Files are read anew for
every channel, and by servers whenever they change, so that renewed certificates need no restart.
"""

import logging
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from flyball_core.addresses import is_loopback
from flyball_core.errors import Fatal, Rejected
from flyball_core.file_marks import Marks, marks_of
from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from flyball_service.config import TRUST_DOMAIN, TlsConfig
from flyball_service.expiry import Expiry

ROLES = ("agent", "engine", "gateway", "controller", "viewer", "operator")
_MOUNTED = "..data"
"""Where Kubernetes keeps a mounted secret; it is exchanged as a whole."""
_SPIFFE = "spiffe://"

# Not structlog: a receiver in an inference engine's environment has none. Warnings reach a service's log all the same.
log = logging.getLogger("flyball.tls")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate says somebody is."""

    role: str
    name: str

    def __str__(self) -> str:
        return f"{self.role} {self.name}".strip() or "nobody"


NOBODY = Identity("", "")
"""A peer whose certificate carries no id of ours: it is allowed nothing."""


class Call(Protocol):
    """The part of gRPC's servicer contexts that tells of the peer."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the connection's handshake found out, by gRPC's names."""
        ...


def read_spiffe(uri: str, trust_domain: str = TRUST_DOMAIN) -> Identity | None:
    """Role and name in `spiffe://DOMAIN/ROLE/NAME`; None if it has another form, domain or role."""
    domain, _, path = uri.removeprefix(_SPIFFE).partition("/")
    role, _, name = path.partition("/")
    if not uri.startswith(_SPIFFE) or domain != trust_domain or role not in ROLES or not name or "/" in name:
        return None
    return Identity(role, name)


def controller_host(trust_domain: str = TRUST_DOMAIN) -> str:
    """The host name that a controller's certificate carries, and nobody else's.

    gRPC holds a server to a host name and shows a client nothing else of it. So the role of a server is a name:
    whoever calls a controller asks for this one, wherever it listens, and a certificate of another role fails the
    handshake even if its authority lets it serve.
    """
    return f"controller.{trust_domain}"


def peer_identity(context: Call, trust_domain: str = TRUST_DOMAIN) -> Identity | None:
    """Who calls, by certificate; None on plaintext, `NOBODY` for a certificate without exactly one id of ours."""
    found = context.auth_context()
    if tuple(found.get("transport_security_type", ())) in ((), (b"insecure",)):
        return None
    uris = [str(uri, "utf-8", "replace") for uri in found.get("peer_uri", ())]
    return (read_spiffe(uris[0], trust_domain) if len(uris) == 1 else None) or NOBODY


def check_address(address: str, tls: "Tls | None") -> None:
    """Raise `Rejected` if HOST:PORT is malformed, or plaintext would leave this machine."""
    if not is_loopback(address) and tls is None:
        raise Rejected(f"{address} is beyond loopback, where plaintext is refused: give certificates (`tls.folder`)")


def certificate_folder(config: TlsConfig, role: str = "", name: str = "") -> Path:
    """Where the certificate for `role` and `name` is: FOLDER/ROLE-NAME if that is there, else FOLDER itself."""
    own = config.folder / f"{role}-{name}"
    return own if role and name and (own / CERT_FILE).exists() else config.folder


@dataclass(frozen=True, slots=True)
class _Pair:
    """The three files, as they were at one moment."""

    chain: bytes
    key: bytes
    authority: bytes


class Tls:
    """Credentials from files in cert-manager's layout.

    One folder may serve several services of one process: FOLDER/ROLE-NAME goes before FOLDER itself. Raises
    `Fatal` at construction if the files cannot be read or do not belong together.
    """

    def __init__(self, config: TlsConfig, *, role: str = "", name: str = "") -> None:
        self.folder = certificate_folder(config, role, name)
        self._own = f"{role}-{name}" if role and name and self.folder == config.folder else ""
        self.trust_domain = config.trust_domain
        self.expiry = Expiry(self.folder)
        self.handshakes = 0
        """Handshakes that came to a server with these credentials, those that failed included."""
        self._renewals = 0
        self._seen = self._marks()
        self._pair = self._read()

    def peer(self, context: Call) -> Identity | None:
        """`peer_identity` within this trust domain."""
        return peer_identity(context, self.trust_domain)

    def renewals(self) -> int:
        """How often the files were renewed so far: a channel made at a lower number shows what was before.

        Whoever keeps a channel asks before its next call; whoever asks is warned of what is about to expire.
        """
        self._renew()
        self.expiry.now()
        return self._renewals

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What a client shows and trusts, from the files as they are now; the last good ones if they are broken."""
        self.renewals()
        pair = self._pair
        return grpc.ssl_channel_credentials(pair.authority, pair.key, pair.chain)

    def server_credentials(self) -> grpc.ServerCredentials:
        """What a server shows and trusts; it requires a certificate of every client, and follows the files."""

        def current() -> grpc.ServerCertificateConfiguration:
            self.handshakes += 1
            self.renewals()
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(self._configuration(), current, require_client_authentication=True)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = self._pair
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], pair.authority)

    def _renew(self) -> None:
        # gRPC asks from a thread of its own at every handshake; at worst two of them read the same files.
        marks = self._marks()
        if marks == self._seen:
            return
        try:
            self._pair = self._read()
        except Fatal as error:
            log.warning("certificates in %s are not renewed: %s", self.folder, error)
        else:
            self._renewals += 1
            log.info("certificates in %s are renewed", self.folder)
        self._seen = marks

    def _marks(self) -> Marks:
        return marks_of(self.folder / file for file in (CERT_FILE, KEY_FILE, CA_FILE))

    def _read(self) -> _Pair:
        mounted = self.folder / _MOUNTED
        folder = mounted.resolve() if mounted.exists() else self.folder
        missing = [file for file in (CERT_FILE, KEY_FILE, CA_FILE) if not (folder / file).exists()]
        if missing:
            own = f", and no folder {self._own} with a {CERT_FILE}" if self._own else ""
            raise Fatal(f"certificates in {self.folder} cannot be used: there is no {', '.join(missing)}{own}")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
            context.load_cert_chain(folder / CERT_FILE, folder / KEY_FILE, password="")
            context.load_verify_locations(folder / CA_FILE)
            return _Pair(*((folder / file).read_bytes() for file in (CERT_FILE, KEY_FILE, CA_FILE)))
        except (OSError, ssl.SSLError) as error:
            raise Fatal(f"certificates in {self.folder} cannot be used: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{CERT_FILE}, {KEY_FILE} and {CA_FILE} must be PEM and belong together ({error.reason or error})"
    return error.strerror or str(error)
