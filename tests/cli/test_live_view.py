"""The live demo in plain lines and in its report, from scenes and records made by hand."""

import io

import pytest
from rich.console import Console

from flyball_cli.live_report import LiveResult, live_document, print_live
from flyball_cli.live_traffic import REALTIME, Figures, Measured, Planned, Timing, phases_of
from flyball_cli.live_view import LiveEngine, LiveLines, LiveScene, milliseconds, record_words
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_twin.governed.observing import Change, Observed, RegimeShift

ENGINE = LiveEngine(
    name="engine-0",
    attached=True,
    effective={BATCH_CAP: 256, TOKEN_BUDGET: 4096, VARIANT: "graphs"},
    wanted={BATCH_CAP: 144, TOKEN_BUDGET: 4096},
    weight=73,
    trouble="stale",
)


def record(kind: RecordKind, summary: str, target: str = "", *, engine: bool = True) -> DecisionRecord:
    """A record of the audit."""
    return DecisionRecord(
        decision="demo@7",
        pool=PoolId("demo"),
        kind=kind,
        version=Version(log_id=LogId("l"), partition=0, epoch=0, revision=7),
        time_s=12.5,
        wall_s=1e9,
        mode="control",
        regime="interactive",
        confidence=1.0,
        features={},
        summary=summary,
        target_kind=TargetKind.ENGINE if engine else TargetKind.GATEWAY,
        target=target,
        effective={BATCH_CAP: 144, VARIANT: "graphs"},
    )


def scene(now_s: float) -> LiveScene:
    """A scene with one engine."""
    found = Figures(
        requests=9,
        finished=7,
        failed=1,
        attained=6,
        ttft_p50_s=0.064,
        ttft_p99_s=1.5,
        tpot_p50_s=0.02,
        tpot_p99_s=None,
    )
    return LiveScene(
        now_s=now_s,
        end_s=60.0,
        phase="chat",
        mode="control",
        regime="interactive",
        confidence=0.9,
        engines=(ENGINE,),
        clients={REALTIME: found},
        in_flight=3,
    )


def test_plain_lines_tell_what_is_measured_and_what_is_in_force() -> None:
    """One line in five seconds, with what is wanted beside what is held, and one for what was decided."""
    out = io.StringIO()
    lines = LiveLines(Console(file=out, width=80))
    for now_s in (0.0, 1.0, 2.0, 5.0):
        lines.show(scene(now_s))
    lines.record(record(RecordKind.DECISION, "engine-0 max_active_requests 256 -> 144"), 11.5)
    lines.close()
    first, second, decided = out.getvalue().splitlines()

    assert first[5:] == second[5:].replace("5 s", "0 s", 1)
    assert "realtime TTFT 64 ms TPOT 20 ms, 1 failed" in first
    assert "engine-0 cap 256 -> 144 tokens 4096 weight 73 (stale)" in first
    assert "   12 s    engine-0 max_active_requests 256 -> 144" == decided


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (record(RecordKind.ACK, "engine-0: applied", "engine-0"), "engine-0: applied, holds max_active_requests 144"),
        (record(RecordKind.ACK, "gateway-0: applied", "gateway-0", engine=False), "gateway-0: applied"),
        (record(RecordKind.ALARM, "engine-0 restarted", "engine-0"), "engine-0 restarted"),
        (record(RecordKind.DECISION, "told 2 receivers"), ""),
        (record(RecordKind.OUTCOME, "30 s later"), ""),
    ],
)
def test_records_worth_a_line_are_told(found: DecisionRecord, words: str) -> None:
    """Decisions, answers with what is held, and alarms; not what only repeats them."""
    assert words == record_words(found)


def test_the_report_counts_failures_and_names_what_was_not_seen_to_hold() -> None:
    """Failed requests by reason, changes with their reasons, times of the show and not of the machine."""
    planned = Planned(due_s=1.0, phase="chat", lane=REALTIME, prompt_tokens=9, output_tokens=2)
    good = Measured(planned=planned, timing=Timing(ttft_s=0.1, tpot_s=0.02, e2e_s=0.5), ended_s=1.5)
    bad = Measured(planned=planned, failure="status 503", ended_s=1.2)
    change = Change(
        pool="demo",
        target="engine-0",
        knob=BATCH_CAP,
        old=256,
        new=144,
        decided_at_s=20.0,
        acked_at_s=None,
        decision="demo@7",
        reason="TPOT over its target",
    )
    shift = RegimeShift(pool="demo", at_s=14.0, before="idle", after="interactive", confidence=0.5)
    result = LiveResult(
        seconds=60.0,
        phases=phases_of(60.0),
        measured=[good, bad],
        observed=Observed(changes=[change], shifts=[shift]),
        began_s=4.0,
        engines=(ENGINE,),
        policy="in force",
        kept=None,
        wall_s=70.0,
    )
    out = io.StringIO()
    print_live(Console(file=out, width=100), result)
    document = live_document(result)

    assert [{"why": "status 503", "requests": 1}] == document["failures"]
    lane = document["phases"][0]["lanes"][REALTIME]
    assert (2, 1, 1, 1) == (lane["requests"], lane["finished"], lane["failed"], lane["attained"])
    assert "Regimes: interactive at 10 s." in out.getvalue()
    line = "16.0 s  engine-0 max_active_requests 256 -> 144: TPOT over its target [demo@7, not seen to hold]"
    assert line in out.getvalue()
    assert "Failed: 1 (status 503)" in out.getvalue()


def test_latencies_are_written_for_people() -> None:
    """Below a second in milliseconds, above in seconds, and a dash for nothing."""
    assert ["-", "64 ms", "1.50 s"] == [milliseconds(value) for value in (None, 0.0641, 1.5)]
