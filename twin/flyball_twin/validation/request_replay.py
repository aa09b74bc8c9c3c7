"""A request log served again by the twin: the same requests at the same times, on an engine started alike.

The engine is taken step by step at its exact cost. Its stamps are those of vLLM, whose scheduler, where it is
asynchronous, runs a step ahead of the GPU. It refuses to look at what the log says of the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flyball_core.errors import Fatal
from flyball_core.ids import EngineId
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.scheduling import Scheduling
from flyball_twin.engine.sequences import Sequence as Attempt
from flyball_twin.physics import FLASH_ATTN, EngineModel
from flyball_twin.validation.request_logs import LoggedRequest, TelemetryPoint
from flyball_twin.workload import Request

AHEAD = Scheduling(steps_ahead=1)
"""vLLM's. A log says when the engine had each request, whatever kept it before: so nothing needs to say that prompts
come one a step, and the logs are against it."""
WAITING_WEIGHT = 4
"""vLLM sends a request to the data-parallel rank with the least 4 x waiting + running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How the logged engine was started, as far as the twin needs to know."""

    engine: EngineModel
    scheduling: Scheduling = AHEAD
    ranks: int = 1
    """Data-parallel ranks behind one door; each has a scheduler and a cache of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the twin made of one request; as the properties of `LoggedRequest`."""

    queue_s: float
    prefill_s: float
    tpot_s: float | None
    service_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the twin made of a log: requests in its order, and its gauges once a second."""

    served: tuple[Served, ...]
    curve: tuple[TelemetryPoint, ...]
    preemptions: int


class _Rank:
    """One engine, taken step by step."""

    def __init__(self, name: str, deployment: Deployment) -> None:
        self.engine = Engine(
            EngineId(name), deployment.engine, FLASH_ATTN.name, scheduling=deployment.scheduling, stepped=True
        )

    @property
    def load(self) -> int:
        """By what vLLM chooses among ranks."""
        batch = self.engine.batch
        return WAITING_WEIGHT * len(batch.waiting) + batch.running

    def submit(self, request: Request, now_s: float) -> Attempt:
        """Take a request; an idle engine begins with it at once."""
        attempt = self.engine.submit(request, now_s)
        if self.engine.step_end_s == NEVER:
            self.engine.begin(now_s)
        return attempt

    def step(self) -> None:
        """End the step under way and begin the next."""
        now_s = self.engine.step_end_s
        self.engine.finish_step()
        self.engine.begin(now_s)


def replay(
    requests: Sequence[LoggedRequest], deployment: Deployment, *, first: int | None = None, sample_s: float = 1.0
) -> Replay:
    """Serve the requests of a log, each when it was queued, and sample the gauges every `sample_s`.

    With `first` it ends as soon as so many, from the first on, are answered, and tells of those only.
    Raises `Rejected` for a request that the deployment can never hold.
    """
    ranks = [_Rank(f"rank-{index}", deployment) for index in range(deployment.ranks)]
    curve: list[TelemetryPoint] = []
    attempts: list[Attempt] = []
    wanted = len(requests) if first is None else first
    for index, logged in enumerate(requests):
        _advance(ranks, logged.queued_s, curve, sample_s)
        if index >= wanted and all(attempt.finished_s is not None for attempt in attempts[:wanted]):
            break
        rank = min(ranks, key=lambda rank: rank.load)
        request = Request(
            id=index,
            arrival_s=logged.queued_s,
            prompt_tokens=logged.prompt_tokens,
            output_tokens=logged.output_tokens,
            lane="logged",
        )
        attempts.append(rank.submit(request, logged.queued_s))
    for attempt in attempts[:wanted]:
        while attempt.finished_s is None:
            _advance(ranks, min(rank.engine.step_end_s for rank in ranks), curve, sample_s)
    curve.append(_gauges(ranks, sample_s * (len(curve) + 1)))
    served = tuple(_served(attempt) for attempt in attempts[:wanted])
    return Replay(
        served=served, curve=tuple(curve), preemptions=sum(rank.engine.counters.preemptions for rank in ranks)
    )


def _advance(ranks: Sequence[_Rank], until_s: float, curve: list[TelemetryPoint], sample_s: float) -> None:
    """Settle every step that ends by `until_s`, of all ranks in the order of time."""
    while True:
        rank = min(ranks, key=lambda rank: rank.engine.step_end_s)
        end_s = rank.engine.step_end_s
        _sample(ranks, min(end_s, until_s), curve, sample_s)
        if end_s > until_s:
            break
        rank.step()


def _sample(ranks: Sequence[_Rank], until_s: float, curve: list[TelemetryPoint], sample_s: float) -> None:
    while (at_s := sample_s * (len(curve) + 1)) <= until_s:
        curve.append(_gauges(ranks, at_s))


def _gauges(ranks: Sequence[_Rank], at_s: float) -> TelemetryPoint:
    batches = [rank.engine.batch for rank in ranks]
    return TelemetryPoint(
        at_s=at_s,
        running=sum(batch.running for batch in batches),
        waiting=sum(len(batch.waiting) for batch in batches),
        kv_share=sum(batch.kv.used / batch.kv.capacity for batch in batches) / len(batches),
    )


def _served(attempt: Attempt) -> Served:
    scheduled_s, first_token_s, finished_s = attempt.scheduled_s, attempt.first_token_s, attempt.finished_s
    if scheduled_s is None or first_token_s is None or finished_s is None:
        raise Fatal(f"request {attempt.request.id} of the log was never answered")
    later = attempt.request.output_tokens - 1
    return Served(
        queue_s=scheduled_s - attempt.arrived_s,
        prefill_s=first_token_s - scheduled_s,
        tpot_s=(finished_s - first_token_s) / later if later else None,
        service_s=finished_s - scheduled_s,
    )
