"""Records, files and texts, each at its limit and one beyond it."""

import json
import zlib
from pathlib import Path
from random import Random

from flyball_cli.operating.times import read_span
from flyball_controller.machine import export
from flyball_controller.machine.state import PartitionState
from flyball_controller.owner import publication
from flyball_controller.slow import SlowDesk, SlowRunner
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.inputs import Malformed, SlowProposal
from flyball_core.outputs import DecisionRecord, RecordKind, Snapshot
from flyball_log.embedded import EmbeddedLog
from flyball_log.embedded.settings import Durability, EmbeddedSettings, Retention
from flyball_log.interface import Entry, Topic
from flyball_log.limits import check_entries, check_partitions
from flyball_policies.reading import read_document
from flyball_policies.strict_yaml import DocumentReader, compose
from flyball_proto.codec import decode_audit, decode_input
from flyball_service.reading import read_config
from flyball_twin.physics.kernel_file import read_kernel_file
from flyball_twin.physics.kernel_tables import read_datasheet
from flyball_twin.physics.model_configs import BUNDLED, read_model
from flyball_twin.scenario.model import SessionSource
from flyball_twin.scenario.reading import scenario_of
from flyball_twin.traffic.sessions import DrawnPlans
from flyball_twin.traffic.traces import open_trace
from flyball_twin.validation.request_logs import STAMPS, read_request_logs
from flyball_twin.validation.rows import Row
from limit_table import Answers, Bench, beyond, padded, said

VERSION = Version(log_id=LogId("log"), partition=0, epoch=0, revision=1)


@beyond("record-bytes")
def a_record(bench: Bench) -> Answers:
    """Key and value together."""
    at, more = (Entry(b"chat", bytes(size - 4)) for size in (bench.limit, bench.limit + 1))
    return said(lambda: check_entries(Topic.INPUTS, [at])), said(lambda: check_entries(Topic.INPUTS, [more]))


@beyond("key-bytes")
def a_key(bench: Bench) -> Answers:
    """The key alone."""
    at, more = (Entry(bytes(size), b"") for size in (bench.limit, bench.limit + 1))
    return said(lambda: check_entries(Topic.INPUTS, [at])), said(lambda: check_entries(Topic.INPUTS, [more]))


@beyond("partitions")
def partitions(bench: Bench) -> Answers:
    """Of a new log."""
    return said(lambda: check_partitions(bench.limit)), said(lambda: check_partitions(bench.limit + 1))


@beyond("read-record-bytes")
def an_input(bench: Bench) -> Answers:
    """An order, in order but for its size."""

    def read(size: int) -> str:
        body = decode_input(0, padded(b"\x4a\x02\x0a\x00", size)).body
        return body.reason if isinstance(body, Malformed) else ""

    return read(bench.limit), read(bench.limit + 1)


@beyond("embedded-inputs-bytes")
async def inputs_on_disk(bench: Bench) -> Answers:
    """The log's own retention, a thousandth of it: segments go until what is left is no more than the limit."""
    limit = bench.limit // 1000
    kept = EmbeddedSettings().retention[Topic.INPUTS]
    assert bench.limit == kept.max_bytes == EmbeddedSettings().retention[Topic.DECISIONS].max_bytes
    settings = EmbeddedSettings(
        durability=Durability.OS,
        segment_bytes=limit // 10,
        retention={Topic.INPUTS: Retention(max_bytes=limit, max_age_s=kept.max_age_s)},
    )
    log = EmbeddedLog.create(bench.folder / "log", 1, settings)
    answers = []
    for _ in range(2):
        for _ in range(9):
            await log.append(Topic.INPUTS, 0, [Entry(b"", bytes(limit // 10 - 100))])
        begin = (await log.bounds(Topic.INPUTS, 0)).begin
        answers.append("removed" if begin else "")
    await log.close()
    return answers[0], answers[1]


@beyond("state-bytes")
def a_state(bench: Bench) -> Answers:
    """Whose name makes it as long as is wanted; the limit is moved to where it is, for want of memory."""
    state = PartitionState(log_id=LogId("x" * 1000), partition=0)
    payload = export.export_state(state)
    size = len(zlib.decompress(payload, wbits=31))
    assert bench.limit == export.MAX_STATE_BYTES
    try:
        export.MAX_STATE_BYTES = size
        at = said(lambda: export.restore_state(payload, export.SCHEMA))
        export.MAX_STATE_BYTES = size - 1
        return at, said(lambda: export.restore_state(payload, export.SCHEMA))
    finally:
        export.MAX_STATE_BYTES = bench.limit


@beyond("audit-bytes")
def an_audit_record(bench: Bench) -> Answers:
    """What an owner publishes of a record that quotes at length."""

    def published(words: int) -> tuple[int, str]:
        record = DecisionRecord(
            pool=PoolId("chat"),
            kind=RecordKind.ORDER,
            version=VERSION,
            decision="chat@1",
            time_s=0.0,
            wall_s=0.0,
            mode="control",
            regime="idle",
            confidence=0.0,
            summary="x" * words,
        )
        made = publication(record)
        assert made is not None
        found = decode_audit(made[1].value or b"")
        assert isinstance(found, DecisionRecord)
        return len(made[1].value or b""), found.summary

    size, _ = published(bench.limit - 1000)
    words = bench.limit - 1000 + (bench.limit - size)
    assert bench.limit == published(words)[0]
    return published(words)[1], published(words + 1)[1]


def _policy(size: int) -> str:
    text = "version: 1\n#"
    return text + "x" * (size - len(text))


@beyond("policy-bytes")
def a_policy(bench: Bench) -> Answers:
    """With a long remark."""
    return said(lambda: read_document(_policy(bench.limit))), said(lambda: read_document(_policy(bench.limit + 1)))


def _lanes(*names: str) -> str:
    return "version: 1\nlanes:\n" + "".join(f"  {name}: {{priority: 0}}\n" for name in names)


@beyond("policy-lanes")
def lanes(bench: Bench) -> Answers:
    """Of a document."""
    names = [f"l{number}" for number in range(bench.limit + 1)]
    return said(lambda: read_document(_lanes(*names[1:]))), said(lambda: read_document(_lanes(*names)))


@beyond("policy-names")
def a_lanes_name(bench: Bench) -> Answers:
    """Of one lane."""
    at, more = (_lanes("x" * length) for length in (bench.limit, bench.limit + 1))
    return said(lambda: read_document(at)), said(lambda: read_document(more))


def _padded_file(bench: Bench, text: str, size: int) -> Path:
    file = bench.folder / f"{size}"
    file.write_text(text.ljust(size))
    return file


@beyond("kernel-file-bytes")
def a_kernel_file(bench: Bench) -> Answers:
    """Blanks are none, but that is said only of a file of a size that is taken."""
    at, more = (_padded_file(bench, "", size) for size in (bench.limit, bench.limit + 1))
    answer = said(lambda: read_kernel_file(at))
    assert "is no kernel file" in answer
    return answer, said(lambda: read_kernel_file(more))


@beyond("model-config-bytes")
def a_model_config(bench: Bench) -> Answers:
    """A bundled model's, with blanks after it."""
    config = json.dumps(json.loads(BUNDLED.read_text())["llama-3.1-8b"])
    at, more = (_padded_file(bench, config, size) for size in (bench.limit, bench.limit + 1))
    return said(lambda: read_model(at)), said(lambda: read_model(more))


@beyond("datasheet-bytes")
def a_datasheet(bench: Bench) -> Answers:
    """One with a comment after it."""
    row = "gpu: {mem_bw: 1e12, mem_capacity: 8e10, bfloat16_tc_flops: 1e15}\nnode: {intra_node_bw: 1e11}\n#"
    at, more = (_padded_file(bench, row, size) for size in (bench.limit, bench.limit + 1))
    return said(lambda: read_datasheet(at, "mine")), said(lambda: read_datasheet(more, "mine"))


@beyond("yaml-depth")
def depth(bench: Bench) -> Answers:
    """Lists within lists."""

    def nested(deep: int) -> str:
        return said(lambda: compose("[" * deep + "]" * deep, "f", 10_000))

    return nested(bench.limit), nested(bench.limit + 1)


@beyond("duration")
def a_duration(bench: Bench) -> Answers:
    """In a document."""

    def read(seconds: int) -> str:
        return said(lambda: DocumentReader("f").duration(compose(f"{seconds}s", "f", 100)))

    return read(bench.limit), read(bench.limit + 1)


def _config(folder: Path, text: str) -> str:
    file = folder / "flyball.yaml"
    file.write_text(text)
    return said(lambda: read_config(file))


@beyond("config-bytes")
def a_configuration(bench: Bench) -> Answers:
    """With a long remark."""
    text = "tls: none\n#"
    at, more = (text + "x" * (size - len(text)) for size in (bench.limit, bench.limit + 1))
    return _config(bench.folder, at), _config(bench.folder, more)


@beyond("config-names")
def a_name(bench: Bench) -> Answers:
    """Of a controller."""
    at, more = (f"tls: none\ncontroller: {{name: {'x' * size}}}\n" for size in (bench.limit, bench.limit + 1))
    return _config(bench.folder, at), _config(bench.folder, more)


@beyond("config-entries")
def entries(bench: Bench) -> Answers:
    """Addresses of controllers."""

    def controllers(count: int) -> str:
        listed = ",".join(f"127.0.0.1:{number}" for number in range(1, count + 1))
        return _config(bench.folder, f"tls: none\nagent: {{controllers: [{listed}]}}\n")

    return controllers(bench.limit), controllers(bench.limit + 1)


@beyond("operator-duration")
def a_span(bench: Bench) -> Answers:
    """As an operator types it."""
    return said(lambda: read_span(f"{bench.limit}s")), said(lambda: read_span(f"{bench.limit + 1}s"))


@beyond("operator-time-text")
def a_spans_text(bench: Bench) -> Answers:
    """Written at length."""
    at, more = ("0" * (size - 2) + "9s" for size in (bench.limit, bench.limit + 1))
    return said(lambda: read_span(at)), said(lambda: read_span(more))


class Answering(SlowRunner):
    """Answers with a reason of so many characters."""

    words = 0

    async def answer(self, snapshot: Snapshot) -> list[SlowProposal]:
        """One answer."""
        said_ = "x" * self.words
        return [SlowProposal(pool=snapshot.pool, policy="slow", tick_revision=snapshot.tick_revision, missed=said_)]


@beyond("slow-answer-bytes")
async def a_slow_answer(bench: Bench) -> Answers:
    """As it comes into the inputs."""
    log = EmbeddedLog.create(bench.folder / "log", 1, EmbeddedSettings(durability=Durability.OS))
    runner = Answering([])
    desk = SlowDesk(log, runner)

    async def written(words: int) -> tuple[int, str]:
        runner.words = words
        desk.take({"chat": Snapshot(pool=PoolId("chat"), tick_revision=1, policies=("slow",), view=None)})
        await desk.settled()
        end = (await log.bounds(Topic.INPUTS, 0)).end
        [record] = await log.read(Topic.INPUTS, 0, end - 1)
        body = decode_input(0, record.value).body
        assert isinstance(body, SlowProposal)
        return len(record.value or b""), body.missed

    size, _ = await written(bench.limit - 1000)
    words = bench.limit - 1000 + (bench.limit - size)
    at, more = await written(words), await written(words + 1)
    await log.close()
    assert bench.limit == at[0]
    return at[1], more[1]


SCENARIO = """\
version: 1
duration: 1min
pools: {a: {engines: [{gpu: h100_sxm, model: qwen3-14b}, {COUNT gpu: h100_sxm, model: qwen3-14b}], lanes: {x: {}}}}
traffic: [{trace: azure2023_conv_h1}]
"""


@beyond("scenario-bytes")
def a_scenario(bench: Bench) -> Answers:
    """A sound one with a comment that is too long."""
    text = SCENARIO.replace("COUNT", "")
    at, more = (text + "#" * (size - len(text)) for size in (bench.limit, bench.limit + 1))
    path = bench.folder / "s.yaml"
    return said(lambda: scenario_of(at, path)), said(lambda: scenario_of(more, path))


@beyond("scenario-engines")
def engines_of_a_scenario(bench: Bench) -> Answers:
    """In two groups, neither of them too large."""
    at, more = (SCENARIO.replace("COUNT", f"count: {count},") for count in (bench.limit - 1, bench.limit))
    path = bench.folder / "s.yaml"
    return said(lambda: scenario_of(at, path)), said(lambda: scenario_of(more, path))


@beyond("scenario-entries")
def entries_of_a_scenario(bench: Bench) -> Answers:
    """Streams that are all one, by an alias."""
    stream = "{trace: azure2023_conv_h1}"
    path, text = bench.folder / "s.yaml", SCENARIO.replace("COUNT", "")
    at, more = (text.replace(stream, f"&s {stream}{', *s' * (count - 1)}") for count in (bench.limit, bench.limit + 1))
    return said(lambda: scenario_of(at, path)), said(lambda: scenario_of(more, path))


@beyond("scenario-turns")
def turns_of_a_stream(bench: Bench) -> Answers:
    """Stretches of a trace that is played a million times as fast for a minute, and one more of them."""
    path, text = bench.folder / "s.yaml", SCENARIO.replace("COUNT", "")
    plain, spliced = "{trace: azure2023_conv_h1}", "{trace: {name: azure2023_conv_h1, speed: 10000, splice: SPLICE}}"
    text = text.replace(plain, spliced)
    each_s = 60.0 * 10_000 / bench.limit
    at, more = (text.replace("SPLICE", f"{length_s:.6f}s") for length_s in (each_s, each_s * (1 - 1 / bench.limit)))
    return said(lambda: scenario_of(at, path)), said(lambda: scenario_of(more, path))


@beyond("scenario-beat")
def the_beat_of_a_scenario(bench: Bench) -> Answers:
    """A thousandth of a second longer."""
    path, text = bench.folder / "s.yaml", SCENARIO.replace("COUNT", "")
    at, more = (f"{text}beat: {length_ms}ms\n" for length_ms in (1000 * bench.limit, 1000 * bench.limit + 1))
    return said(lambda: scenario_of(at, path)), said(lambda: scenario_of(more, path))


@beyond("session-steps")
def steps_of_a_session(bench: Bench) -> Answers:
    """As many as are asked for, or fewer."""

    def drawn(steps: int) -> str:
        one = (1.0, 0.0)
        source = SessionSource(
            sessions_per_s=1.0,
            steps=(float(steps), 0.0),
            first_prompt_tokens=one,
            added_tokens=one,
            output_tokens=one,
            longest_tokens=10_000_000,
        )
        return "" if len(DrawnPlans(source).draw(Random(1)).steps) == steps else "left out"

    return drawn(bench.limit), drawn(bench.limit + 1)


@beyond("log-length")
def length_of_a_request_log(bench: Bench) -> Answers:
    """Of two requests, the second so much later."""

    def read(length_s: int) -> str:
        cells = {"gpu": "RTX4090", "model": "m", "input_toks": 9, "output_toks": 9}
        later = [dict.fromkeys(STAMPS, float(at_s)) for at_s in (0, length_s)]
        rows = [Row(cells | stamps, number, bench.folder) for number, stamps in enumerate(later, 1)]
        return said(lambda: read_request_logs(rows))

    return read(bench.limit), read(bench.limit + 1)


@beyond("trace-tokens")
def tokens_of_a_request(bench: Bench) -> Answers:
    """In a CSV file."""

    def opened(tokens: int) -> str:
        path = bench.folder / f"{tokens}.csv"
        path.write_text(f"arrival_s,prompt_tokens,output_tokens\n0,1,{tokens}\n", encoding="utf-8")
        return said(lambda: open_trace(path))

    return opened(bench.limit), opened(bench.limit + 1)
