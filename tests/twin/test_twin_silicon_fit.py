"""Fitting a backend's constants to rows: it finds what is there, and holds out what it should."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flyball_twin.physics import FLASH_ATTN, Fitted, model_named
from flyball_twin.physics.fitted import prior_for
from flyball_twin.validation.benchmarks import serving_of
from flyball_twin.validation.fitting import SPREADS, Trial, Trials, fit
from flyball_twin.validation.silicon import closed_loop, held_out, in_sample, load_name, predicted, trial_of
from flyball_twin.validation.silicon_rows import Setting, SiliconRow

TRUE = replace(
    prior_for("trtllm"), gemm=1.1, attention_decode=0.9, all_reduce=1.3, ttft_base_s=0.03, host_base_s=2.5e-3
)
"""Constants that are not the priors."""


def setting(model: str = "qwen3-32b", backend: str = "trtllm", clients: int = 16, **changed: Any) -> Setting:
    """An engine and its clients."""
    usual = Setting(
        model=model_named(model),
        model_path=model,
        gpu="h100_sxm",
        backend=backend,
        version="1",
        weights="fp8",
        kv_cache="fp8",
        tensor_parallel=2,
        expert_parallel=1,
        prompt_tokens=1024,
        output_tokens=128,
        clients=clients,
        source="",
    )
    return replace(usual, **changed)


def measured_by(fitted: Fitted, settings: Sequence[Setting]) -> list[Trial]:
    """Trials of rows whose measurements the twin made itself, under these constants."""
    trials = []
    for one in settings:
        made = predicted(trial_of(SiliconRow(setting=one, ttft_s=1.0, tpot_s=1.0)), fitted)
        trials.append(trial_of(SiliconRow(setting=one, ttft_s=made.ttft_s, tpot_s=made.tpot_s)))
    return trials


def various(model: str, backend: str = "trtllm") -> list[Setting]:
    """Settings of a model that tell the parts of a step apart."""
    return [
        setting(model, backend, clients, tensor_parallel=ranks, prompt_tokens=prompt, output_tokens=output)
        for ranks in (1, 4)
        for clients in (4, 16, 48)
        for prompt, output in ((256, 64), (2048, 64), (1024, 512))
    ]


def test_it_finds_the_constants_that_rows_were_made_with() -> None:
    """From rows made under other constants than the priors a fit that hardly shrinks finds those, and so the rows."""
    trials = measured_by(TRUE, various("qwen3-32b") + various("llama-3.1-8b"))
    found = fit(trials, "trtllm", shrinkage=0.01)

    for name in ("gemm", "attention_decode", "all_reduce", "ttft_base_s"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.08), name
    ttft, tpot = Trials(trials).predicted(found)
    for trial, first, later in zip(trials, ttft, tpot, strict=True):
        assert first == pytest.approx(trial.row.ttft_s, rel=0.12)
        assert later == pytest.approx(trial.row.tpot_s, rel=0.03)


def test_a_row_that_is_wrong_altogether_hardly_moves_it() -> None:
    """One row in eighteen that says ten times too much changes no fitted factor by more than a hundredth."""
    trials = measured_by(TRUE, various("qwen3-32b"))
    wrong = replace(trials[0], row=replace(trials[0].row, tpot_s=10.0 * trials[0].row.tpot_s))
    right, off = fit(trials, "trtllm"), fit([wrong, *trials[1:]], "trtllm")

    for name in ("gemm", "attention_decode", "attention_prefill", "all_reduce"):
        assert getattr(off, name) == pytest.approx(getattr(right, name), abs=0.02)


def test_without_rows_the_priors_hold() -> None:
    """A backend of which nothing was measured keeps its priors; and only what is named is ever fitted."""
    assert fit([], "sglang") == prior_for("sglang")
    found = fit(measured_by(TRUE, various("qwen3-32b")[:4]), "trtllm")
    kept = {name: getattr(prior_for("trtllm"), name) for name in ("gap_s", "host_overlap", "logits")}
    assert {name: getattr(found, name) for name in kept} == kept
    assert not kept.keys() & SPREADS.keys()


def test_a_fit_over_steps_is_the_step_cost() -> None:
    """What a trial predicts under any constants is what its steps cost by the engine's own physics."""
    for one in (setting(), setting("qwen3-235b-a22b", tensor_parallel=8, weights="fp8_block", kv_cache="bf16")):
        trial = trial_of(SiliconRow(setting=one, ttft_s=1.0, tpot_s=1.0))
        fitted = replace(TRUE, experts=0.7, elementwise=2.0, attention_prefill=1.4, host_overlap=0.3)
        pieces = closed_loop(one, prior_for("trtllm")).run().pieces
        cost = replace(serving_of(one).engine, fitted=fitted).cost(FLASH_ATTN)
        steps_s = [cost.step_s(piece.decodes, piece.context, piece.chunks) for piece in pieces]

        ttft, tpot = Trials([trial]).predicted(fitted)

        path_s = fitted.ttft_base_s + fitted.ttft_per_token_s * one.prompt_tokens
        waited = sum(piece.before_first * step_s for piece, step_s in zip(pieces, steps_s, strict=True))
        assert float(ttft[0]) == pytest.approx(path_s + waited, rel=1e-3)
        later = sum(piece.per_token * step_s for piece, step_s in zip(pieces, steps_s, strict=True))
        assert float(tpot[0]) == pytest.approx(later, rel=1e-3)


def test_the_closed_form_agrees_with_the_engine_under_other_constants() -> None:
    """Under constants that differ from those of the trial the engine, played again, says about the same."""
    for trial in measured_by(TRUE, various("qwen3-32b")[::3]):
        ttft, tpot = Trials([trial]).predicted(TRUE)

        assert float(ttft[0]) == pytest.approx(trial.row.ttft_s, rel=0.1)
        assert float(tpot[0]) == pytest.approx(trial.row.tpot_s, rel=0.03)


def test_held_out_rows_do_not_change_their_own_prediction() -> None:
    """Predictions of a group are the same whatever was measured of it, and others' are not."""
    chosen = [*various("qwen3-32b")[::4], *various("llama-3.1-8b")[::4]]
    trials = measured_by(TRUE, chosen)
    changed = [
        replace(trial, row=replace(trial.row, tpot_s=1.3 * trial.row.tpot_s, ttft_s=0.7 * trial.row.ttft_s))
        if trial.row.setting.model.name == "qwen3-32b"
        else trial
        for trial in trials
    ]
    before, _ = held_out(trials)
    after, _ = held_out(changed)

    said = {
        name: [(one.tpot_s, one.ttft_s) for one in predictions if one.row.setting.model.name == model]
        for name, predictions, model in (
            ("before", before, "qwen3-32b"),
            ("after", after, "qwen3-32b"),
            ("others before", before, "llama-3.1-8b"),
            ("others after", after, "llama-3.1-8b"),
        )
    }
    assert said["before"] == said["after"]
    assert said["others before"] != said["others after"]


def test_constants_are_a_backends_own() -> None:
    """What is fitted for one backend depends on no row of another."""
    ours = measured_by(TRUE, various("qwen3-32b")[:4])
    theirs = measured_by(replace(prior_for("vllm"), gemm=1.3), various("qwen3-32b", "vllm")[:4])

    assert in_sample(ours)[1]["trtllm"] == in_sample([*ours, *theirs])[1]["trtllm"]


def test_loads_have_names() -> None:
    """Loads are told apart by their clients."""
    assert [load_name(clients) for clients in (1, 16, 17, 64, 65)] == ["low", "low", "mid", "mid", "high"]
