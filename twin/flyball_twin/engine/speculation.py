"""Speculative decoding in expectation: how many tokens a step puts out, without a dice.

A draft proposes k tokens per decode, and the model verifies them in one step. If each is accepted
with chance q given those before it, a step puts out (1 - q^(k+1)) / (1 - q) tokens on average
(Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", ICML 2023, eq. 1).
Here every decode advances by exactly that, rounded down over the steps so far: means are right and runs repeat,
while the spread between requests, and what the draft itself costs, are left out.
"""

from flyball_core.errors import Rejected


def tokens_per_step(draft_tokens: int, acceptance: float) -> float:
    """Expected tokens of one decode in one step. Raises `Rejected` for less than no draft or for no chance."""
    if draft_tokens < 0 or not 0.0 <= acceptance <= 1.0:
        raise Rejected(
            f"a draft has 0 tokens or more, accepted with a chance in 0..1; not {draft_tokens!r} and {acceptance!r}"
        )
    if acceptance == 1.0:
        return draft_tokens + 1.0
    return (1.0 - acceptance ** (draft_tokens + 1)) / (1.0 - acceptance)
