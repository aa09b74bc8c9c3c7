"""Both versions and a broker, as fixtures."""

from installed_versions import versions as versions
from kafka_broker import kafka_broker as kafka_broker
