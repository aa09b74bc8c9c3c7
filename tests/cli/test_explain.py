"""`flyball explain`: an engine, a gateway, a decision."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cli_calls import Answer, installed
from flyball_cli.audit import Audit, Story, read_audit
from flyball_log import open_log
from recorded_logs import ENGINES, GATEWAY, SLOW

Flyball = Callable[..., Answer]


def test_an_engine_is_explained_in_words_and_numbers(flyball: Flyball, recorded: Path) -> None:
    """What it is wanted to hold and since when, what changed and why, who answered and what came of it."""
    words = flyball("explain", SLOW, "--log", recorded, "--last", "100").out

    assert words.startswith(f"engine {SLOW} of pool chat, as of 69 s")
    for said in (
        "mode control, regime interactive",
        "Told last: version 0:0:",
        "Wanted now:",
        "since ",
        "as it was when it attached",
        " -> ",
        "why: caps-aimd: TPOT",
        "seen: TPOT",
        " ms",
        "applied, before the next tick",
        "Outcome at",
        "Stopped: ",
        "Alarm at 2",
        f"{SLOW} is degraded",
    ):
        assert said in words


def test_its_document_agrees_with_itself(flyball: Flyball, recorded: Path) -> None:
    """The setting now is the newest change of each knob; a weight is answered by gateways, a budget by the engine."""
    found = flyball("explain", SLOW, "--log", recorded, "--json", "--last", "1000").document

    assert ("engine", SLOW, "chat", 69.0) == (found["kind"], found["name"], found["pool"], found["time_s"])
    assert found["changes_in_all"] == len(found["changes"]) > 0
    newest = {change["knob"]: change for change in found["changes"]}
    settings = {one["knob"]: one for one in found["settings"]}
    assert {"max_active_requests", "max_batched_tokens", "variant"} <= settings.keys()
    for knob, change in newest.items():
        assert (change["new"], change["time_s"]) == (settings[knob]["value"], settings[knob]["since_s"])
    answering = {change["knob"]: {ack["target"] for ack in change["acks"]} for change in found["changes"]}
    assert {GATEWAY} == answering["weight"]
    assert {SLOW} == answering["max_batched_tokens"]
    assert all(change["outcome"] for change in found["changes"] if change["time_s"] < 69 - 30)


def test_a_decision_is_told_whole(flyball: Flyball, recorded: Path) -> None:
    """Features, regime, every proposal with its reason and the guard's word, what was published, answers, outcome."""
    engine = flyball("explain", SLOW, "--log", recorded, "--json", "--last", "1000").document
    decision = engine["changes"][0]["decision"]

    found = flyball("explain", decision, "--log", recorded, "--json").document
    words = flyball("explain", decision, "--log", recorded).out

    assert ("decision", decision, "chat") == (found["kind"], found["decision"], found["pool"])
    assert {"tpot_s", "running", "kv_used_max"} <= found["features"].keys()
    assert any(SLOW == one["target"] and one["reason"] and one["guard"] for one in found["proposals"])
    assert found["published"]
    assert found["acks"]
    assert all(ack["latency_s"] >= 0 for ack in found["acks"])
    assert found["outcome"]["time_s"] == found["time_s"] + 30
    assert found["outcome"]["before"].keys() >= found["outcome"]["after"].keys()
    for said in (
        "Regime: ",
        "Seen:",
        "Proposed, and what the guard made of it:",
        "Published:",
        "Answer: ",
        "Outcome at",
    ):
        assert said in words


def test_what_the_guard_did_is_told(flyball: Flyball, recorded: Path) -> None:
    """A proposal that was limited or stopped names the rule."""
    found = [
        proposal
        for engine in ENGINES
        for change in flyball("explain", engine, "--log", recorded, "--json", "--last", "1000").document["changes"]
        for proposal in flyball("explain", change["decision"], "--log", recorded, "--json").document["proposals"]
    ]

    assert all(one["rule"] and one["guard"] for one in found)


def test_orders_and_alarms_have_ids_too(flyball: Flyball, recorded: Path) -> None:
    """The id of an alarm or an order leads to it."""
    alarm = flyball("explain", SLOW, "--log", recorded, "--json").document["alarms"][0]

    words = flyball("explain", alarm["decision"], "--log", recorded).out

    assert alarm["summary"] in words


def test_a_gateway_is_explained(flyball: Flyball, recorded: Path) -> None:
    """Its table now, its lanes, its last tables and its answers."""
    found = flyball("explain", GATEWAY, "--log", recorded, "--json").document
    words = flyball("explain", GATEWAY, "--log", recorded).out

    assert "gateway" == found["kind"]
    assert list(ENGINES) == [route["engine"] for route in found["routes"]]
    assert ["realtime", "bulk"] == [lane["lane"] for lane in found["lanes"]]
    assert found["tables"]
    assert all(ack["target"] == GATEWAY for table in found["tables"] for ack in table["acks"])
    assert f"{SLOW}" in words
    assert "priority 10" in words


def test_an_unknown_name_names_the_nearest(flyball: Flyball, recorded: Path) -> None:
    """A slip of the pen is answered with what was meant, exit code 2."""
    engine = flyball("explain", "node-00/engin-1", "--log", recorded)
    decision = flyball("explain", "chat@99999", "--log", recorded)
    pool = flyball("explain", SLOW, "--log", recorded, "--pool", "chet")

    assert 2 == engine.code == decision.code == pool.code
    assert SLOW in engine.err
    assert "did you mean chat@" in decision.err
    assert "chet" in pool.err


def test_the_installed_command_explains(recorded: Path) -> None:
    """The entry point gives the same document; a log that is none ends it with one line."""
    answer = installed("explain", SLOW, "--log", recorded, "--json")
    nothing = installed("explain", SLOW, "--log", recorded / "nothing")

    assert SLOW == json.loads(answer.out)["name"]
    assert (2, 1) == (nothing.code, len(nothing.err.splitlines()))


def test_a_decision_of_several_records_is_one(recorded: Path) -> None:
    """What was continued in a second record is told as one decision."""

    async def read() -> Audit:
        log = await open_log(str(recorded), read_only=True)
        try:
            return await read_audit(log)
        finally:
            await log.close()

    record = next(story.record for story in asyncio.run(read()).decisions("chat") if story.record)
    story = Story(record.decision)

    story.take(record)
    story.take(replace(record, summary="and more"))

    assert story.record is not None
    assert f"{record.summary}; and more" == story.record.summary
    assert record.verdicts * 2 == story.record.verdicts
    assert record.published * 2 == story.record.published
