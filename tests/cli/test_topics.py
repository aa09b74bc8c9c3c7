"""`flyball topics`: making and checking the topics of a log in Kafka."""

import json
import uuid
from collections.abc import Callable

from cli_calls import Answer, installed

Flyball = Callable[..., Answer]


def test_topics_are_made_once_and_then_found(flyball: Flyball, kafka_broker: str) -> None:
    """The first call makes five topics and an id, the second makes nothing and knows the id."""
    where = f"kafka://{kafka_broker}/cli-{uuid.uuid4()}"

    first = installed("topics", "create", where, "--partitions", "2", "--dev", "--json")
    second = flyball("topics", "create", where, "--partitions", "2", "--dev")

    made = json.loads(first.out)
    assert 0 == first.code == second.code
    assert 5 == len(made["created"])
    assert made["log_id"] in second.out
    assert "there already" in second.out


def test_check_lists_what_is_wrong(flyball: Flyball, kafka_broker: str) -> None:
    """Topics fit for development fail the check of a cluster, topic by topic, with exit code 1."""
    where = f"kafka://{kafka_broker}/cli-{uuid.uuid4()}"
    flyball("topics", "create", where, "--partitions", "1", "--dev")

    lenient = flyball("topics", "check", where, "--dev", "--json")
    strict = flyball("topics", "check", where, "--json")

    assert (0, True, []) == (lenient.code, lenient.document["ok"], lenient.document["findings"])
    assert (1, False) == (strict.code, strict.document["ok"])
    assert {"topic", "problem", "remedy"} == strict.document["findings"][0].keys()
    assert 1 == flyball("topics", "check", where).code


def test_missing_topics_are_findings(flyball: Flyball, kafka_broker: str) -> None:
    """A prefix without topics: every topic is named with what to do."""
    answer = flyball("topics", "check", f"kafka://{kafka_broker}/cli-{uuid.uuid4()}")

    assert 1 == answer.code
    assert 5 == answer.out.count("does not exist; run `flyball topics create`")


def test_what_is_not_kafka_is_refused(flyball: Flyball) -> None:
    """A folder has no topics; too few replicas need --dev; a wrong address says what is right."""
    folder = flyball("topics", "create", "some/folder")
    replicas = flyball("topics", "create", "kafka://127.0.0.1:9/x", "--replication", "1")
    address = flyball("topics", "check", "kafka://nowhere")

    assert 2 == folder.code == replicas.code == address.code
    assert "kafka://HOST:PORT/PREFIX" in folder.err
    assert "--dev" in replicas.err
    assert "HOST:PORT" in address.err
