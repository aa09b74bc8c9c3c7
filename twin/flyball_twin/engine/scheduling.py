"""How an engine schedules: the choices it was started with, as data.

It refuses to schedule by itself; the defaults are an engine that schedules as in a textbook, between its steps.
What its steps cost, and what bounds them, is the engine's model's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from flyball_core.errors import Rejected


class BatchPolicy(StrEnum):
    """What a step is made of, and when a request is let in."""

    MIXED = "mixed"
    """vLLM V1: decodes and pieces of prefills share each step's token budget."""
    PREFILL_FIRST = "prefill_first"
    """SGLang: a step is either prefills, up to the token budget, or decodes; prefills go first."""
    IN_FLIGHT = "in_flight"
    """TensorRT-LLM: as `mixed`, but a request is let in only if its prompt and its whole answer fit beside those of
    all that run, so that nothing is ever preempted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """How an engine schedules: what it was started with."""

    policy: BatchPolicy = BatchPolicy.MIXED
    priority: bool = False
    """Whether the lowest `Request.priority` goes first, and the highest is preempted first; else as they came."""
    long_prefill_tokens: int = 0
    """The most tokens of one prompt in one step, unless it is alone (vLLM's `long_prefill_token_threshold`); 0: as
    the budget allows."""
    reserve_prompt: bool = True
    """Whether a request waits until its whole prompt fits (vLLM's `scheduler_reserve_full_isl`), or its first piece."""
    watermark: float = 0.0
    """Share of the KV blocks that letting a request in leaves free while others run: headroom against preemption."""
    steps_ahead: int = 0
    """Steps whose batches are made while the one under way runs: a request that comes meanwhile is in the first after
    them at the earliest (asynchronous scheduling in vLLM, overlap scheduling in SGLang and TensorRT-LLM: 1)."""
    one_prompt_a_step: bool = False
    """Whether a step lets in at most one request, however many wait."""
    prefix_cache: bool = False
    draft_acceptance: float = 0.0
    """Chance that a proposed token is accepted, given that those before it were."""


PLAIN = Scheduling()
"""Each step is made of all that is there when it begins."""

AS_VLLM = Scheduling(steps_ahead=1, one_prompt_a_step=True)
"""vLLM V1 as it starts by itself, and as its engines were measured: see `flyball_twin.validation.benchmarks`."""

AS_STARTED: Mapping[str, Scheduling] = {
    "vllm": AS_VLLM,
    "sglang": Scheduling(policy=BatchPolicy.PREFILL_FIRST, steps_ahead=1),
    "trtllm": Scheduling(policy=BatchPolicy.IN_FLIGHT, steps_ahead=1, one_prompt_a_step=True),
}
"""How each serving backend schedules by itself."""


def scheduling_of(backend: str) -> Scheduling:
    """How a serving backend schedules by itself. Raises `Rejected` for one that is not known."""
    found = AS_STARTED.get(backend)
    if found is None:
        raise Rejected(f"backend takes one of {', '.join(AS_STARTED)}, not {backend!r}")
    return found
