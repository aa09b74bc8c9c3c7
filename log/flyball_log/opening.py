"""From the name of a log, as a user gives it, to the open log.

    FOLDER                                   an embedded log
    kafka://HOST:PORT[,HOST:PORT...]/PREFIX  topics of a Kafka cluster

Refuses to make a log: that is asked for by name elsewhere, never a side effect.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from flyball_core.errors import Rejected
from flyball_core.ids import LogId
from flyball_log.interface import Log

if TYPE_CHECKING:
    from flyball_log.kafka.settings import KafkaSettings

_SCHEME = "kafka://"
_LAST_PORT = 65535


def is_kafka(where: str) -> bool:
    """Whether `where` names topics of a Kafka cluster."""
    return where.startswith(_SCHEME)


def parse_kafka(where: str) -> tuple[tuple[str, ...], str]:
    """The brokers and the prefix in `kafka://HOST:PORT[,HOST:PORT...]/PREFIX`; without /PREFIX it is empty.

    Raises `Rejected` if it has another form.
    """
    hosts, _, prefix = where.removeprefix(_SCHEME).partition("/")
    brokers = tuple(hosts.split(","))
    for broker in brokers:
        host, _, port = broker.rpartition(":")
        digits = port.isascii() and port.isdecimal() and len(port) <= len(str(_LAST_PORT))
        if not host or not digits or not 0 < int(port) <= _LAST_PORT:
            raise Rejected(f"{where}: {broker or 'nothing'!r} is not HOST:PORT, as in kafka://127.0.0.1:9092/flyball")
    return brokers, prefix


async def open_log(where: str, *, read_only: bool = False, kafka: "KafkaSettings | None" = None) -> Log:
    """Open the log that `where` names; never makes one.

    `kafka` says how to connect (TLS, SASL); its brokers and prefix give way to those in `where`. Without
    it the connection is plain, which is refused beyond loopback. Raises `NotALog`, `LogUnavailable` (a broker
    that does not answer within 10 s, files that cannot be read), `Rejected` for a `where` of no known form.
    """
    if not is_kafka(where):
        if "://" in where:
            raise Rejected(f"{where}: a log is a folder or {_SCHEME}HOST:PORT/PREFIX")
        from flyball_log.embedded import EmbeddedLog

        return await asyncio.to_thread(EmbeddedLog.open, where, read_only=read_only)
    from flyball_log.kafka import KafkaLog, settings_for

    return await KafkaLog.open(settings_for(where, kafka), read_only=read_only)


async def identify_log(where: str, *, kafka: "KafkaSettings | None" = None) -> LogId:
    """The id of the log that `where` names now; it need not be the one that was opened there. Raises as `open_log`."""
    if not is_kafka(where):
        from flyball_log.embedded.folder import read_meta

        return (await asyncio.to_thread(read_meta, Path(where))).log_id
    from flyball_log.kafka import identify, settings_for

    return await identify(settings_for(where, kafka))
