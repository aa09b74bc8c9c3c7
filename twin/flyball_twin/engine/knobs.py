"""The knobs of a simulated engine: what they are called, how far they reach, and what a restart takes.

Refuses to set any: that is the engine's.
"""

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, KnobClass, KnobKind, KnobSpec, Setting
from flyball_twin.physics import VARIANTS, EngineModel


def live_knobs(model: EngineModel) -> tuple[KnobSpec, ...]:
    """The live knobs of an engine, which was started at their ceilings.

    Raises `Rejected` if its budget cannot hold a token for each of its requests, and those of a draft.
    """
    requests, tokens = model.max_active_requests, model.max_batched_tokens
    # Never below what all running decodes need, so that each gets its token.
    least = requests * (1 + model.draft_tokens)
    if not 0 < least <= tokens:
        raise Rejected(f"{requests} requests need a budget of {least} tokens a step at least, not {tokens}")
    return (
        KnobSpec(
            name=BATCH_CAP,
            knob_class=KnobClass.LIVE,
            kind=KnobKind.INTEGER,
            safe=requests,
            minimum=1,
            maximum=requests,
            unit="requests",
        ),
        KnobSpec(
            name=TOKEN_BUDGET,
            knob_class=KnobClass.LIVE,
            kind=KnobKind.INTEGER,
            safe=tokens,
            minimum=least,
            maximum=tokens,
            unit="tokens",
        ),
    )


def variant_knob(safe: str) -> KnobSpec:
    """The restart knob."""
    return KnobSpec(
        name=VARIANT, knob_class=KnobClass.RESTART, kind=KnobKind.CHOICE, safe=safe, choices=tuple(VARIANTS)
    )


def known_variant(value: object) -> str:
    """A variant's name. Raises `Rejected` for what is none."""
    if not isinstance(value, str) or value not in VARIANTS:
        raise Rejected(f"variant takes one of {', '.join(VARIANTS)}, not {value!r}")
    return value


def restart_variant(values: Setting, now: str, engine: EngineId) -> str:
    """The variant that an engine is to be relaunched with. Raises `Rejected` for another knob or no variant."""
    for name in values:
        if name != VARIANT:
            raise Rejected(f"{name} is not a restart knob of {engine}")
    return known_variant(values.get(VARIANT, now))
