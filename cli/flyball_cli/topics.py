"""`flyball topics`: makes the topics of a log in Kafka, and says whether a cluster keeps what they promise.

Topics are made, never altered: what is wrong with them is the operator's to put right.
"""

import asyncio
import json

import click

from flyball_cli.services_file import NamedLog, takes_log
from flyball_core.errors import Rejected
from flyball_log.kafka import KafkaSettings, check_topics, create_topics

SCHEMA = "flyball.topics/1"
FOUND_FAULTS = 1
DEV_REPLICATION = 1
REPLICATION = 3
_LOG = "[kafka://HOST:PORT/PREFIX]"


@click.group()
def topics() -> None:
    """Make or check the topics of a log in Kafka."""


@topics.command()
@click.option("--partitions", type=int, default=8, show_default=True, help="Of every topic; frozen at creation.")
@click.option("--replication", type=int, help=f"Replicas; default {REPLICATION}, with --dev {DEV_REPLICATION}.")
@click.option("--dev", is_flag=True, help="Allow fewer than 3 replicas and 2 in sync, for trying things out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@takes_log(_LOG)
def create(*, log: NamedLog, partitions: int, replication: int | None, dev: bool, as_json: bool) -> int:
    """Make those topics of a log that are missing, and its id."""
    settings = _settings(log)
    replicas = replication if replication is not None else DEV_REPLICATION if dev else REPLICATION
    made = asyncio.run(create_topics(settings, partitions=partitions, replication=replicas, dev=dev))
    if as_json:
        document = {"schema": SCHEMA, "log": settings.where, "log_id": made.log_id, "created": list(made.topics)}
        click.echo(json.dumps(document, indent=2))
    else:
        said = f"made {', '.join(made.topics)}" if made.topics else "all topics are there already"
        click.echo(f"{settings.where}: {said}; log id {made.log_id}")
    return 0


@topics.command()
@click.option("--dev", is_flag=True, help="Do not ask for 3 replicas and 2 in sync.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@takes_log(_LOG)
def check(*, log: NamedLog, dev: bool, as_json: bool) -> int:
    """Say what keeps this cluster from holding the log safely; exit code 1 if anything does."""
    settings = _settings(log)
    findings = asyncio.run(check_topics(settings, dev=dev))
    if as_json:
        listed = [{"topic": one.topic, "problem": one.problem, "remedy": one.remedy} for one in findings]
        click.echo(
            json.dumps({"schema": SCHEMA, "log": settings.where, "ok": not findings, "findings": listed}, indent=2)
        )
    elif findings:
        click.echo("\n".join(map(str, findings)))
    else:
        click.echo(f"{settings.where}: all topics are as they should be")
    return FOUND_FAULTS if findings else 0


def _settings(log: NamedLog) -> KafkaSettings:
    if log.kafka is None:
        raise Rejected(f"{log.where}: topics are Kafka's; say kafka://HOST:PORT/PREFIX (an embedded log makes its own)")
    return log.kafka
