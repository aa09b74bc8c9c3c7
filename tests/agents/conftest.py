"""Fixtures of the agents' tests."""

import os

import pytest

from kafka_broker import kafka_broker as kafka_broker


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the platter: what is synced when is the claim of tests that watch `os.fsync` themselves."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
