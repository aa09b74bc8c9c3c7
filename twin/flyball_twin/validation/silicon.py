"""The twin against measured end-to-end rows: each row predicted with constants fitted on other models and backends.

For each (model, backend) group the few constants of its backend are fitted on all other groups of it, and the
twin's engine is run in the row's closed loop with them: the score. Beside it stand the same figures with constants
fitted on all rows. It refuses to fit anything to a row, a model or a load.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flyball_twin.physics import BLOCK_TOKENS, Fitted
from flyball_twin.physics.fitted import prior_for
from flyball_twin.validation.benchmarks import load_of, serving_of
from flyball_twin.validation.closed_loop import ClosedLoop
from flyball_twin.validation.fitting import Trial, Trials, fit, parts_of
from flyball_twin.validation.seam import Errors, Grid, Group, Section, errors_of
from flyball_twin.validation.silicon_rows import KNOWN_BY, Setting, SiliconRow, read_rows

LOADS = ((16, "low"), (64, "mid"))
"""Most clients of a load, and its name; beyond the last it is high."""
REQUEST_PATH_S = 5e-3
"""From a client to the engine, as the closed loop is played; what is left of the fitted path lies behind the engine.
Longer it cannot be: had answered clients sent again later than in a decode step or so, their prompts would have
queued in bunches, and their first tokens would have come later than they did."""
WAITS_FOR_KV = "ttft_waits_for_kv"

GroupKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A row and what the twin says of it."""

    row: SiliconRow
    ttft_s: float
    tpot_s: float
    scored_ttft: bool

    @property
    def ttft_error(self) -> float:
        """Predicted over measured, less 1."""
        return self.ttft_s / self.row.ttft_s - 1.0

    @property
    def tpot_error(self) -> float:
        """The same, of the time per token."""
        return self.tpot_s / self.row.tpot_s - 1.0

    @property
    def e2e_error(self) -> float:
        """The same, of the time until the last token."""
        later = self.row.setting.output_tokens - 1
        return (self.ttft_s + later * self.tpot_s) / (self.row.ttft_s + later * self.row.tpot_s) - 1.0


def load_name(clients: int) -> str:
    """The load of so many clients: up to 16 low, up to 64 mid, beyond high."""
    return next((name for most, name in LOADS if clients <= most), "high")


def waits_for_kv(setting: Setting) -> bool:
    """Whether the clients want more KV cache than the engine has, so that their first tokens wait for others' last."""
    wanted = setting.clients * (setting.prompt_tokens + setting.output_tokens)
    return wanted > serving_of(setting).engine.kv_blocks * BLOCK_TOKENS


def closed_loop(setting: Setting, fitted: Fitted) -> ClosedLoop:
    """The closed loop of a row under these constants, ready to run."""
    serving = serving_of(setting)
    serving = replace(serving, engine=replace(serving.engine, fitted=fitted))
    return ClosedLoop(serving, load_of(setting), REQUEST_PATH_S)


def trial_of(row: SiliconRow) -> Trial:
    """A row's closed loop under the prior constants, taken apart."""
    setting = row.setting
    run = closed_loop(setting, prior_for(setting.backend)).run()
    parts = parts_of(serving_of(setting).engine, run.pieces)
    return Trial(row=row, parts=parts, scored_ttft=not waits_for_kv(setting))


def predicted(trial: Trial, fitted: Fitted) -> Prediction:
    """What the twin's engine says of a row under these constants."""
    setting = trial.row.setting
    run = closed_loop(setting, fitted).run()
    path_s = fitted.ttft_base_s + fitted.ttft_per_token_s * setting.prompt_tokens
    ttft_s = run.ttft_s - REQUEST_PATH_S + path_s
    return Prediction(row=trial.row, ttft_s=ttft_s, tpot_s=run.tpot_s, scored_ttft=trial.scored_ttft)


def held_out(trials: Sequence[Trial]) -> tuple[list[Prediction], dict[GroupKey, Fitted]]:
    """Each row by the constants fitted on the other groups of its backend; and those constants, by group left out."""
    predictions: list[Prediction] = []
    constants: dict[GroupKey, Fitted] = {}
    for key, group in by_group(trials).items():
        others = [trial for trial in trials if trial.row.setting.backend == key[1] and trial.row.setting.group != key]
        constants[key] = fit(others, key[1])
        predictions += [predicted(trial, constants[key]) for trial in group]
    return predictions, constants


def in_sample(trials: Sequence[Trial]) -> tuple[list[Prediction], dict[str, Fitted]]:
    """Each row by the constants fitted on all rows of its backend, over the steps of its trial; and those constants."""
    predictions: list[Prediction] = []
    constants: dict[str, Fitted] = {}
    for backend in sorted({trial.row.setting.backend for trial in trials}):
        rows = [trial for trial in trials if trial.row.setting.backend == backend]
        constants[backend] = fit(rows, backend)
        ttft, tpot = Trials(rows).predicted(constants[backend])
        predictions += [
            Prediction(row=trial.row, ttft_s=first, tpot_s=after, scored_ttft=trial.scored_ttft)
            for trial, first, after in zip(rows, ttft.tolist(), tpot.tolist(), strict=True)
        ]
    return predictions, constants


def by_group(trials: Iterable[Trial]) -> dict[GroupKey, list[Trial]]:
    """Trials by model and backend."""
    groups: defaultdict[GroupKey, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.row.setting.group].append(trial)
    return dict(sorted(groups.items()))


def errors(predictions: Iterable[Prediction]) -> tuple[Errors, Errors, Errors]:
    """Of time per token; and of time to first and to last token, where the first is scored."""
    known = list(predictions)
    scored = [prediction for prediction in known if prediction.scored_ttft]
    return (
        errors_of([prediction.tpot_error for prediction in known]),
        errors_of([prediction.ttft_error for prediction in scored]),
        errors_of([prediction.e2e_error for prediction in scored]),
    )


class Silicon:
    """The kind of table that holds such rows."""

    name = "silicon"
    says = "end-to-end rows (isl, osl, silicon_ttft_ms, silicon_tpot_ms, ...: aiconfigurator's silicon table)"

    def recognises(self, columns: frozenset[str]) -> bool:
        """By what was measured, and at which lengths."""
        return columns >= KNOWN_BY

    def section(self, files: Sequence[Path], pictures: Path | None) -> Section:
        """Read, fit and score."""
        del pictures  # It draws none.
        readings = read_rows(files)
        trials = [trial_of(row) for row in readings.rows]
        scored, constants = held_out(trials)
        fitted, shipped = in_sample(trials)
        groups = _groups(scored)
        waiting = sum(not trial.scored_ttft for trial in trials)
        return Section(
            kind=self.name,
            groups=groups,
            score=_score(scored, fitted),
            left_out=dict(readings.left_out),
            details={
                "ttft_left_out": {WAITS_FOR_KV: waiting},
                "held_out": [_held_out_line(key, scored, fitted, constants[key]) for key in constants],
                "constants": [{"backend": backend, "values": asdict(values)} for backend, values in shipped.items()],
            },
            grids=(_grid(groups), _held_out_grid(scored, fitted)),
            notes=(
                "Each (model, backend) is predicted with constants fitted on the others of its backend.",
                f"Loads: low up to {LOADS[0][0]} clients, mid up to {LOADS[1][0]}, high beyond.",
                f"Time to first token is not scored on {waiting} rows whose clients want more KV cache than there is.",
            ),
        )


SILICON = Silicon()


def _score(scored: Sequence[Prediction], fitted: Sequence[Prediction]) -> dict[str, float | int | None]:
    """Dense rows held out: the score. Beside it in-sample, and mixtures of experts."""
    score: dict[str, float | int | None] = {}
    for suffix, predictions, moe in (
        ("", scored, False),
        ("_in_sample", fitted, False),
        ("_moe", scored, True),
        ("_moe_in_sample", fitted, True),
    ):
        chosen = [prediction for prediction in predictions if prediction.row.setting.moe is moe]
        found = dict(zip(("tpot", "ttft", "e2e"), errors(chosen), strict=True))
        for name, of in found.items():
            score[f"{name}_median_ape{suffix}"] = of.p50_ape
            score[f"{name}_mean_ape{suffix}"] = of.mean_ape
        if predictions is scored:
            score[f"rows{suffix}"] = found["tpot"].rows
    return score


def _groups(predictions: Iterable[Prediction]) -> list[Group]:
    sorted_out: defaultdict[tuple[bool, str, str, str, str], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        setting = prediction.row.setting
        load = load_name(setting.clients)
        sorted_out[setting.moe, setting.model.name, setting.gpu, setting.backend, load].append(prediction)
    order = [name for _, name in LOADS]
    groups = []
    for key in sorted(sorted_out, key=lambda key: (*key[:4], order.index(key[4]) if key[4] in order else len(order))):
        moe, model, gpu, backend, load = key
        tpot, ttft, e2e = errors(sorted_out[key])
        groups.append(
            Group(
                table=Silicon.name,
                model=model,
                gpu=gpu,
                backend=backend,
                load=load,
                rows=tpot.rows,
                tpot=tpot,
                ttft=ttft,
                e2e=e2e,
                moe=moe,
            )
        )
    return groups


def _held_out_line(
    key: GroupKey, scored: Iterable[Prediction], fitted: Iterable[Prediction], constants: Fitted
) -> Mapping[str, object]:
    of_group = [prediction for prediction in scored if prediction.row.setting.group == key]
    tpot, ttft, _ = errors(of_group)
    tpot_in, ttft_in, _ = errors(prediction for prediction in fitted if prediction.row.setting.group == key)
    return {
        "model": key[0],
        "backend": key[1],
        "rows": tpot.rows,
        "tpot_median_ape": tpot.p50_ape,
        "ttft_median_ape": ttft.p50_ape,
        "tpot_median_ape_in_sample": tpot_in.p50_ape,
        "ttft_median_ape_in_sample": ttft_in.p50_ape,
        "constants": asdict(constants),
    }


HEADS = ("rows", *(head for of in ("TPOT", "TTFT", "E2E") for head in (f"{of} p50", "p90", "mean", "bias")))


def _grid(groups: Iterable[Group]) -> Grid:
    rows = [
        (
            f"{group.model} {group.gpu} {group.backend} {group.load}",
            str(group.rows),
            *_cells(group.tpot, group.ttft, group.e2e),
        )
        for group in groups
    ]
    return Grid(title="Held out, by group", heads=("model, GPU, backend, load", *HEADS), rows=rows)


def _held_out_grid(scored: Sequence[Prediction], fitted: Sequence[Prediction]) -> Grid:
    rows = []
    for moe in (False, True):
        for words, predictions in (("held out", scored), ("in sample", fitted)):
            found = errors(prediction for prediction in predictions if prediction.row.setting.moe is moe)
            name = f"{'mixtures of experts' if moe else 'dense'}, {words}"
            rows.append((name, str(found[0].rows), *_cells(*found)))
    return Grid(title="All rows", heads=("", *HEADS), rows=rows)


def _cells(*found: Errors) -> tuple[str, ...]:
    return tuple(
        "-" if value is None else f"{value:{sign}.1%}"
        for of in found
        for value, sign in ((of.p50_ape, ""), (of.p90_ape, ""), (of.mean_ape, ""), (of.bias, "+"))
    )
