"""Certificates for tests, made as `flyball certs dev` makes them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flyball_cli.issuing import Terms, Wanted, issue, make_authority, read_authority
from flyball_service.config import TRUST_DOMAIN, TlsConfig
from flyball_service.tls import Tls


def certify(folder: Path, role: str, name: str, *, days: float = 1.0, trust_domain: str = TRUST_DOMAIN) -> Path:
    """A certificate of the authority in `folder`, which is made if there is none; its folder."""
    now = datetime.now(UTC)
    authority = read_authority(folder, now) or make_authority(folder, trust_domain, now)
    terms = Terms(expires=now + timedelta(days=days), trust_domain=trust_domain)
    return issue(authority, Wanted(role=role, name=name), folder, terms).folder


def tls_of(folder: Path, role: str, name: str) -> Tls:
    """Credentials of a new certificate of the authority in `folder`."""
    certify(folder, role, name)
    return Tls(TlsConfig(folder=folder), role=role, name=name)
