"""The walk: every rule in turn, and what came of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from flyball_agents.contract import moving, rules
from flyball_agents.contract.door import Door, Ended, NothingCame
from flyball_agents.contract.examining import Broken, Examination, Patience, Skipped, open_attach
from flyball_agents.contract.rules import Rule
from flyball_core.errors import Rejected
from flyball_core.inputs import Attach

RULES = (
    Rule("R1", "a stream opens with a whole attach", rules.attach_is_whole),
    Rule("R11", "what carries no version is refused and not held", rules.no_version_is_refused),
    Rule("R3", "every directive or table is answered once, in order, by name", rules.every_offer_is_answered_once),
    Rule("R4", "a newer version is applied, read back and answered", rules.newer_is_taken),
    Rule("R5", "a greater epoch is newer at any revision", rules.greater_epoch_is_newer),
    Rule("R6", "the same version is answered again and not applied again", rules.same_is_answered_again),
    Rule("R7", "an older version is refused and changes nothing", rules.older_is_refused),
    Rule("R8", "another log's version is refused, and the refusal says so", rules.other_log_is_refused),
    Rule("R9", "another partition's version is refused, and the refusal says so", rules.other_partition_is_refused),
    Rule("R10", "what is meant for another is refused and leaves no trace", rules.misdirected_is_refused),
    Rule("R12", "a knob that is not there is refused", rules.unknown_knob_is_refused),
    Rule("R13", "a value out of bounds is refused", rules.out_of_bounds_is_refused),
    Rule("R14", "a value of the wrong type, or of none, is refused", rules.wrong_type_is_refused),
    Rule("R15", "all values of a version are set, or none", rules.all_or_nothing),
    Rule("R16", "what was decided for other capabilities is refused", rules.other_capabilities_are_refused),
    Rule("R17", "what names another incarnation is refused", rules.other_incarnation_is_refused),
    Rule("R18", "a restart that names no incarnation is refused", rules.restart_names_its_incarnation),
    Rule("R19", "a version once refused is never taken, nor an older one", rules.refusal_is_final),
    Rule("R20", "a heartbeat gets no answer and moves no knob", rules.heartbeat_says_nothing),
    Rule("R21", "a lease that runs out is told, and knobs are eased, not dropped", moving.lease_runs_out),
    Rule("R22", "a heartbeat that is not newer renews nothing", moving.old_heartbeat_renews_nothing),
    Rule("R23", "what was eased stays eased until the next version is taken", moving.eased_stays_eased),
    Rule("R2", "a stream that broke is opened anew, and its attach says what is held", moving.comes_back),
    Rule("R24", "a stream that fell silent is left for another", moving.silence_is_left),
    Rule("R25", "a rebase frees for another log, and only whom it concerns", moving.rebase_frees),
)
"""In the order in which they are walked."""


class Verdict(Enum):
    """What came of a rule."""

    HELD = "held"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One rule's line."""

    rule: str
    claim: str
    verdict: Verdict
    why: str = ""
    """What the receiver did, or why the rule says nothing about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What came of all rules."""

    attach: Attach
    """How the receiver introduced itself."""
    results: tuple[Result, ...]
    wall_s: float

    def count(self, verdict: Verdict) -> int:
        """How many rules came to that."""
        return sum(result.verdict is verdict for result in self.results)


async def walk(
    door: Door, patience: Patience, tell: Callable[[Result], None], *, through: Sequence[Rule] = RULES
) -> Walk:
    """Wait for a receiver and walk it through the rules, telling each result as it comes.

    Raises `NothingCame` if none attaches in time, `Rejected` if what attached cannot be examined.
    """
    start_s = time.monotonic()
    sitting = await door.sitting(patience.move_s)
    attach = open_attach(await sitting.hear(patience.answer_s))
    exam = Examination(door, sitting, attach, patience)
    results = []
    for rule in through:
        result = await _try(rule, exam)
        tell(result)
        results.append(result)
    exam.sitting.end()
    return Walk(attach=attach, results=tuple(results), wall_s=time.monotonic() - start_s)


async def _try(rule: Rule, exam: Examination) -> Result:
    try:
        await rule.try_out(exam)
    except Skipped as error:
        return Result(rule=rule.number, claim=rule.claim, verdict=Verdict.SKIPPED, why=str(error))
    except (Broken, Ended, NothingCame, Rejected) as error:
        why = str(error)
    else:
        return Result(rule=rule.number, claim=rule.claim, verdict=Verdict.HELD)
    try:  # what it holds now is anybody's guess: it may say so itself, lest one fault spoil all rules after it
        await exam.sit_again(exam.patience.move_s)
        exam.believe()
    except (Broken, Ended, NothingCame, Rejected) as error:
        why += f"; and then it did not come back: {error}"
    return Result(rule=rule.number, claim=rule.claim, verdict=Verdict.BROKEN, why=why)
