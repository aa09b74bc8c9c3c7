"""What engines of a scenario may be made of, by the names of the registries in `flyball_twin.physics`."""

from pathlib import Path

from flyball_core.errors import Rejected
from flyball_twin.physics.engine_model import KERNEL_FILE
from flyball_twin.physics.fitted import BACKENDS
from flyball_twin.physics.hardware import GPUS
from flyball_twin.physics.language import BYTES_PER_KV, BYTES_PER_WEIGHT, LanguageModel
from flyball_twin.physics.model_configs import model_named, model_names, read_model
from flyball_twin.physics.variants import VARIANTS

__all__ = [
    "BACKENDS",
    "CONFIG",
    "GPU_NAMES",
    "KERNEL_FILE",
    "KV_CACHES",
    "MODEL_NAMES",
    "VARIANT_NAMES",
    "WEIGHTS",
    "model_of",
]

GPU_NAMES = tuple(GPUS)
MODEL_NAMES = model_names()
VARIANT_NAMES = tuple(VARIANTS)
WEIGHTS = tuple(BYTES_PER_WEIGHT)
KV_CACHES = tuple(BYTES_PER_KV)
CONFIG = ".json"
"""What the name of a model's own configuration file ends in."""


def model_of(name: str, folder: Path) -> LanguageModel:
    """The model of a registry's name, or of a `config.json` in `folder`. Raises `Rejected` if there is none."""
    if not name.endswith(CONFIG):
        return model_named(name)
    path = folder / name
    if not path.is_file():
        raise Rejected(f"there is no file {path}")
    return read_model(path)
