"""A pool as policies see it, made by hand: engines under load, numbers drawn from a seed."""

import numpy as np
from numpy.typing import NDArray

from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, WEIGHT
from flyball_policies.reading import read_document
from flyball_policies.seam import Column, PoolView

DOCUMENT = read_document("""\
version: 1
mode: control
lanes: {realtime: {ttft: 2s, tpot: 50ms}}
variants: {regimes: {interactive: graphs, long_context: splitkv}, relaunch: [long_context], settle: 1s, keep: 0}
""")

COLUMNS = (
    "running",
    "waiting",
    "kv_used_ratio",
    "kv_capacity_tokens",
    "prompt_tokens_per_s",
    "gen_tokens_per_s",
    "finished_per_s",
    "preemptions_per_s",
    "ttft_s",
    "tpot_s",
    "queue_s",
    "context_tokens",
    "hbm_ratio",
)


def view_of(
    engines: tuple[str, ...], *, seed: int = 0, time_s: float = 100.0, usable: NDArray[np.bool_] | None = None
) -> PoolView:
    """A view of a pool under load, its numbers drawn from a seed."""
    count, draw = len(engines), np.random.default_rng(seed)
    columns: dict[str, Column] = {name: draw.uniform(0.0, 100.0, count) for name in COLUMNS}
    columns["kv_used_ratio"] = draw.uniform(0.0, 1.0, count)
    columns["tpot_s"] = draw.uniform(0.005, 0.2, count)
    columns["preemptions_per_s"] = draw.choice([0.0, 0.0, 3.0], count)
    return PoolView(
        pool="chat",
        time_s=time_s,
        regime="long_context",
        confidence=0.9,
        regime_age_s=100.0,
        engines=engines,
        variants=tuple("graphs" for _ in engines),
        choices=tuple(("graphs", "splitkv") for _ in engines),
        usable=np.ones(count, dtype=bool) if usable is None else usable,
        columns=columns,
        settings={
            BATCH_CAP: np.rint(columns["running"]),
            TOKEN_BUDGET: np.full(count, 2048.0),
            WEIGHT: np.full(count, 128.0),
        },
        floors={BATCH_CAP: np.full(count, 1.0), TOKEN_BUDGET: np.full(count, 512.0)},
        ceilings={BATCH_CAP: np.full(count, 256.0), TOKEN_BUDGET: np.full(count, 8192.0)},
        features={"queued": 3.0, "finished_per_s": 4.0, "running": 100.0},
        document=DOCUMENT,
    )
