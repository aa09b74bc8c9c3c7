"""Opening the log that the configuration names, however long it takes.

Makes no topics and alters none. What waiting cannot heal (a wrong address, a password the broker
refuses) is raised at once; what it can is waited for, and named in health.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from flyball_core.errors import LogUnavailable, NotALog, Rejected
from flyball_log.interface import Log
from flyball_log.opening import is_kafka, open_log
from flyball_service.channels import Backoff
from flyball_service.config import Config
from flyball_service.health import Health

if TYPE_CHECKING:
    from flyball_log.kafka import KafkaSettings

LOG = "log"
"""What health calls it."""
_FIRST_S = 1.0
_MOST_S = 5.0
"""Longest pause between two attempts: a sample flows within 15 s of the brokers' return, other waits included."""


def kafka_settings(config: Config) -> "KafkaSettings | None":
    """How to connect to the brokers that `log` names; None if it names a folder. Raises `Rejected`."""
    if not is_kafka(config.log):
        return None
    from flyball_log.kafka import KafkaSettings, settings_for

    how = config.kafka
    if how is None:
        return settings_for(config.log)
    sasl, tls = bool(how.sasl_mechanism), how.tls_folder is not None
    protocol = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
    folder = how.tls_folder
    own = folder is not None and (folder / "tls.crt").exists()
    base = KafkaSettings(
        bootstrap=("127.0.0.1:9092",),
        security_protocol=protocol,
        sasl_mechanism=how.sasl_mechanism or "SCRAM-SHA-512",
        username=how.sasl_username or None,
        password_file=None if how.sasl_password_file is None else str(how.sasl_password_file),
        ca_file=None if folder is None else str(folder / "ca.crt"),
        cert_file=str(folder / "tls.crt") if folder is not None and own else None,
        key_file=str(folder / "tls.key") if folder is not None and own else None,
    )
    return settings_for(config.log, base)


async def open_log_patiently(
    config: Config,
    health: Health,
    stop: asyncio.Event,
    *,
    read_only: bool = False,
    create: bool = False,
    append_timeout_s: float | None = None,
) -> Log | None:
    """The open log; waits until there is one, and says in `health` what is missing. None: told to stop.

    `create` makes an embedded log where the folder holds none, with the controller's number of partitions.
    `append_timeout_s` is the longest wait for an append to Kafka, for whoever cannot wait as long as others can.
    Raises `Rejected` and `Fatal` for what no waiting heals.
    """
    settings = kafka_settings(config)
    if settings is not None and append_timeout_s is not None:
        settings = replace(settings, append_timeout_s=append_timeout_s)
    backoff = Backoff(Random(), _FIRST_S, _MOST_S)
    while not stop.is_set():
        try:
            log = await _open(config, settings, read_only=read_only, create=create)
        except (LogUnavailable, NotALog) as error:
            health.waits_for(LOG, _with_hint(error, config))
        else:
            health.has(LOG)
            return log
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), backoff.next_s())
    return None


async def _open(config: Config, settings: "KafkaSettings | None", *, read_only: bool, create: bool) -> Log:
    try:
        return await open_log(config.log, read_only=read_only, kafka=settings)
    except NotALog as error:
        if not create or settings is not None:
            raise
        none_there = error
    from flyball_log.embedded import EmbeddedLog

    partitions = config.controller.partitions if config.controller is not None else 1
    try:
        return await asyncio.to_thread(EmbeddedLog.create, config.log, partitions)
    except Rejected as error:
        raise Rejected(f"{none_there}, and none can be made there: {error}") from error


def _with_hint(error: Exception, config: Config) -> str:
    if not isinstance(error, NotALog):
        return str(error)
    if is_kafka(config.log):
        connecting = "" if config.kafka is None else f" --config {config.file}"
        return f"{error} (make its topics with `flyball topics create {config.log}{connecting}`)"
    return f"{error} (a controller makes it at its first start)"
