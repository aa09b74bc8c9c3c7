"""Prometheus, as a fixture."""

from prometheus_scraper import prometheus as prometheus
