"""Where deploy/ keeps what the tests here look at."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CONTAINERS = DEPLOY / "containers"
SYSTEMD = DEPLOY / "systemd"
COMPOSE = DEPLOY / "compose"
PROMETHEUS = DEPLOY / "prometheus"
IMAGES = ("agent", "cli", "controller", "gateway", "twin")
