"""The checker: reads a record and a log, and answers lost, unexpected, recovered, per promise.

It looks only at what travelled and at what was done, never at how: inputs with their offsets, the audit, what was told,
and what agents and receivers wrote down while they did it. The log may have had any number of owners, frozen ones that
woke up among them; every record of it may be there twice; compaction may have taken directives.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.replay import replay_log
from flyball_core.fencing import Fence, Version
from flyball_core.frames import Frame
from flyball_core.ids import LogId
from flyball_core.inputs import Ack, AckStatus, Attach, Fingerprint, TargetKind
from flyball_core.knobs import KnobSpec
from flyball_core.outputs import DecisionRecord, Directive, TickRecord, compacted_key
from flyball_log.interface import Log
from harness.invariants import (
    GRACE_S,
    Findings,
    Identity,
    Recorded,
    check_accounts,
    check_bounds,
    check_motion,
    read_partition,
)
from laboratory.leases import judge_leases
from laboratory.record import Applied, Record
from laboratory.verdict import Answer, Promise, Verdict

__all__ = ["Promise", "Verdict", "judge"]

_MOST_WEIGHT = 256


async def judge(
    record: Record,
    log: Log,
    *,
    gone: Collection[str] = (),
    grace_s: float = GRACE_S,
    replays: bool = True,
    fingerprint: Fingerprint | None = None,
) -> Verdict:
    """Judge what was recorded against the log.

    `gone` are targets that were still struck at the end: of them nothing is missed. What was told less than `grace_s`
    of the machine's time before the end may be unanswered. `replays=False` leaves promise 7 alone. `fingerprint` is
    what the log's claims should bear; that of this process unless told otherwise. Raises as `Log.read`.
    """
    verdict = Verdict()
    partitions = [await read_partition(log, partition) for partition in range(log.partitions)]
    specs = _specs(partitions)
    judge_applied(log.log_id, record.applied, partitions, verdict)
    for partition, recorded in enumerate(partitions):
        _judge_told(recorded, record, gone, grace_s, verdict[Promise.ORDER])
        _judge_machine(partition, recorded, verdict)
    _judge_values(record.applied, specs, verdict[Promise.MOTION])
    judge_leases(record, specs, gone, verdict[Promise.EASING])
    judge_frames(record, partitions, verdict[Promise.ACCOUNTS])
    verdict.looked_at |= {
        "inputs": sum(len(recorded.inputs) for recorded in partitions),
        "records of the audit": sum(len(recorded.audit) for recorded in partitions),
        "settings told": sum(len(recorded.told) for recorded in partitions),
        "applied": len(record.applied),
        "frames made": sum(line.what == "made" for line in record.sampled),
        "ignored of zombies": sum(recorded.ignored for recorded in partitions),
    }
    if replays:
        await _judge_replay(log, fingerprint or own_fingerprint(), verdict)
    return verdict


def judge_applied(log_id: LogId, applied: Sequence[Applied], partitions: Sequence[Recorded], verdict: Verdict) -> None:
    """Hold what receivers did to what was told: nothing twice, nothing older, nothing that nobody told.

    Versions of another log are not judged by this one's.
    """
    order, lives = verdict[Promise.ORDER], verdict[Promise.LIVES]
    told = [_told(recorded) for recorded in partitions]
    last: dict[tuple[str, str], Applied] = {}
    for event in sorted(applied, key=lambda one: one.at_s):
        version, who = event.version, f"{event.kind} {event.target}"
        if version.log_id == log_id:
            within = 0 <= version.partition < len(partitions)
            if not within or (
                partitions[version.partition].begin <= version.revision
                and not _was_told(event, told[version.partition])
            ):
                order.unexpected.append(f"{who} applied {version} at {event.at_s:.3f}, which nobody told it")
        before = last.get((event.kind, event.target))
        last[event.kind, event.target] = event
        if before is None or version.against(before.version) not in (Fence.STALE, Fence.SAME):
            continue
        if before.incarnation == event.incarnation:
            order.unexpected.append(
                f"{who} applied {version} at {event.at_s:.3f} after {before.version} at {before.at_s:.3f}"
            )
        else:
            lives.unexpected.append(
                f"{who} applied {version} in incarnation {event.incarnation} "
                f"after {before.version} in {before.incarnation}"
            )


def judge_frames(record: Record, partitions: Sequence[Recorded], answer: Answer) -> None:
    """Hold what agents made, synced and dropped to the frames in the log. Agents without a record are left out."""
    came = {
        (body.agent, body.boot, body.pool, body.seq)
        for recorded in partitions
        for item in recorded.inputs
        if isinstance(body := item.body, Frame)
    }
    made = {line.identity for line in record.sampled if line.what == "made"}
    synced = {line.identity for line in record.sampled if line.what == "synced"}
    dropped = {line.identity: line.reason for line in record.sampled if line.what == "dropped"}
    retained = any(recorded.begin > 0 for recorded in partitions)
    agents = {line.agent for line in record.sampled}
    if not retained:  # else it may have come and passed out of retention
        answer.lost += _runs(synced - came - dropped.keys(), "synced, and neither came nor was dropped")
    answer.lost += _runs({one for one, reason in dropped.items() if not reason}, "dropped for no reason")
    answer.unexpected += _runs({one for one in came - made if one[0] in agents}, "in the log, and nobody made them")
    answer.recovered += _runs((made & came) - synced, "never known to be synced, and came")
    answer.recovered += _runs(dropped.keys() & came, "given up as dropped, and came")


def _told(recorded: Recorded) -> dict[Version, set[str]]:
    """The compacted keys that were written under each version, by the audit, which is never compacted, and as kept."""
    told: dict[Version, set[str]] = defaultdict(set)
    for line in recorded.audit:
        if isinstance(line, DecisionRecord):
            told[line.version].update(line.published)
    for message in recorded.told:
        told[message.version].add(compacted_key(message))
    return told


def _was_told(event: Applied, told: Mapping[Version, set[str]]) -> bool:
    first = "directive/" if event.kind == "engine" else "table/"
    last = f"/{event.target}/{event.version.epoch}"
    return any(key.startswith(first) and key.endswith(last) for key in told.get(event.version, ()))


def _judge_told(recorded: Recorded, record: Record, gone: Collection[str], grace_s: float, answer: Answer) -> None:
    """Whether each target's last order was answered, and whether answers say what was done."""
    last: dict[tuple[str, str], Version] = {}
    contents: dict[tuple[str, str, Version], object] = {}
    for message in recorded.told:
        kind, name = ("engine", message.engine) if isinstance(message, Directive) else ("gateway", message.gateway)
        if contents.setdefault((kind, name, message.version), message) != message:
            answer.unexpected.append(f"{kind} {name} was told two different things under {message.version}")
        last[kind, str(name)] = message.version
    answered, left = _answers(recorded)
    applied = {(event.kind, event.target, event.version) for event in record.applied}
    watched = {(event.kind, event.target) for event in record.applied}
    for who, answers in answered.items():
        for version, taken in answers.items():
            foreign = version.partition != recorded.partition or version.revision < recorded.begin
            if taken and who in watched and not foreign and (*who, version) not in applied:
                answer.unexpected.append(f"{who[0]} {who[1]} said that it took {version}, and did not")
    times = {line.version.revision: line.time_s for line in recorded.audit if isinstance(line, TickRecord)}
    end_s = max(times.values(), default=0.0)
    for who, version in last.items():
        if version in answered[who] or who in left or who[1] in gone:
            continue
        since_s = end_s - times.get(version.revision, end_s)
        if any(other.against(version) is Fence.NEWER for other in answered[who]):
            answer.recovered.append(f"{who[0]} {who[1]} never answered {version}, and answered a later one")
        elif since_s > grace_s:
            answer.lost.append(
                f"{who[0]} {who[1]} was told {version}, {since_s:.0f} s before the end, and never answered"
            )


def _answers(recorded: Recorded) -> tuple[dict[tuple[str, str], dict[Version, bool]], set[tuple[str, str]]]:
    """By target, the versions it answered to and whether it took them; and who has left."""
    answered: dict[tuple[str, str], dict[Version, bool]] = defaultdict(dict)
    standing: dict[tuple[str, str], _Standing] = defaultdict(_Standing)
    for item in recorded.inputs:
        body = item.body
        if isinstance(body, Ack):
            taken = body.status is not AckStatus.NACK
            versions = answered[body.kind.value, body.target]
            versions[body.version] = versions.get(body.version, False) or taken
        elif isinstance(body, Attach):
            standing[body.kind.value, body.target].hear(body, item.offset)
            if body.held is not None:
                answered[body.kind.value, body.target][body.held] = True
    return answered, {who for who, said in standing.items() if not said.attached}


@dataclass(slots=True)
class _Standing:
    """What a receiver said of itself last, in its own order: the log may have taken its words in another."""

    attached: bool = False
    incarnation: str = ""
    attempt: int = 0
    offset: int = -1
    earlier: set[str] = field(default_factory=set)
    """The incarnations before: of them nothing is news."""

    def hear(self, said: Attach, offset: int) -> None:
        """An attach or a farewell."""
        if said.incarnation in self.earlier:
            return
        if said.incarnation != self.incarnation:
            if said.attached:
                self.earlier.add(self.incarnation)
                self.attached, self.incarnation, self.attempt, self.offset = (
                    True,
                    said.incarnation,
                    said.attempt,
                    offset,
                )
        elif said.attached:
            if not 0 < said.attempt <= self.attempt:
                self.attached, self.attempt, self.offset = True, said.attempt, offset
        elif said.attempt and self.attempt:
            self.attached = self.attached and said.attempt < self.attempt
        else:
            self.attached = self.attached and said.ends is not None and said.ends < self.offset

    def _begin(self, said: Attach, offset: int) -> None:
        self.attached, self.offset = True, offset
        self.incarnation, self.attempt = said.incarnation, said.attempt


def _judge_machine(partition: int, recorded: Recorded, verdict: Verdict) -> None:
    """What the audit says of bounds, slew, dwell and frames."""
    found = Findings()
    outputs = recorded.outputs
    check_bounds(recorded.inputs, outputs, found)
    check_motion(recorded.inputs, outputs, found)
    check_accounts(recorded.inputs, outputs, found)
    verdict[Promise.MOTION].unexpected += [f"partition {partition}: {text}" for text in found.motion]
    verdict[Promise.ACCOUNTS].lost += [f"partition {partition}: {text}" for text in found.accounts]


def _specs(partitions: Iterable[Recorded]) -> dict[str, dict[str, KnobSpec]]:
    """By engine, its knobs as it attached with them last."""
    specs: dict[str, dict[str, KnobSpec]] = {}
    for recorded in partitions:
        for item in recorded.inputs:
            body = item.body
            if isinstance(body, Attach) and body.attached and body.kind is TargetKind.ENGINE:
                specs[body.target] = {spec.name: spec for spec in body.knobs}
    return specs


def _judge_values(applied: Sequence[Applied], specs: Mapping[str, Mapping[str, KnobSpec]], answer: Answer) -> None:
    """What receivers set, held to what each knob can hold."""
    for event in applied:
        for name, value in event.values.items():
            wrong: str | None
            if event.kind == "engine":
                if event.target not in specs:
                    continue  # it never attached in the inputs that are kept
                spec = specs[event.target].get(name)
                wrong = f"it has no knob {name}" if spec is None else spec.refuse(value)
            else:
                high = _MOST_WEIGHT if name.startswith("weight:") else math.inf
                low = -math.inf if name.startswith("priority:") else 0
                number = isinstance(value, (int, float)) and low <= value <= high
                wrong = None if number else f"it is not {low:g} to {high:g}"
            if wrong is not None:
                answer.unexpected.append(f"{event.kind} {event.target} set {name}={value} at {event.version}: {wrong}")


async def _judge_replay(log: Log, fingerprint: Fingerprint, verdict: Verdict) -> None:
    answer = verdict[Promise.REPLAY]
    report = await replay_log(log, standard_seams, fingerprint)
    for one in report.differences:
        recorded, replayed = one.recorded[:120], one.replayed[:120]
        answer.unexpected.append(
            f"partition {one.partition}: {one.where}: {one.what}: recorded {recorded}, replayed {replayed}"
        )
    if report.duplicates:
        answer.recovered.append(f"{report.duplicates} records were published twice")
    verdict.looked_at["records replayed"] = report.records


def _runs(identities: Iterable[Identity], what: str) -> list[str]:
    """Frames in sentences: one for each run of sequence numbers."""
    runs: list[tuple[tuple[str, str, str], int, int]] = []
    for agent, boot, pool, seq in sorted(identities):
        whose = agent, boot, pool
        if runs and runs[-1][0] == whose and runs[-1][2] == seq - 1:
            runs[-1] = whose, runs[-1][1], seq
        else:
            runs.append((whose, seq, seq))
    return [
        f"frame{'s' if last > first else ''} {first}{f' to {last}' if last > first else ''} "
        f"of agent {agent}, boot {boot}, pool {pool}: {what}"
        for (agent, boot, pool), first, last in runs
    ]
