"""What one engine step costs: physics with efficiencies measured by others.

`EngineModel.cost` gives the `StepCost` that an engine steps by. Kernel times come from tables of measurements
(`data/kernels`), what lies around them from a few fitted constants (`data/fitted.json`), and whatever nobody measured
is named in `KernelCost.assumed`.
"""

from flyball_twin.physics.engine_model import (
    ENGINE_MODEL,
    LANGUAGE_MODELS,
    QWEN3_14B,
    EngineModel,
    hardware_of,
    kernel_file_of,
)
from flyball_twin.physics.fitted import BACKENDS, Fitted, fitted_for
from flyball_twin.physics.hardware import GPUS, H100, GpuModel, gpu_named
from flyball_twin.physics.kernel_cost import CostInputs, KernelCost, captured_sizes
from flyball_twin.physics.kernels import Kernels
from flyball_twin.physics.language import LanguageModel
from flyball_twin.physics.model_configs import model_named, model_names, read_model
from flyball_twin.physics.shapes import RankShapes, rank_shapes
from flyball_twin.physics.step_cost import BLOCK_TOKENS, HEALTHY, Chunk, GpuCondition, StepCost, StepParts
from flyball_twin.physics.variants import FLASH_ATTN, GRAPHS, SPLITKV, VARIANTS, Variant, variant_named

__all__ = [
    "BACKENDS",
    "BLOCK_TOKENS",
    "ENGINE_MODEL",
    "FLASH_ATTN",
    "GPUS",
    "GRAPHS",
    "H100",
    "HEALTHY",
    "LANGUAGE_MODELS",
    "QWEN3_14B",
    "SPLITKV",
    "VARIANTS",
    "Chunk",
    "CostInputs",
    "EngineModel",
    "Fitted",
    "GpuCondition",
    "GpuModel",
    "KernelCost",
    "Kernels",
    "LanguageModel",
    "RankShapes",
    "StepCost",
    "StepParts",
    "Variant",
    "captured_sizes",
    "fitted_for",
    "gpu_named",
    "hardware_of",
    "kernel_file_of",
    "model_named",
    "model_names",
    "rank_shapes",
    "read_model",
    "variant_named",
]
