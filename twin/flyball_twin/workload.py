"""A request, as whoever asks it knows it. It refuses to know where requests come from, and what becomes of them."""

from dataclasses import dataclass

PREFIX_TOKENS = 512
"""Tokens that one name of a request's prefix stands for, as in the Mooncake trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `arrival_s` counts from the run's start."""

    id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    lane: str
    pool: str = ""
    """The pool that serves its model; empty where a front has but one."""
    priority: int = 0
    """For an engine that schedules by priority: lower goes first."""
    session: str = ""
    """The session it belongs to; empty: none."""
    turn: int = 0
    """Its place in the session, from 0."""
    prefix: tuple[int, ...] = ()
    """Names of its prompt's leading runs of `PREFIX_TOKENS` tokens each: two requests share a prefix as far as they
    share names from the first on. Empty: it shares nothing."""
