"""A scenario with every kind of section, and single changes that break it: reader and schema are held to them."""

from dataclasses import dataclass

GOOD = """\
version: 1
title: Everything at once
duration: 20min
grace: 30s
seeds: [1, 2]
compare: false
beat: 2s
pools:
  chat:
    balance: random(2)
    engines:
      - {count: 2, gpu: h100_sxm, model: llama-3.1-8b}
      - name: slow
        gpu: a100_sxm
        model: qwen3-14b
        variant: graphs
        backend: sglang
        tensor_parallel: 2
        weights: bf16
        kv_cache: bf16
        node: far
        max_active_requests: 64
        max_batched_tokens: 2048
        memory_share: 85%
        prefix_cache: true
        priority: true
        draft_tokens: 3
        draft_acceptance: 0.6
        cold_start: 90s
    policy:
      version: 1
      mode: control
      lanes:
        realtime: {ttft: 1s, tpot: 30ms}
        bulk: {end_to_end: 2min, priority: 10, longest_wait: 90s}
    lanes:
      bulk: {priority: 5, timeout: 45s}
  agents:
    balance: hash
    engines:
      - {gpu: h200_sxm, model: qwen3-32b, weights: fp8, expert_parallel: 1}
    lanes:
      agent: {end_to_end: 30s}
traffic:
  - trace: azure2023_conv_h1
    pools: chat
    lanes: {realtime: 70%, bulk: 30%}
  - trace: {name: azure2023_code_h1, from: 1min, to: 10min, speed: 2, keep: 50%, splice: 30s, repeat: true}
    from: 5min
    to: 15min
    pools: chat
    lanes: realtime
  - mmpp:
      states: [{rate: 1, stay: 1min}, {rate: 0, stay: 10s}]
      prompt: {median: 900, spread: 0.8}
      output: {median: 100, spread: 0}
      longest: 9000
    pools: {chat: 0.5, agents: 50%}
    lanes: {realtime: 1}
  - diurnal:
      rate: 2.5
      swing: 60%
      period: 12h
      shift: -1h
      prompt: {median: 900, spread: 0.8}
      output: {median: 100, spread: 0.5}
    pools: chat
    lanes: bulk
  - sessions:
      rate: 0.1
      steps: {median: 5, spread: 0.5}
      think: {median: 2s, spread: 1}
      opening: 1024
    pools: agents
    lanes: agent
  - sessions: {rate: 0.1, trace: claude_code_sessions, longest: 100000}
    pools: agents
    lanes: agent
faults:
  - {bandwidth: engine-1, factor: 40%, from: 5min}
  - {throttle: slow, factor: 0.5, from: 5min, to: 6min}
  - {dead: engine-0, from: 1min, to: 2min}
  - {stalled: slow, from: 1min, to: 70s}
  - {telemetry_loss: node-0, from: 1min, to: 2min}
  - {clock_skew: far, skew: -30s, from: 1min, to: 2min}
phases:
  - {name: zero, from: 0s}
  - {name: first, from: 1min, to: 5min}
  - {name: second, from: 10min}
objectives:
  agent: {ttft: 5s}
"""
"""Pool `agents` has no lane `realtime`, so the third stream is wrong; `good` leaves that pool out of it."""


def good() -> str:
    """The document, sound."""
    return GOOD.replace("{chat: 0.5, agents: 50%}", "{chat: 0.5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One change of the sound document."""

    old: str
    new: str
    said: str
    """What the problem or the hint says."""
    form: bool = True
    """Whether it is of the kind that the schema sees too: of one place, not of how two places fit."""

    def made(self) -> str:
        """The document with it."""
        assert 1 == good().count(self.old), self.old
        return good().replace(self.old, self.new)

    @property
    def line(self) -> int:
        """The line in which the two documents first differ."""
        before, after = good().splitlines(), self.made().splitlines()
        return next(n for n, (one, other) in enumerate(zip(before, after, strict=False), 1) if one != other)


MISTAKES = (
    Mistake(old="version: 1\ntitle", new="version: 2\ntitle", said="2 is not between 1 and 1"),
    Mistake(old="title: Ev", new="titel: Ev", said="did you mean 'title'?"),
    Mistake(old="duration: 20min", new="duration: 20", said="write 20ms or 20s"),
    Mistake(old="duration: 20min", new="duration: 0s", said="longer than nothing", form=False),
    Mistake(old="grace: 30s", new="grace: soon", said="'soon' is not a duration"),
    Mistake(old="beat: 2s", new="beat: 6s", said="a beat lasts 0.1 to 5 s", form=False),
    Mistake(old="seeds: [1, 2]", new="seeds: []", said="at least 1 is wanted"),
    Mistake(old="seeds: [1, 2]", new="seeds: [1.5]", said="'1.5' is not a whole number"),
    Mistake(old="seeds: [1, 2]", new='seeds: ["1"]', said="'1' is not a number"),
    Mistake(old="seeds: [1, 2]", new="seeds: [1, 1]", said="given twice", form=False),
    Mistake(old="seeds: [1, 2]", new="seeds: 1", said="expected a list"),
    Mistake(old="compare: false", new="compare: maybe", said="expected true or false"),
    Mistake(old="balance: hash", new="balance: random(0)", said="'random(0)' is not"),
    Mistake(old="  agents:\n", new="  agents!:\n", said="'agents!' is not pool"),
    Mistake(old="count: 2,", new="count: 0,", said="0 is not between 1 and 1024"),
    Mistake(old="gpu: h100_sxm", new="gpu: h100", said="did you mean 'h100_sxm'?"),
    Mistake(old="model: llama-3.1-8b", new="model: llama-9", said="model takes one of", form=False),
    Mistake(old="model: llama-3.1-8b", new="model: mine.json", said="there is no file", form=False),
    Mistake(old="variant: graphs", new="variant: graph", said="did you mean 'graphs'?"),
    Mistake(old="backend: sglang", new="backend: tgi", said="none of vllm, sglang"),
    Mistake(old="memory_share: 85%", new="memory_share: 0%", said="a share above 0"),
    Mistake(old="memory_share: 85%", new="memory_share: 85", said="write 85%"),
    Mistake(old="priority: true\n", new="priority: 1\n", said="expected true or false"),
    Mistake(old="name: slow\n", new="name: slow one\n", said="'slow one' is not engine"),
    Mistake(old="- {gpu: h200_sxm,", new="- {name: slow, gpu: h200_sxm,", said="an engine 'slow' already", form=False),
    Mistake(old="ttft: 1s,", new="ttft: 1,", said="write 1ms or 1s", form=False),
    Mistake(old="mode: control", new="mode: contrl", said="did you mean 'control'?", form=False),
    Mistake(
        old="      agent: {end_to_end: 30s}", new="      agent: {end_to_end: fast}", said="'fast' is not a duration"
    ),
    Mistake(old="trace: azure2023_conv_h1", new="trace: azure_conv", said="no bundled trace", form=False),
    Mistake(old="lanes: {realtime: 70%, ", new="lanes: {realtim: 70%, ", said="did you mean 'realtime'?", form=False),
    Mistake(old="realtime: 70%,", new="realtime: 70,", said="write 70%"),
    Mistake(old="from: 1min, to: 10min,", new="from: 10min, to: 1min,", said="a cut runs forward", form=False),
    Mistake(old="speed: 2,", new="speed: 0,", said="0 is not above 0"),
    Mistake(old="keep: 50%", new="keep: 0", said="a share above 0"),
    Mistake(old="splice: 30s", new="splice: 1h", said="no longer than the cut", form=False),
    Mistake(old="    to: 15min", new="    to: 25min", said="after the scenario", form=False),
    Mistake(old="    to: 15min", new="    to: 4min", said="a stream runs forward", form=False),
    Mistake(
        old="{rate: 1, stay: 1min}, {rate: 0, ", new="{rate: 0, stay: 1min}, {rate: 0, ", said="above 0", form=False
    ),
    Mistake(old="{rate: 1, stay: 1min}", new="{rate: 1, stay: 0s}", said="lasts longer", form=False),
    Mistake(old="{rate: 1, stay: 1min}", new="{rate: 1}", said="does not say its stay"),
    Mistake(old="title: Everything at once", new='title: "Ever\\x1b[2J"', said="a control character", form=False),
    Mistake(old="rate: 2.5", new="rate: 1e9", said="1e9 is not between 0 and 1000000"),
    Mistake(old="median: 100, spread: 0}", new="median: 100, spread: -1}", said="-1 is not between 0 and 5"),
    Mistake(old="swing: 60%", new="swing: 160%", said="160% is not between 0 and 1"),
    Mistake(old="rate: 2.5", new="rate: fast", said="'fast' is not a number"),
    Mistake(old="think: {median: 2s", new="think: {median: 2", said="write 2ms or 2s"),
    Mistake(old="longest: 100000}", new="opening: 9}", said="for sessions that are drawn", form=False),
    Mistake(old="factor: 40%, ", new="", said="'bandwidth' in a fault needs 'factor'"),
    Mistake(old="{dead: engine-0, ", new="{dead: engine-0, factor: 5%, ", said="belongs to bandwidth or throttle"),
    Mistake(old="{dead: engine-0, ", new="{dead: engine-0, stalled: slow, ", said="dead and stalled together"),
    Mistake(old="{dead: engine-0, ", new="{", said="here is none"),
    Mistake(old="{dead: engine-0, ", new="{dead: engine-9, ", said="no engine 'engine-9'", form=False),
    Mistake(old="{clock_skew: far,", new="{clock_skew: near,", said="no node 'near'", form=False),
    Mistake(old="skew: -30s", new="skew: -30", said="is not a duration"),
    Mistake(old="{stalled: slow, from: 1min, ", new="{stalled: engine-2, ", said="does not say its from"),
    Mistake(old="to: 70s}", new="to: 50s}", said="a fault runs forward", form=False),
    Mistake(old="{name: second, from: 10min}", new="{name: second}", said="does not say its from"),
    Mistake(old="second, from: 10min", new="second, from: 4min", said="the phase begins before", form=False),
    Mistake(old="  agent: {ttft: 5s}", new="  agnt: {ttft: 5s}", said="did you mean 'agent'?", form=False),
    Mistake(old="  agent: {ttft: 5s}", new="  agent: {ttfd: 5s}", said="did you mean 'ttft'?"),
)
"""One each."""
