"""The embedded log: segments on disk, a CRC on every record, one writer, no broker."""

from flyball_log.embedded.log import EmbeddedLog, Recovered
from flyball_log.embedded.settings import Durability, EmbeddedSettings, Retention

__all__ = ["Durability", "EmbeddedLog", "EmbeddedSettings", "Recovered", "Retention"]
