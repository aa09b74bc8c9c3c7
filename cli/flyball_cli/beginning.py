"""How each service's command begins: one file is read, and log lines go where it says."""

from pathlib import Path

from flyball_core.errors import Rejected
from flyball_service.config import Config
from flyball_service.logs import configure_logs
from flyball_service.reading import read_config


def configured(file: Path, section: str) -> Config:
    """What `file` says, with logs configured for that section's service. Raises `Rejected`; also if it has none."""
    config = read_config(file)
    if getattr(config, section) is None:
        raise Rejected(f"{file}: there is no section `{section}`")
    configure_logs(config.logs, section)
    return config
