"""A Kafka broker for pages that need one."""

from kafka_broker import kafka_broker as kafka_broker
