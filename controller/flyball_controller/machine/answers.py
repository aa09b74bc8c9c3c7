"""Answers of policies: whether they are sound, and what becomes of policies that fail.

A policy is foreign code. Whatever it raises or proposes is data here: a reason in words,
the same on every machine, which goes on record. One that fails too often in a row is not
asked again until an operator says so.
"""

import re

from flyball_controller.machine.records import Recorder
from flyball_controller.machine.state import PoolState
from flyball_core.inputs import Proposal, SlowProposal, TargetKind
from flyball_core.outputs import RecordKind
from flyball_policies.seam import Memory, Policy, PoolView

MAX_TRIPS = 3
"""Times a policy may fail in a row before it is quarantined."""

MAX_PROPOSALS = 4_096
"""Most proposals taken from one answer."""

MAX_REASON = 200
"""Longest reason of a failure, in characters."""

MAX_WORDS = 1_000
"""Longest target, knob, text value and reason of a proposal together, in characters: all go on record."""

LARGEST_NUMBER = 2**62
"""No knob is set to a number of this size; below it, every whole number can be sent."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def ask(policy: Policy, view: PoolView, memory: Memory) -> tuple[list[Proposal], str]:
    """What the policy proposes, or nothing and why its answer cannot be used."""
    try:
        proposals = list(policy.propose(view, memory))[:MAX_PROPOSALS]
        fault = proposals_fault(policy.name, proposals)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises is data here, an exit as well
        fault = failure(error)
    return ([], fault) if fault else (proposals, "")


def failure(error: BaseException) -> str:
    """An exception in words that are the same wherever it is raised again, and that can be sent."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - not even its text can be had
        text = type(error).__name__
    return _ADDRESS.sub("0x", text).encode(errors="replace").decode()[:MAX_REASON]


def proposals_fault(policy: str, proposals: list[Proposal]) -> str:
    """Why these cannot be proposals of this policy; empty if they can. What is sound may still be refused."""
    for proposal in proposals:
        if not isinstance(proposal, Proposal):
            return f"proposed a {type(proposal).__name__}"
        value, words = proposal.value, (proposal.target, proposal.knob, proposal.reason)
        if not all(isinstance(word, str) and _sendable(word) for word in words):
            return "proposed something for what is no name"
        length = sum(map(len, words)) + (len(value) if isinstance(value, str) else 0)
        if length > MAX_WORDS:
            return f"proposed something in {length} characters; {MAX_WORDS} are taken"
        if not isinstance(proposal.kind, TargetKind):
            return "proposed something for neither engine nor gateway"
        what = f"{proposal.knob} of {proposal.target}"
        if proposal.policy != policy:
            return f"proposed {what} in another's name"
        if not isinstance(value, (bool, int, float, str)):
            return f"proposed a {type(value).__name__} for {what}"
        if isinstance(value, str) and not _sendable(value):
            return f"proposed what is no text for {what}"
        if not isinstance(value, str) and not abs(value) < LARGEST_NUMBER:
            return f"proposed {float(value)} for {what}"
        if not 0.0 <= proposal.propensity <= 1.0:
            return f"proposed {what} with a propensity of {proposal.propensity}"
    return ""


def _sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def take_slow_proposal(pool: PoolState, body: SlowProposal, recorder: Recorder) -> None:
    """The answer of a policy outside `step`: used at the next tick if it answers the last snapshot."""
    if body.tick_revision != pool.slow_revision or body.policy not in pool.slow_due:
        pool.count("proposal_out_of_date")  # or a copy, or of a policy that nobody asked
        return
    pool.slow_due.remove(body.policy)
    proposals = list(body.proposals[:MAX_PROPOSALS])
    fault = body.missed or proposals_fault(body.policy, proposals)
    if fault:
        trip(pool, body.policy, fault, recorder)
    else:
        pool.trips.pop(body.policy, None)
        pool.slow[body.policy] = proposals


def trip(pool: PoolState, policy: str, why: str, recorder: Recorder) -> None:
    """A policy failed: count it, and quarantine the policy when it has failed too often."""
    pool.count("policy_trips")
    pool.trips[policy] = pool.trips.get(policy, 0) + 1
    if pool.trips[policy] >= MAX_TRIPS and policy not in pool.quarantined:
        pool.quarantined[policy] = why
        recorder.note(
            RecordKind.ALARM,
            recorder.decision,
            f"policy {policy} is quarantined until an operator resets it: {why}",
        )
