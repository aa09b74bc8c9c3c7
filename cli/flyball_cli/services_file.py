"""The services' configuration file as commands take it: `--config`, and the log that it names.

What reads or makes a log connects to Kafka as the services do: by the file's section `kafka`, which is the one
place that tells of TLS and SASL. Opens logs for reading only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flyball_core.addresses import is_loopback
from flyball_core.errors import Rejected
from flyball_log import Log, open_log
from flyball_log.opening import is_kafka, parse_kafka
from flyball_service.config import Config

if TYPE_CHECKING:
    from flyball_log.kafka import KafkaSettings

Command = Callable[..., int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLog:
    """A log as a user named it, and how to connect to it."""

    where: str
    """Its folder, or `kafka://HOST:PORT[,HOST:PORT...]/PREFIX`."""
    kafka: "KafkaSettings | None"
    """How to connect to its brokers; None: it is a folder."""

    async def open(self) -> Log:
        """The log, for reading only. Raises as `open_log` does."""
        return await open_log(self.where, read_only=True, kafka=self.kafka)


def config_option(takes: str) -> Callable[[Command], Command]:
    """`--config FILE`, which stands for what the command takes from it."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        envvar="FLYBALL_CONFIG",
        show_envvar=True,
        metavar="FILE",
        help=f"The services' configuration: take {takes} from it.",
    )


def takes_log(metavar: str) -> Callable[[Command], Command]:
    """Give a command the argument LOG, which the file may name instead, and call it with the `log` that is meant."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*, where: str | None, config_file: Path | None, **options: object) -> int:
            return command(log=named_log(where, config_file), **options)

        optioned = config_option("the log, and how to connect to Kafka,")(run)
        return click.argument("where", metavar=metavar, required=False)(optioned)

    return decorate


def named_log(where: str | None, config_file: Path | None) -> NamedLog:
    """The log that `where` names, else the file; how to connect to its brokers is the file's to say.

    Raises `Rejected` if neither names a log, if plaintext would leave this machine, or as the file's reader does.
    """
    if config_file is None and not where:
        raise Rejected("no log is named: give LOG, or --config FILE for the one that the services use")
    config = Config(file=Path()) if config_file is None else read_file(config_file)
    if where:
        config = replace(config, log=where)
    if not is_kafka(config.log):
        return NamedLog(where=config.log, kafka=None)
    beyond = [broker for broker in parse_kafka(config.log)[0] if not is_loopback(broker)]
    if beyond and config.kafka is None:
        raise Rejected(
            f"{', '.join(beyond)} is beyond this machine, where Kafka is reached over TLS alone: give --config FILE,"
            " whose section `kafka` names the certificates"
        )
    from flyball_service.kafka import kafka_settings

    return NamedLog(where=config.log, kafka=kafka_settings(config))


def read_file(file: Path) -> Config:
    """The services' configuration in `file`. Raises `Rejected`."""
    from flyball_service.reading import read_config

    return read_config(file)
