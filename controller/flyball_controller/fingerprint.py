"""What bit-equal replay depends on: versions, and the CPU features numpy dispatches on."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from flyball_core.inputs import Fingerprint
from flyball_core.version import __version__


def _cpu_features() -> tuple[str, ...]:
    config: Any = np.show_config(mode="dicts")  # numpy promises the call, not the type of what it gives
    found = config.get("SIMD Extensions", {}) if isinstance(config, Mapping) else {}
    return tuple(sorted({str(name) for kind in ("baseline", "found") for name in found.get(kind, ())}))


def own_fingerprint() -> Fingerprint:
    """The fingerprint of this process."""
    return Fingerprint(
        flyball=__version__, numpy=np.__version__, river=importlib.metadata.version("river"), cpu=_cpu_features()
    )


def difference(recorded: Fingerprint, own: Fingerprint) -> str:
    """In which parts two fingerprints differ, in words; empty if in none."""
    parts = [
        f"{name} {theirs}, here {ours}"
        for name, theirs, ours in (
            ("flyball", recorded.flyball, own.flyball),
            ("numpy", recorded.numpy, own.numpy),
            ("river", recorded.river, own.river),
        )
        if theirs != ours
    ]
    if recorded.cpu != own.cpu:
        parts.append(f"CPU features {' '.join(sorted(set(recorded.cpu) ^ set(own.cpu)))}")
    return "; ".join(parts)
