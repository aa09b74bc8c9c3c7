"""Partitions are chosen as Kafka's Java client does, for ever."""

import subprocess
import sys

import pytest

from flyball_log.partitioning import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_kafka(data: bytes, signed: int) -> None:
    """The hash equals what Kafka's own tests expect of `Utils.murmur2`."""
    assert signed & 0xFFFFFFFF == murmur2(data)


def test_partitions_never_move() -> None:
    """A few pools and where they have always been."""
    assert [1, 4, 2, 3] == [partition_of(pool, 8) for pool in ("chat-70b", "_fleet", "_unassigned", "agents-8b")]


def test_every_partition_is_reached() -> None:
    """No partition is left out."""
    assert set(range(8)) == {partition_of(f"pool-{number}", 8) for number in range(100)}


def test_the_log_needs_no_kafka_client() -> None:
    """Importing the log, and opening an embedded one, imports no Kafka client."""
    code = "import sys, flyball_log, flyball_log.embedded; sys.exit('aiokafka' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
