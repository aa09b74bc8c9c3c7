"""Every key of a scenario, with its form, its default and what it is for: the one place that says so.

The reader, the schema for editors and the tables of `docs/scenarios.md` are made from it.
"""

from dataclasses import dataclass
from types import MappingProxyType

import yaml

from flyball_twin.scenario.forms import (
    ByName,
    Duration,
    Flag,
    ListOf,
    Name,
    Number,
    ScenarioReader,
    Schema,
    Share,
    Shares,
    Text,
    Word,
)
from flyball_twin.scenario.registries import (
    BACKENDS,
    GPU_NAMES,
    KERNEL_FILE,
    KV_CACHES,
    MODEL_NAMES,
    VARIANT_NAMES,
    WEIGHTS,
)
from flyball_twin.scenario.sections import Key, Section

MOST_ENGINES = 1024
"""Engines of a scenario."""

POOL, LANE, ENGINE, NODE = Name("pool"), Name("lane"), Name("engine"), Name("node")
_TOKENS = Number(1, 10_000_000, whole=True)
_RATE = Number(0, 1e6, above=True)


@dataclass(frozen=True, slots=True)
class Policy:
    """A preset's name, a file beside the scenario, or the document itself."""

    wanted: str = "preset, file or policy document"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> yaml.Node | str:
        """The document's node, or the name."""
        return reader.scalar(node, "a preset or a file") if isinstance(node, yaml.ScalarNode) else node

    def schema(self, defs: Schema) -> Schema:
        """A name or an object; what is in it the policy document's reader judges."""
        del defs
        return {"anyOf": [{"type": "string"}, {"type": "object", "required": ["version"]}]}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One of the GPUs that the physics knows, or a kernel file that `flyball twin calibrate` made."""

    wanted: str = "name of a GPU, or `FILE.npz`"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> str:
        """The name."""
        text = reader.scalar(node, self.wanted)
        return text if text.endswith(KERNEL_FILE) else str(reader.choice(GPU_NAMES)(node))

    def schema(self, defs: Schema) -> Schema:
        """One of these, or a file's name."""
        del defs
        return {"anyOf": [{"enum": list(GPU_NAMES)}, {"type": "string", "pattern": "\\.npz$"}]}


OBJECTIVE = Section(
    name="objective",
    what="an objective",
    keys=(
        Key("ttft", Duration(), "From arrival to the first token, at most", "none asked for"),
        Key("tpot", Duration(), "Mean time per token after the first, at most", "none asked for"),
        Key("end_to_end", Duration(), "From arrival to the last token, at most", "none asked for"),
    ),
)

LANES = Section(
    name="lane",
    what="a lane",
    keys=(
        Key(
            "priority", Number(-1000, 1000, whole=True), "Lower goes first in the gateway's queue", "the policy's, or 0"
        ),
        Key("longest_wait", Duration(), "After this it goes before any priority", "the policy's, or `60s`"),
        Key("timeout", Duration(), "Who waits so long at the gateway is answered 503", "waits for good"),
        *(Key(key.name, key.form, key.doc, "the policy's") for key in OBJECTIVE.keys),
    ),
)

ENGINES = Section(
    name="engines",
    what="a group of engines",
    keys=(
        Key("count", Number(1, MOST_ENGINES, whole=True), "How many alike", "`1`"),
        Key(
            "name",
            ENGINE,
            "What they are called: one is called so, several `NAME-0`, `NAME-1`, …",
            "`engine-N`, counted through the file",
        ),
        Key("gpu", Gpu(), "Its GPUs, or a kernel file of your own beside the scenario (`.npz`)", required=True),
        Key(
            "model",
            Name("model, or its `config.json`", pattern=r"[^\s]{1,200}", known=MODEL_NAMES),
            "The model of the registry, or that of a file beside the scenario",
            required=True,
        ),
        Key("variant", Word(VARIANT_NAMES), "The kernel variant it starts with", "`flash_attn`"),
        Key("backend", Word(BACKENDS), "Whose host costs and scheduling it has", "`vllm`"),
        Key("tensor_parallel", Number(1, 64, whole=True), "GPUs of one engine", "`1`"),
        Key("expert_parallel", Number(1, 64, whole=True), "GPUs that a layer's experts are spread over", "`1`"),
        Key("weights", Word(WEIGHTS), "Precision of the weights", "`bf16`"),
        Key("kv_cache", Word(KV_CACHES), "Precision of the KV cache", "`bf16`"),
        Key("node", NODE, "The node all of them are in; an agent sees a node", "`node-N`, filled with 8 GPUs each"),
        Key("max_active_requests", Number(1, 65_536, whole=True), "Cap of the batch", "`256`"),
        Key("max_batched_tokens", Number(16, 1_048_576, whole=True), "Token budget of a step", "`8192`"),
        Key("memory_share", Share(above=True), "Share of HBM that the engine takes", "`90%`"),
        Key("prefix_cache", Flag(), "Whether shared prefixes are computed once", "`false`"),
        Key("priority", Flag(), "Whether the engine schedules by the lane's priority", "`false`"),
        Key("draft_tokens", Number(0, 64, whole=True), "Tokens that a draft proposes each step", "`0`: no speculation"),
        Key("draft_acceptance", Share(), "Chance that one is accepted if those before it were", "`0`"),
        Key("cold_start", Duration(), "From the end of an incarnation until the next serves", "`40s`"),
    ),
    needs=MappingProxyType({"draft_acceptance": ("draft_tokens",), "draft_tokens": ("draft_acceptance",)}),
)

POOLS = Section(
    name="pool",
    what="a pool",
    keys=(
        Key("engines", ListOf(ENGINES, least=1), "Its engines, group by group", required=True),
        Key(
            "policy", Policy(), "What is ordered of the controller, lanes and objectives with it", "nothing is ordered"
        ),
        Key("lanes", ByName(LANE, LANES), "Lanes; over what the policy says of them, key by key", "the policy's"),
        Key(
            "balance",
            Name(
                "`leastconn`, `roundrobin`, `random(N)` or `hash`",
                pattern=r"(leastconn|roundrobin|hash|random\([1-9][0-9]{0,2}\))",
            ),
            "HAProxy's rule: `random(N)` is the least loaded of N drawn by weight, `hash` goes by the session",
            "`leastconn`",
        ),
    ),
)

_TIMES = (
    Key("from", Duration(), "When it begins", "`0s`"),
    Key("to", Duration(), "When it ends", "the end of the scenario"),
)
LENGTHS = Section(
    name="lengths",
    what="a spread of lengths",
    keys=(
        Key("median", Number(0, 10_000_000, above=True), "Half are shorter (tokens, or steps)", required=True),
        Key("spread", Number(0, 5), "Standard deviation of the logarithm; 0: all alike", required=True),
    ),
)
THINKING = Section(
    name="thinking",
    what="a spread of times",
    keys=(
        Key("median", Duration(), "Half are shorter", required=True),
        Key("spread", Number(0, 5), "Standard deviation of the logarithm; 0: all alike", required=True),
    ),
)
_PROMPT = Key("prompt", LENGTHS, "Prompt tokens, log-normal", required=True)
_OUTPUT = Key("output", LENGTHS, "Output tokens, log-normal", required=True)
_LONGEST = Key("longest", Number(2, 10_000_000, whole=True), "Prompt and answer together are cut off here", "`120000`")

TRACE = Section(
    name="trace",
    what="a trace",
    short="name",
    keys=(
        Key("name", Text("bundled trace, or file beside the scenario"), "Which trace", required=True),
        Key("from", Duration(), "Where the cut begins, on the trace's clock", "`0s`"),
        Key("to", Duration(), "Where it ends, on the trace's clock", "its end"),
        Key("speed", Number(0, 10_000, above=True), "How much faster than recorded it is played", "`1`"),
        Key("keep", Share(above=True), "Share of its requests that is kept, evenly spread", "`100%`"),
        Key("splice", Duration(), "Play stretches of this length from random places, endlessly", "as recorded"),
        Key("repeat", Flag(), "Begin again at the end", "`false`"),
    ),
)
STATES = Section(
    name="state",
    what="a state",
    keys=(
        Key("rate", Number(0, 1e6), "Requests a second while it lasts", required=True),
        Key("stay", Duration(), "How long it lasts on average", required=True),
    ),
)
MMPP = Section(
    name="mmpp",
    what="a Markov-modulated Poisson process",
    keys=(
        Key("states", ListOf(STATES, least=1), "Between which the rate jumps", required=True),
        _PROMPT,
        _OUTPUT,
        _LONGEST,
    ),
)
DIURNAL = Section(
    name="diurnal",
    what="a day's swing",
    keys=(
        Key("rate", _RATE, "Requests a second on average", required=True),
        Key("swing", Share(), "How far the rate goes above and below, of that", required=True),
        Key("period", Duration(), "How long a day is", "`24h`"),
        Key("shift", Duration(signed=True), "When the rate first rises through its average", "`0s`"),
        _PROMPT,
        _OUTPUT,
        _LONGEST,
    ),
)
SESSIONS = Section(
    name="sessions",
    what="agentic sessions",
    keys=(
        Key("rate", _RATE, "Sessions that start a second", required=True),
        Key(
            "trace", Text("bundled trace, or file beside the scenario"), "Sessions to draw from", "drawn by the numbers"
        ),
        Key("steps", LENGTHS, "Requests of a session, at most 10,000", "`{median: 12, spread: 0.8}`"),
        Key("first_prompt", LENGTHS, "Tokens of its first prompt", "`{median: 20000, spread: 0.6}`"),
        Key("added", LENGTHS, "What a step adds beside the answer before it", "`{median: 900, spread: 1}`"),
        Key("output", LENGTHS, "Output tokens", "`{median: 220, spread: 0.8}`"),
        Key("think", THINKING, "From an answer to the next request", "`{median: 3s, spread: 1.2}`"),
        Key("opening", Number(0, 10_000_000, whole=True), "Leading tokens that all sessions share", "`0`"),
        Key("longest", Number(2, 10_000_000, whole=True), "A session ends before it would be longer", "`120000`"),
    ),
)
STREAM = Section(
    name="stream",
    what="a stream",
    one_of=("trace", "mmpp", "diurnal", "sessions"),
    keys=(
        Key("trace", TRACE, "Play a recorded trace"),
        Key("mmpp", MMPP, "A rate that jumps between states"),
        Key("diurnal", DIURNAL, "A rate that swings over the day"),
        Key("sessions", SESSIONS, "Chains of requests that wait for each other"),
        *_TIMES,
        Key("pools", Shares(POOL), "Where its requests go", "the only pool"),
        Key("lanes", Shares(LANE), "As what", "the only lane"),
    ),
)

_KINDS = ("bandwidth", "throttle", "dead", "stalled", "telemetry_loss", "clock_skew")
FAULT = Section(
    name="fault",
    what="a fault",
    one_of=_KINDS,
    needs=MappingProxyType({"bandwidth": ("factor",), "throttle": ("factor",), "clock_skew": ("skew",)}),
    only_with=MappingProxyType({"factor": ("bandwidth", "throttle"), "skew": ("clock_skew",)}),
    keys=(
        Key("bandwidth", ENGINE, "The engine's GPU has `factor` of its HBM bandwidth"),
        Key("throttle", ENGINE, "The engine's GPU runs at `factor` of its clock"),
        Key("dead", ENGINE, "The engine is gone with all it ran; at the end it starts cold"),
        Key("stalled", ENGINE, "The engine keeps what it has and completes nothing"),
        Key("telemetry_loss", NODE, "The node's agent reaches no log"),
        Key("clock_skew", NODE, "The node's wall clock is off by `skew`"),
        Key("factor", Share(above=True), "What is left"),
        Key("skew", Duration(signed=True), "How far the clock is ahead"),
        Key("from", Duration(), "When it begins", required=True),
        Key("to", Duration(), "When it is over", "never"),
    ),
)
PHASE = Section(
    name="phase",
    what="a phase",
    keys=(
        Key("name", Text(), "What tables and pictures call it", required=True),
        Key("from", Duration(), "When it begins", required=True),
        Key("to", Duration(), "When it ends", "where the next begins, or the end"),
    ),
)
SCENARIO = Section(
    name="scenario",
    what="the scenario",
    keys=(
        Key("version", Number(1, 1, whole=True), "Of this form of document: `1`", required=True),
        Key("title", Text(), "One line for people", "the file's name"),
        Key("duration", Duration(), "How long requests arrive", required=True),
        Key("grace", Duration(), "How long after that they may still finish", "`60s`"),
        Key("beat", Duration(), "How often agents sample and the controller ticks, `100ms` to `5s`", "`1s`"),
        Key("seeds", ListOf(Number(0, 2**32 - 1, whole=True), least=1), "What everything random is drawn by", "`[1]`"),
        Key("compare", Flag(), "Whether an ungoverned fleet serves the same requests beside it", "`true`"),
        Key("pools", ByName(POOL, POOLS), "The fleet", required=True),
        Key("traffic", ListOf(STREAM, least=1), "What is asked of it", required=True),
        Key("faults", ListOf(FAULT), "What goes wrong", "nothing"),
        Key("phases", ListOf(PHASE), "Stretches that tables and pictures name", "none"),
        Key("objectives", ByName(LANE, OBJECTIVE), "Of lanes; over what pools and policies say", "theirs"),
    ),
)
"""The whole document."""
