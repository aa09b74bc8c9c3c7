"""Splitwise's characterisation runs (Patel et al., ISCA 2024) as a kind of measured table.

Prompt and token times of Llama-2-70B on A100 and H100, at tensor parallel 2 and 8, by an engine of 2023. Nothing is
fitted to them: what is reported is how far a twin of today's engines is below that level, and whether the shape
over prompt and batch is right beside it. Five repetitions of a point count once, by their median.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from flyball_core.errors import Rejected
from flyball_twin.physics import FLASH_ATTN, EngineModel, KernelCost, gpu_named, model_named
from flyball_twin.validation.rows import Row, rows_of
from flyball_twin.validation.seam import Errors, Grid, Group, Section, errors_document, errors_of

NAME = "splitwise"
COLUMNS = (
    "model",
    "hardware",
    "prompt_size",
    "batch_size",
    "token_size",
    "prompt_time",
    "token_time",
    "tensor_parallel",
)
MODEL_OF = {"llama2-70b": "llama-2-70b"}
GPU_OF = {"a100-80gb": "a100_sxm", "h100-80gb": "h100_sxm"}
MEASURED_RANKS = (1, 2, 4, 8)
"""Over which all-reduces were measured."""
CAPPED = "-pcap"
NOT_MEASURED = "splitwise_power_capped"
"""Rows that were computed from the others."""
NO_GPU = "splitwise_unknown_gpu"
NO_MODEL = "splitwise_unknown_model"
NO_RANKS = "splitwise_ranks_not_measured"
TOO_LARGE = "splitwise_step_too_large"
NOT_BELIEVED = "splitwise_not_believed"
"""A larger batch of the same prompts is said to take less than half of a smaller one's time."""
LARGEST_STEP = 64 * 512
"""Tokens of the largest prompt batch of the table, which that engine computed in one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration, measured several times."""

    model: str
    hardware: str
    tensor_parallel: int
    prompt_tokens: int
    batch: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The medians of its repetitions, in seconds, and how many there were."""

    prompt_s: float
    token_s: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Errors of one hardware at one tensor parallel degree; shapes are what is left once the level is taken out."""

    hardware: str
    tensor_parallel: int
    points: int
    prompt: Errors
    token: Errors
    prompt_shape: Errors
    token_shape: Errors


class SplitwiseTables:
    """The kind: prompt and token times by prompt size, batch size and hardware."""

    name = NAME
    says = "Splitwise runs (hardware, prompt_size, batch_size, prompt_time, token_time)"

    def recognises(self, columns: frozenset[str]) -> bool:
        """Whether it is such a table."""
        return columns >= frozenset(COLUMNS)

    def section(self, files: Sequence[Path], pictures: Path | None) -> Section:
        """Score every setting; there is nothing to draw."""
        del pictures
        left_out: dict[str, int] = {}
        points = believed(read_points([row for path in files for row in rows_of(path, COLUMNS)], left_out), left_out)
        settings, groups = [], []
        for hardware, ranks, model in sorted({(p.hardware, p.tensor_parallel, p.model) for p in points}):
            mine = {
                p: m for p, m in points.items() if (p.hardware, p.tensor_parallel, p.model) == (hardware, ranks, model)
            }
            setting = scored(hardware, ranks, model, mine)
            settings.append(setting)
            groups.append(_group(setting, model, sum(measured.rows for measured in mine.values())))
        return Section(
            kind=NAME,
            groups=groups,
            left_out=left_out,
            details={"settings": [_details(setting) for setting in settings]},
            grids=[_grid(settings)],
            notes=("Nothing is fitted to Splitwise; its engine is of 2023, so its level is above today's.",),
        )


SPLITWISE = SplitwiseTables()


def read_points(rows: Sequence[Row], left_out: dict[str, int]) -> dict[Point, Measured]:
    """The points of a table, each once. Raises `InvalidDocument` for a row that is no measurement."""
    times: dict[Point, list[tuple[float, float]]] = {}
    for row in rows:
        hardware = row.name("hardware")
        point = Point(
            model=row.name("model"),
            hardware=hardware,
            tensor_parallel=row.count("tensor_parallel", least=1),
            prompt_tokens=row.count("prompt_size", least=1),
            batch=row.count("batch_size", least=1),
            output_tokens=row.count("token_size", least=1),
        )
        prompt_s, token_s = row.real("prompt_time", least=0.0) / 1e3, row.real("token_time", least=0.0) / 1e3
        if prompt_s == 0.0 or token_s == 0.0:
            raise row.problem("prompt_time and token_time are above 0")
        if reason := _unusable(point):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            times.setdefault(point, []).append((prompt_s, token_s))
    return {
        point: Measured(
            prompt_s=median(prompt_s for prompt_s, _ in seen),
            token_s=median(token_s for _, token_s in seen),
            rows=len(seen),
        )
        for point, seen in times.items()
    }


def _unusable(point: Point) -> str:
    """Why a point cannot be compared; empty if it can."""
    if point.hardware.endswith(CAPPED):
        return NOT_MEASURED
    if point.hardware not in GPU_OF:
        return NO_GPU
    if not _known(point.model):
        return NO_MODEL
    if point.tensor_parallel not in MEASURED_RANKS:
        return NO_RANKS
    return TOO_LARGE if point.batch * point.prompt_tokens > LARGEST_STEP else ""


def _known(model: str) -> bool:
    try:
        model_named(MODEL_OF.get(model, model))
    except Rejected:
        return False
    return True


def believed(points: Mapping[Point, Measured], left_out: dict[str, int]) -> dict[Point, Measured]:
    """The points whose prompt time is not below half of that of a smaller batch of the same prompts."""
    kept: dict[Point, Measured] = {}
    for point, measured in points.items():
        smaller = [other.prompt_s for one, other in points.items() if _alike(one, point) and one.batch < point.batch]
        if measured.prompt_s < 0.5 * max(smaller, default=0.0):
            left_out[NOT_BELIEVED] = left_out.get(NOT_BELIEVED, 0) + measured.rows
        else:
            kept[point] = measured
    return kept


def _alike(one: Point, other: Point) -> bool:
    same = (one.model, one.hardware, one.tensor_parallel, one.prompt_tokens)
    return same == (other.model, other.hardware, other.tensor_parallel, other.prompt_tokens)


def scored(hardware: str, ranks: int, model: str, points: Mapping[Point, Measured]) -> Setting:
    """The errors of one setting."""
    engine = EngineModel(
        gpu=gpu_named(GPU_OF[hardware]),
        model=model_named(MODEL_OF.get(model, model)),
        tensor_parallel=ranks,
        max_batched_tokens=LARGEST_STEP,
    )
    cost = engine.cost(FLASH_ATTN)
    prompt: list[float] = []
    token: list[float] = []
    for point, measured in points.items():
        prompt_s, token_s = predicted_s(cost, point)
        prompt.append(prompt_s / measured.prompt_s)
        token.append(token_s / measured.token_s)
    return Setting(
        hardware=hardware,
        tensor_parallel=ranks,
        points=len(points),
        prompt=errors_of([ratio - 1.0 for ratio in prompt]),
        token=errors_of([ratio - 1.0 for ratio in token]),
        prompt_shape=_shape(prompt),
        token_shape=_shape(token),
    )


def predicted_s(cost: KernelCost, point: Point) -> tuple[float, float]:
    """Seconds to compute all prompts in one step, and per token halfway through the answers."""
    context = point.batch * (point.prompt_tokens + point.output_tokens // 2)
    return cost.step_s(0, 0, [(0, point.prompt_tokens)] * point.batch), cost.step_s(point.batch, context)


def _shape(ratios: Sequence[float]) -> Errors:
    """Errors once the median ratio is divided out."""
    level = median(ratios)
    return errors_of([ratio / level - 1.0 for ratio in ratios])


def _details(setting: Setting) -> Mapping[str, object]:
    return {
        "hardware": setting.hardware,
        "tensor_parallel": setting.tensor_parallel,
        "points": setting.points,
        "prompt": errors_document(setting.prompt),
        "prompt_shape": errors_document(setting.prompt_shape),
        "token": errors_document(setting.token),
        "token_shape": errors_document(setting.token_shape),
    }


def _group(setting: Setting, model: str, rows: int) -> Group:
    return Group(
        table=NAME,
        model=model,
        gpu=GPU_OF[setting.hardware],
        backend="unnamed, 2023",
        load=f"tensor parallel {setting.tensor_parallel}",
        rows=rows,
        tpot=setting.token,
        ttft=setting.prompt,
    )


def _grid(settings: Sequence[Setting]) -> Grid:
    rows = [
        [
            f"{setting.hardware} x {setting.tensor_parallel}",
            str(setting.points),
            _signed(setting.prompt.bias),
            _share(setting.prompt_shape.p50_ape),
            _signed(setting.token.bias),
            _share(setting.token_shape.p50_ape),
        ]
        for setting in settings
    ]
    heads = ("setting", "points", "prompt: level", "shape", "token: level", "shape")
    return Grid(title="Splitwise: level of the twin against 2023, and median error beside it", heads=heads, rows=rows)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.0%}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
