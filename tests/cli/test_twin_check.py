"""`flyball twin check` says every mistake with its place, and of what is sound what it asks of its engines."""

from pathlib import Path

import pytest

from cli_calls import call
from documented_shapes import same_shape

SOUND = """\
version: 1
title: A try
duration: 2min
pools:
  chat:
    engines: [{count: 2, gpu: h100_sxm, model: llama-3.1-8b}]
    lanes: {realtime: {ttft: 1s}}
traffic:
  - trace: azure2023_conv_h1
"""
WRONG = SOUND.replace("duration: 2min", "duration: 120").replace("gpu: h100_sxm", "gpu: h100")


def test_a_sound_scenario_is_summed_up(tmp_path: Path) -> None:
    """Its title; of each pool engines, cache, requests, tokens and load."""
    (tmp_path / "mine.yaml").write_text(SOUND)
    answer = call("twin", "check", tmp_path / "mine.yaml")

    assert 0 == answer.code
    first, pool, asked = answer.out.splitlines()
    assert f"{tmp_path / 'mine.yaml'}: sound; A try" == first
    assert "  pool chat: 2 engines on 2 GPUs, 860,416 tokens of KV cache" == pool
    assert "456 requests in 2 min" in asked


def test_mistakes_have_their_places_and_what_would_be_right(tmp_path: Path) -> None:
    """One line each, in order, and exit code 1; what is sound beside it is told all the same."""
    (tmp_path / "wrong.yaml").write_text(WRONG)
    answer = call("twin", "check", tmp_path / "wrong.yaml", "chat-rated")
    lines = answer.out.splitlines()

    assert 1 == answer.code
    assert f"{tmp_path / 'wrong.yaml'}:3:11: '120' is not a duration with a unit (write 120ms or 120s)" == lines[0]
    assert lines[1].startswith(f"{tmp_path / 'wrong.yaml'}:6:31: 'h100' is none of h100_sxm")
    assert "chat-rated.yaml: sound" in lines[2]


def test_what_shows_only_when_it_is_built_is_told_too(tmp_path: Path) -> None:
    """A damaged trace is named with its row, a model that does not fit with its GPU."""
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n1,0,5\n")
    (tmp_path / "traced.yaml").write_text(SOUND.replace("azure2023_conv_h1", "t.csv"))
    (tmp_path / "large.yaml").write_text(SOUND.replace("llama-3.1-8b", "llama-3.1-70b"))
    answer = call("twin", "check", tmp_path / "traced.yaml", tmp_path / "large.yaml", "--json")
    traced, large = (one["mistakes"] for one in answer.document["scenarios"])

    assert (1, False) == (answer.code, answer.document["ok"])
    assert (3, "prompt_tokens is 0") == (traced[0]["line"], traced[0]["problem"])
    assert (None, True) == (large[0]["line"], "does not fit 1 x" in large[0]["problem"])


def test_what_a_run_would_refuse_a_check_refuses(tmp_path: Path) -> None:
    """A budget of tokens too small for the batch shows before anything is played."""
    (tmp_path / "small.yaml").write_text(
        SOUND.replace("model: llama-3.1-8b", "model: llama-3.1-8b, draft_tokens: 60, draft_acceptance: 50%")
    )
    answer = call("twin", "check", tmp_path / "small.yaml")

    assert (1, True) == (answer.code, "256 requests need a budget of 15616 tokens" in answer.out)


def test_the_document_has_the_documented_shape(tmp_path: Path) -> None:
    """Sound or not."""
    (tmp_path / "mine.yaml").write_text(SOUND)
    (tmp_path / "wrong.yaml").write_text(WRONG)
    sound = call("twin", "check", tmp_path / "mine.yaml", "--json").document
    wrong = call("twin", "check", tmp_path / "wrong.yaml", "--json").document

    same_shape("twin-check", sound)
    same_shape("twin-check", wrong)
    assert (True, 456) == (sound["ok"], sound["scenarios"][0]["pools"][0]["requests"])
    assert (3, 11, "write 120ms or 120s") == tuple(
        wrong["scenarios"][0]["mistakes"][0][key] for key in ("line", "column", "remedy")
    )


def test_requests_that_do_not_fit_and_traces_that_end_are_said(tmp_path: Path) -> None:
    """Neither is a mistake; both are told."""
    text = SOUND.replace("trace: azure2023_conv_h1", "trace: {name: mooncake_conversation, to: 1min}")
    (tmp_path / "long.yaml").write_text(text.replace("count: 2,", "memory_share: 33%,"))
    out = call("twin", "check", tmp_path / "long.yaml").out

    assert "of them are longer than the" in out
    assert "note: stream 1: its trace ends after 60 s of 120 s" in out


@pytest.mark.parametrize(
    ("name", "said"), [("chat-rate", "did you mean 'chat-rated'"), ("missing.yaml", "there is no file")]
)
def test_a_name_that_is_nothing_is_bad_input(name: str, said: str) -> None:
    """One line with the nearest name, and exit code 2."""
    answer = call("twin", "check", name)

    assert (2, True) == (answer.code, said in answer.err)
