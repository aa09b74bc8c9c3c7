"""Certificates for tests, made as `flyball certs dev` makes them; and such as it would never make."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from flyball_cli.issuing import Terms, Wanted, issue, make_authority, read_authority
from flyball_service.config import TRUST_DOMAIN, TlsConfig
from flyball_service.tls import Tls


def certify(
    folder: Path, role: str, name: str, *, days: float = 1.0, trust_domain: str = TRUST_DOMAIN, made: float = 0.0
) -> Path:
    """A certificate of the authority in `folder`, which is made if there is none; its folder.

    It is made `made` days from now (before now where negative) and lasts for `days` from then on.
    """
    now = datetime.now(UTC) + timedelta(days=made)
    authority = read_authority(folder, now) or make_authority(folder, trust_domain, now)
    terms = Terms(expires=now + timedelta(days=days), trust_domain=trust_domain)
    return issue(authority, Wanted(role=role, name=name), folder, terms, now).folder


def certify_server(folder: Path, role: str, name: str) -> Path:
    """A certificate of some role whose authority lets it serve, as careless authorities do; its folder."""
    careless = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    with patch.object(x509, "ExtendedKeyUsage", lambda _: careless):
        return certify(folder, role, name)


def tls_of(folder: Path, role: str, name: str) -> Tls:
    """Credentials of a new certificate of the authority in `folder`."""
    certify(folder, role, name)
    return Tls(TlsConfig(folder=folder), role=role, name=name)
