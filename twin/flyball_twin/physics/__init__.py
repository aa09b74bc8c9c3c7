"""What one engine step costs, from physics with measured efficiencies."""

from flyball_twin.physics.roofline import (
    BLOCK_TOKENS,
    ENGINE_MODEL,
    GRAPHS,
    H100,
    QWEN3_14B,
    SPLITKV,
    VARIANTS,
    Chunk,
    EngineModel,
    GpuCondition,
    GpuModel,
    LanguageModel,
    Roofline,
    StepCost,
    Variant,
)

__all__ = [
    "BLOCK_TOKENS",
    "ENGINE_MODEL",
    "GRAPHS",
    "H100",
    "QWEN3_14B",
    "SPLITKV",
    "VARIANTS",
    "Chunk",
    "EngineModel",
    "GpuCondition",
    "GpuModel",
    "LanguageModel",
    "Roofline",
    "StepCost",
    "Variant",
]
