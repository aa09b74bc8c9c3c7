"""One engine: a model on GPUs under a serving backend, how its memory is shared out, and what its steps cost.

`cost` is the physics that an engine steps by. It refuses to schedule, and to serve what does not fit its GPUs.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flyball_core.errors import Rejected
from flyball_twin.physics.fitted import DATA, Fitted, fitted_for
from flyball_twin.physics.hardware import H100, GpuModel, gpu_named, gpu_of_datasheet
from flyball_twin.physics.kernel_cost import CostInputs, KernelCost
from flyball_twin.physics.kernel_file import KernelFile, read_kernel_file
from flyball_twin.physics.kernels import Kernels
from flyball_twin.physics.language import LanguageModel
from flyball_twin.physics.model_configs import bundled_models, model_named
from flyball_twin.physics.shapes import RankShapes, rank_shapes
from flyball_twin.physics.step_cost import BLOCK_TOKENS, HEALTHY, GpuCondition
from flyball_twin.physics.variants import Variant, variant_named

KERNEL_FILE = ".npz"
KERNELS = DATA / "kernels"
"""The bundled kernel files, by short name of the GPU."""


@lru_cache(maxsize=32)
def _kernel_file(file: Path) -> KernelFile:
    return read_kernel_file(file)


def kernel_file_of(gpu: GpuModel) -> KernelFile:
    """The bundled kernel file of a GPU; an empty one where there is none."""
    file = KERNELS / f"{gpu.key}{KERNEL_FILE}"
    return _kernel_file(file) if file.exists() else KernelFile(gpu=gpu.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModel:
    """One engine before it runs. Raises `Rejected` where model and GPUs do not go together."""

    gpu: GpuModel
    model: LanguageModel
    backend: str = "vllm"
    tensor_parallel: int = 1
    expert_parallel: int = 1
    weights: str = "bf16"
    """Precision of the weights: `bf16`, `fp8`, `fp8_block`, `int4`, `mxfp4`."""
    kv_cache: str = "bf16"
    """Precision of the KV cache: `bf16`, `fp8`."""
    max_active_requests: int = 256
    max_batched_tokens: int = 8192
    draft_tokens: int = 0
    """Tokens a draft proposes per step; 0 is no speculation."""
    memory_share: float = 0.9
    """Share of HBM the engine takes at start (vLLM's `gpu_memory_utilization`)."""
    reserved_bytes: float = 4.5e9
    """Activations, captured graphs and workspaces, within that share, of each GPU."""
    cold_start_s: float = 40.0
    """From the end of one incarnation until the next takes requests."""
    kernels: Path | None = None
    """A kernel file of the user's; None: the bundled one of the GPU, if there is one."""
    fitted: Fitted | None = None
    """Constants in place of the backend's."""

    @property
    def shapes(self) -> RankShapes:
        """What one of its GPUs computes. Raises `Rejected` for a layout the model does not have."""
        return _shapes(self.model, self.tensor_parallel, self.expert_parallel, self.weights, self.kv_cache)

    @property
    def constants(self) -> Fitted:
        """What was fitted around its kernels."""
        return fitted_for(self.backend) if self.fitted is None else self.fitted

    def path_s(self, prompt_tokens: int) -> float:
        """What a request takes from its gateway to the scheduler: HTTP, tokenizing."""
        constants = self.constants
        return constants.ttft_base_s + constants.ttft_per_token_s * prompt_tokens

    @property
    def weight_bytes(self) -> float:
        """Weights on each GPU."""
        return self.shapes.weight_bytes

    @property
    def kv_bytes_per_token(self) -> float:
        """KV cache that one token takes on each GPU."""
        return self.shapes.kv_bytes_per_token

    @property
    def kv_blocks(self) -> int:
        """KV blocks that fit beside the weights. Raises `Rejected` if none does."""
        room = self.gpu.hbm_bytes * self.memory_share - self.weight_bytes - self.reserved_bytes
        blocks = int(room // (self.kv_bytes_per_token * BLOCK_TOKENS))
        if blocks < 1:
            raise Rejected(
                f"{self.model.name} in {self.weights} does not fit {self.tensor_parallel} x {self.gpu.name}: "
                f"{self.weight_bytes / 1e9:.1f} GB of weights on each leave no room for a cache"
            )
        return blocks

    def cost(self, variant: Variant | str, condition: GpuCondition = HEALTHY) -> KernelCost:
        """What its steps cost under a variant (or the one of that name), its GPU in that condition.

        Computed once for each. Raises `Rejected` for an unknown name.
        """
        return _cost(self, variant_named(variant) if isinstance(variant, str) else variant, condition)


@lru_cache(maxsize=256)
def _shapes(model: LanguageModel, ranks: int, expert_parallel: int, weights: str, kv_cache: str) -> RankShapes:
    return rank_shapes(model, ranks=ranks, expert_parallel=expert_parallel, weights=weights, kv_cache=kv_cache)


@lru_cache(maxsize=32)
def _cost(engine: EngineModel, variant: Variant, condition: GpuCondition) -> KernelCost:
    file = kernel_file_of(engine.gpu) if engine.kernels is None else _kernel_file(engine.kernels)
    return KernelCost(
        CostInputs(
            model=engine.model,
            shapes=engine.shapes,
            kernels=Kernels(gpu=engine.gpu, file=file),
            variant=variant,
            condition=condition,
            fitted=engine.constants,
            max_active=engine.max_active_requests,
            max_batched_tokens=engine.max_batched_tokens,
            draft_tokens=engine.draft_tokens,
        )
    )


def hardware_of(name: str, folder: Path = Path()) -> tuple[GpuModel, Path | None]:
    """The GPU that a scenario names, and the kernel file it brings: a datasheet row's name, or a `.npz` in `folder`.

    Raises `Rejected` for a name or file that is none.
    """
    if not name.endswith(KERNEL_FILE):
        return gpu_named(name), None
    kernels = _kernel_file(folder / name)
    return gpu_of_datasheet(kernels.datasheet) if kernels.datasheet else gpu_named(kernels.gpu), folder / name


LANGUAGE_MODELS = bundled_models()
"""The bundled language models, by name."""


QWEN3_14B = model_named("qwen3-14b")
ENGINE_MODEL = EngineModel(gpu=H100, model=QWEN3_14B)
"""What every engine of the small fleet is."""
