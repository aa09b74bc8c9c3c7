"""`flyball certs dev`: certificates for trying Flyball out with mutual TLS, as on a cluster.

A cluster has cert-manager or its like; these lie in files with their keys beside them.
"""

import json
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Any

import click

from flyball_cli.issuing import Authority, Issued, Terms, Wanted, issue, make_authority, read_authority
from flyball_cli.wording import aligned
from flyball_core.errors import Rejected
from flyball_service.certificate_files import CERT_FILE
from flyball_service.config import TRUST_DOMAIN

SCHEMA = "flyball.certs/1"
_LONGEST_DAYS = 825


@click.group()
def certs() -> None:
    """Certificates for mutual TLS."""


@certs.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("wanted", metavar="[NAME=ROLE]...", nargs=-1)
@click.option("--days", type=click.IntRange(1, _LONGEST_DAYS), default=30, show_default=True, help="They last so long.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A further host name or IP address they hold for.")
@click.option("--trust-domain", default=TRUST_DOMAIN, show_default=True, help="The SPIFFE trust domain.")
@click.option("--force", is_flag=True, help="Replace certificates that are there; the authority stays.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def dev(
    *,
    folder: Path,
    wanted: tuple[str, ...],
    days: int,
    hosts: tuple[str, ...],
    trust_domain: str,
    force: bool,
    as_json: bool,
) -> int:
    """Make an authority and certificates in FOLDER, for trying things out; later calls add to the same authority.

    Roles: agent, engine, gateway, controller, viewer, operator; broker for a Kafka broker. Without any NAME=ROLE: one
    controller, agent, gateway and viewer, two engines, and an operator of your name.
    """
    asked = [_read_wanted(one) for one in wanted] or _usual()
    if len({one.folder for one in asked}) < len(asked):
        raise Rejected("the same certificate is asked for twice")
    there = [one.folder for one in asked if (folder / one.folder / CERT_FILE).exists()]
    if there and not force:
        raise Rejected(f"{folder} holds {', '.join(there)} already; --force replaces them")
    now = datetime.now(UTC)
    terms = Terms(expires=now + timedelta(days=days), trust_domain=trust_domain, hosts=hosts)
    found = read_authority(folder, now)
    authority = found or make_authority(folder, trust_domain, now)
    issued = [issue(authority, one, folder, terms) for one in asked]
    document = _document(folder, authority, issued, trust_domain, made=found is None)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_lines(document)))
    return 0


def _usual() -> list[Wanted]:
    try:
        operator = Wanted(role="operator", name=getuser())
    except (OSError, KeyError, Rejected):
        operator = Wanted(role="operator", name="operator")
    return [
        Wanted(role="controller", name="controller-0"),
        Wanted(role="agent", name="agent-0"),
        Wanted(role="engine", name="engine-0"),
        Wanted(role="engine", name="engine-1"),
        Wanted(role="gateway", name="gateway-0"),
        Wanted(role="viewer", name="viewer"),
        operator,
    ]


def _read_wanted(text: str) -> Wanted:
    name, sign, role = text.partition("=")
    if not sign:
        raise Rejected(f"{text!r} is not NAME=ROLE, as in engine-7=engine")
    return Wanted(role=role, name=name)


def _document(
    folder: Path, authority: Authority, issued: list[Issued], trust_domain: str, *, made: bool
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "folder": str(folder),
        "authority": {"made": made, "expires_wall_s": authority.cert.not_valid_after_utc.timestamp()},
        "trust_domain": trust_domain,
        "certificates": [
            {
                "role": one.wanted.role,
                "name": one.wanted.name,
                "folder": str(one.folder),
                "spiffe_id": one.spiffe,
                "expires_wall_s": one.expires.timestamp(),
            }
            for one in issued
        ],
    }


def _lines(document: dict[str, Any]) -> list[str]:
    until = datetime.fromtimestamp(document["certificates"][0]["expires_wall_s"], UTC)
    domain = document["trust_domain"]
    keys = f"folder: {document['folder']}" + ("" if domain == TRUST_DOMAIN else f", trust_domain: {domain}")
    authority = "a new authority" if document["authority"]["made"] else "the authority that is there"
    return [
        f"{document['folder']}: certificates of {authority}, until {until:%Y-%m-%d %H:%M} UTC",
        *aligned([(one["folder"], one["spiffe_id"]) for one in document["certificates"]]),
        "",
        "In the configuration file, relative to it, each service finds its own by its role and name:",
        f"  tls: {{{keys}}}",
        "These are for trying things out: the keys lie unencrypted in files.",
    ]
