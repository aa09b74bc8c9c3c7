"""What can be said about a configuration without starting anything.

Opens the files that it names, and nothing else: no peer is asked, no log opened for writing, nothing made.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from flyball_cli.certificate_checks import Expected, Fault, check_certificates
from flyball_core.errors import FlyballError, InvalidDocument, Rejected
from flyball_log.embedded.folder import read_meta
from flyball_log.opening import is_kafka
from flyball_policies.reading import read_document
from flyball_service.certificate_files import CA_FILE, CERT_FILE, KEY_FILE
from flyball_service.config import Config, KafkaConfig, TlsConfig
from flyball_service.reading import read_config
from flyball_service.running import own_name
from flyball_service.tls import certificate_folder


def services_in(config: Config) -> list[Expected]:
    """The services that this file configures, by role and name; those of a twin one by one."""
    found: list[tuple[str, str]] = []
    if config.controller is not None:
        found.append(("controller", own_name(config.controller.name)))
    if config.agent is not None:
        found.append(("agent", own_name(config.agent.name)))
    if config.gateway is not None:
        found.append(("gateway", own_name(config.gateway.name)))
    if config.twin is not None:
        found.extend(("engine", one.engine) for one in config.twin.engines)
    domain = config.tls.trust_domain if config.tls is not None else ""
    return [Expected(role=role, name=name, trust_domain=domain) for role, name in found]


def check_file(file: Path, now: datetime) -> tuple[Config | None, list[Fault]]:
    """The configuration (None if it does not read) and its faults. Raises `Rejected` if there is no such file."""
    try:
        config = read_config(file)
    except InvalidDocument as error:
        fault = Fault(key="", problem=error.problem, remedy=error.hint, line=error.line, column=error.column)
        return None, [fault]
    return config, list(check_config(config, now))


def check_config(config: Config, now: datetime) -> Iterator[Fault]:
    """What a start would stumble over."""
    services = services_in(config)
    if not services:
        yield Fault(key="controller", problem="no service is configured", remedy="see `flyball config example`")
    if config.tls is not None:
        for one in services:
            yield from _check_certificates(config.tls, one, now)
    if config.agent is not None and not config.agent.controllers and not is_kafka(config.log):
        yield Fault(key="agent.controllers", problem="no controller is named, and `log` is no Kafka: frames go nowhere")
    yield from _check_log(config)
    if config.kafka is not None:
        yield from _check_kafka_files(config.kafka)
    if config.controller is not None:
        for pool, file in config.controller.policies.items():
            yield from _check_policy(pool, file)
    yield from _check_place("state", config.state)


def _check_certificates(tls: TlsConfig, one: Expected, now: datetime) -> Iterator[Fault]:
    """The service's own certificate; where the folder holds others' alone, which one was looked for."""
    folder = certificate_folder(tls, one.role, one.name)
    there = sorted(found.parent.name for found in tls.folder.glob(f"*-*/{CERT_FILE}"))
    if not there or (folder / CERT_FILE).exists():
        yield from check_certificates(folder, one, now)
        return
    of_role = [name for name in there if name.startswith(f"{one.role}-")]
    rule = f": what follows `{one.role}-` is the service's name, which is the host's where the file gives none"
    yield Fault(
        key="tls.folder",
        problem=f"{tls.folder} holds neither {one.role}-{one.name} nor a {CERT_FILE} of its own",
        remedy=f"there is {', '.join(of_role)}{rule}" if of_role else f"there is only {', '.join(there)}",
    )


def _check_log(config: Config) -> Iterator[Fault]:
    """The folder of an embedded log, which its controller alone opens."""
    if is_kafka(config.log) or config.controller is None:
        return
    folder = Path(config.log)
    if config.controller.create_log and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))):
        yield from _check_place("log", folder)
        return
    try:
        meta = read_meta(folder)
    except FlyballError as error:
        yield Fault(key="log", problem=str(error), remedy="name a log, or an empty folder with `create_log: true`")
        return
    if meta.partitions != config.controller.partitions:
        yield Fault(
            key="controller.partitions",
            problem=f"the log in {folder} has {meta.partitions}, not {config.controller.partitions}",
            remedy=f"write `partitions: {meta.partitions}`; they are frozen at creation",
        )


def _check_place(key: str, folder: Path) -> Iterator[Fault]:
    """Whether the folder is there and can be written to, or can be made."""
    if folder.exists() and not folder.is_dir():
        yield Fault(key=key, problem=f"{folder} is no folder")
        return
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Fault(key=key, problem=f"{there} cannot be written to", remedy="name a folder of the service's user")


def _check_kafka_files(kafka: KafkaConfig) -> Iterator[Fault]:
    if kafka.tls_folder is not None:
        own = [CERT_FILE, KEY_FILE] if not kafka.sasl_mechanism or (kafka.tls_folder / CERT_FILE).exists() else []
        for file in (CA_FILE, *own):
            yield from _check_readable("kafka.tls_folder", kafka.tls_folder / file)
    if kafka.sasl_password_file is not None:
        yield from _check_readable("kafka.sasl_password_file", kafka.sasl_password_file)


def _check_readable(key: str, file: Path) -> Iterator[Fault]:
    try:
        with file.open("rb") as opened:
            empty = not opened.read(1)
    except OSError as error:
        yield Fault(key=key, problem=f"{file}: {error.strerror or error}")
        return
    if empty:
        yield Fault(key=key, problem=f"{file} is empty")


def _check_policy(pool: str, file: Path) -> Iterator[Fault]:
    key = f"controller.policies.{pool}"
    try:
        document = read_document(file.read_text(encoding="utf-8", errors="surrogateescape"), str(file))
    except OSError as error:
        yield Fault(key=key, problem=f"{file}: {error.strerror or error}")
    except Rejected as error:
        yield Fault(key=key, problem=str(error))
    else:
        if document.pools and pool not in document.pools:
            yield Fault(
                key=key,
                problem=f"{file} is for {', '.join(document.pools)}, not for {pool}",
                remedy=f"add {pool} to its `pools`",
            )
