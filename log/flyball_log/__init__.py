"""The log: an embedded one in a folder, or Kafka, behind one interface.

Everything that may change a decision goes through it, and versions are positions in it.
Knows nothing of what the records mean. Importing it imports no Kafka client.
"""

from flyball_log.folding import fold, scan
from flyball_log.interface import Bounds, Entry, Log, Membership, Record, Topic
from flyball_log.membership import join
from flyball_log.opening import identify_log, open_log
from flyball_log.partitioning import partition_of

__all__ = [
    "Bounds",
    "Entry",
    "Log",
    "Membership",
    "Record",
    "Topic",
    "fold",
    "identify_log",
    "join",
    "open_log",
    "partition_of",
    "scan",
]
