"""What an engine counts, in the names of `EngineSample`. It refuses to count anything that a real engine cannot."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What an engine has counted since its incarnation began."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    requests_finished: int = 0
    requests_aborted: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    """Prompt tokens looked up in the prefix cache, and found there."""
    drafts: int = 0
    """Proposals: one per decode and step."""
    draft_tokens: int = 0
    accepted_tokens: int = 0
    """Tokens proposed by a draft, and accepted."""
    ttft_s_sum: float = 0.0
    ttft_count: int = 0
    itl_s_sum: float = 0.0
    itl_count: int = 0
    """Between two outputs of a request; with speculation an output may be several tokens."""
    queue_s_sum: float = 0.0
    queue_count: int = 0
    e2e_s_sum: float = 0.0
    e2e_count: int = 0
    steps: int = 0
    step_s: float = 0.0
    read_bytes: float = 0.0
    flops: float = 0.0
