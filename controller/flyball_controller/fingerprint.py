"""What bit-equal replay depends on: versions, and the CPU features numpy dispatches on."""

import importlib.metadata
from collections.abc import Mapping

import numpy as np

from flyball_core.inputs import Fingerprint
from flyball_core.version import __version__


def _cpu_features() -> tuple[str, ...]:
    simd = np.show_config(mode="dicts")
    found = simd.get("SIMD Extensions", {}) if isinstance(simd, Mapping) else {}
    names = [str(name) for kind in ("baseline", "found") for name in found.get(kind, ())]
    return tuple(sorted(set(names)))


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
