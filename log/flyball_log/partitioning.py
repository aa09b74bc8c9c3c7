"""Which partition a pool belongs to: murmur2, bit for bit as Kafka's Java client.

Frozen for ever: were it to change, a pool's history would be split over two
partitions. Needs no log, so that an agent can compute it before it has one.
"""

from functools import lru_cache

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_MIX = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 hash, unsigned, with the seed that Kafka uses."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _MIX & _MASK
        k = (k ^ (k >> 24)) * _MIX & _MASK
        h = (h * _MIX & _MASK) ^ k
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _MIX & _MASK
    h = (h ^ (h >> 13)) * _MIX & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=4096)
def partition_of(key: str, partitions: int) -> int:
    """The partition of `key` (UTF-8) among `partitions`, as Kafka's default partitioner."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
