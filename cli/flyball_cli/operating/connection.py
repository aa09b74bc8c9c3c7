"""Which controllers a command talks to, and as whom: its options, the environment, the services' file.

What is given on the command line goes before the environment, and a named controller before
the services' file. Plaintext never leaves this machine.
"""

import getpass
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flyball_cli.operating.times import read_span
from flyball_cli.services_file import config_option, read_file
from flyball_core.addresses import is_loopback, split_address
from flyball_core.errors import Rejected
from flyball_service.certificate_files import CERT_FILE, trust_domain_in
from flyball_service.config import TRUST_DOMAIN, Config, TlsConfig

DEFAULT_CONTROLLER = "127.0.0.1:7460"
DEFAULT_TIMEOUT = "5s"
_OPERATOR, _VIEWER = "operator", "viewer"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what a controller listens on, not us


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where controllers are, with which certificates, and how long one answer may take."""

    addresses: tuple[str, ...]
    tls: TlsConfig | None = None
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        for address in self.addresses:
            if self.tls is None and not is_loopback(address):
                raise Rejected(
                    f"{address} is beyond this machine, where plaintext is refused: give --tls FOLDER with tls.crt,"
                    " tls.key and ca.crt of an operator (or a viewer), or name it in FLYBALL_TLS"
                )


def connection_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command `--controller`, `--tls`, `--config` and `--timeout`, for `taken_from`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connected(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command those options, and call it with the `connection` that they name."""

    @wraps(command)
    def run(**options: object) -> int:
        return command(connection=taken_from(options), **options)

    return connection_options(run)


def taken_from(options: MutableMapping[str, Any]) -> Connection:
    """The connection that a command's options name; takes them out of `options`."""
    controllers, tls_folder = options.pop("controllers"), options.pop("tls_folder")
    config_file, timeout = options.pop("config_file"), options.pop("timeout")
    return _connection(controllers, tls_folder, config_file, read_span(timeout))


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--controller",
        "controllers",
        multiple=True,
        envvar="FLYBALL_CONTROLLERS",
        show_envvar=True,
        metavar="HOST:PORT",
        help=f"A controller; repeatable. A name of several addresses stands for all. Default {DEFAULT_CONTROLLER}.",
    ),
    click.option(
        "--tls",
        "tls_folder",
        type=click.Path(path_type=Path),
        envvar="FLYBALL_TLS",
        show_envvar=True,
        metavar="FOLDER",
        help="Folder with tls.crt, tls.key and ca.crt of an operator (or a viewer, who only looks).",
    ),
    config_option("controllers and certificates"),
    click.option(
        "--timeout", default=DEFAULT_TIMEOUT, show_default=True, metavar="SPAN", help="Longest wait for one answer."
    ),
)


def _connection(
    controllers: Sequence[str], tls_folder: Path | None, config_file: Path | None, timeout_s: float
) -> Connection:
    config = None if config_file is None else read_file(config_file)
    if config is not None and _overruled("controllers"):
        controllers = ()
    if config is not None and _overruled("tls_folder"):
        tls_folder = None
    named = [part for given in controllers for part in given.split(",") if part]
    if not named and config is not None:
        named = list(addresses_in(config))
    for address in named:
        split_address(address)
    tls = None if config is None else config.tls
    if tls_folder is not None:
        shown = own_certificate(tls_folder)
        tls = TlsConfig(folder=shown, trust_domain=_trust_domain(shown))
    elif tls is not None:
        tls = replace(tls, folder=own_certificate(tls.folder))
    return Connection(addresses=tuple(dict.fromkeys(named or [DEFAULT_CONTROLLER])), tls=tls, timeout_s=timeout_s)


def own_certificate(folder: Path) -> Path:
    """Whose certificate to show: in a folder of many, the operator's of this login; else the only operator's.

    `Rejected` if it could be any of several, or if there is none; it names those that are there.
    """
    mine = folder / f"{_OPERATOR}-{login() or ''}"
    if (mine / CERT_FILE).exists():
        return mine
    if (folder / CERT_FILE).exists():
        return folder
    for role in (_OPERATOR, _VIEWER):
        found = sorted(one.parent for one in folder.glob(f"{role}-*/{CERT_FILE}"))
        if len(found) == 1:
            return found[0]
        if found:
            raise Rejected(f"say as whom with --tls: {' or '.join(map(str, found))}")
    others = sorted(one.parent.name for one in folder.glob(f"*-*/{CERT_FILE}"))
    there = f", only {', '.join(others)}" if others else ""
    raise Rejected(
        f"{folder} holds no {CERT_FILE}, nor an operator's below it{there}: give a folder that does with --tls"
    )


def _trust_domain(folder: Path) -> str:
    """That of the certificate to be shown; the usual one where it tells none, which its use then says."""
    try:
        return trust_domain_in((folder / CERT_FILE).read_bytes()) or TRUST_DOMAIN
    except (OSError, Rejected):
        return TRUST_DOMAIN


def login() -> str | None:
    """The name of the user who calls; None where there is none, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _overruled(option: str) -> bool:
    """Whether this option is of the environment while the file was named on the command line."""
    context = click.get_current_context()
    return (
        context.get_parameter_source("config_file") is ParameterSource.COMMANDLINE
        and context.get_parameter_source(option) is ParameterSource.ENVIRONMENT
    )


def addresses_in(config: Config) -> tuple[str, ...]:
    """The controllers that a services' file knows of; `Rejected` if it knows of none."""
    if config.controller is not None:
        host, port = split_address(config.controller.listen)
        bare = f"[{host}]" if ":" in host else host
        return (f"{_ANYWHERE.get(host, bare)}:{port}",)
    for section in (config.agent, config.gateway, config.twin):
        if section is not None:
            return section.controllers
    raise Rejected(f"{config.file} names no controller: give one with --controller HOST:PORT")
