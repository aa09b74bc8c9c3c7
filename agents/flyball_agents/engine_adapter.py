"""An engine's settings as a surface, over whatever sets them in a particular engine.

Knows no engine by name: an adapter for vLLM or SGLang implements `EngineControls`.
It never sets two knobs in an order that raises risk on the way: what lowers goes first.
"""

import contextlib
from collections.abc import Mapping
from typing import Protocol

from flyball_agents.offers import Offer
from flyball_agents.receiver import Receiver
from flyball_core.inputs import Ack
from flyball_core.knobs import KnobSpec, Setting, Value
from flyball_core.outputs import Directive


class EngineControls(Protocol):
    """What an engine lets one change. Calls come between two of its steps; any may raise."""

    def knobs(self) -> tuple[KnobSpec, ...]:
        """The knobs of this engine as it was launched, with operator-written safe values."""
        ...

    def read(self) -> Mapping[str, Value]:
        """The effective values, read from the engine."""
        ...

    def set(self, name: str, value: Value) -> None:
        """Set one live knob."""
        ...

    def restart(self, values: Setting) -> None:
        """Begin drain and relaunch with these restart-class values."""
        ...


class SettingsSurface:
    """The settings of one engine."""

    def __init__(self, controls: EngineControls) -> None:
        self._controls = controls

    def specs(self) -> tuple[KnobSpec, ...]:
        """The engine's knobs; they do not change while it runs."""
        return self._controls.knobs()

    def spec(self, name: str) -> KnobSpec | None:
        """The knob of that name, if the engine has it."""
        return next((spec for spec in self._controls.knobs() if spec.name == name), None)

    def refuse(self, values: Setting) -> str | None:
        """Refuse nothing: an engine's knobs are bounded one by one."""
        del values
        return None

    def apply(self, values: Setting) -> None:
        """Set each knob, lowering first; if one fails, those already set are put back as far as they let themselves."""
        was = dict(self._controls.read())
        done: list[str] = []
        try:
            for name in sorted(values, key=lambda name: (_raises(was.get(name), values[name]), name)):
                done.append(name)
                self._controls.set(name, values[name])
        except Exception:
            for name in reversed(done):
                with contextlib.suppress(Exception):  # the rest is put back, whatever this one does
                    self._controls.set(name, was[name])
            raise

    def read(self) -> Setting:
        """The effective values."""
        return self._controls.read()

    def restart(self, values: Setting) -> None:
        """Begin the relaunch."""
        self._controls.restart(values)

    def settle(self, values: Setting) -> None:
        """Nothing appears later: an engine's knobs are there from its start."""
        del values

    def zero_is_none(self, name: str) -> bool:
        """No engine knob has a zero that means "no limit"."""
        del name
        return False


def offer_directive(receiver: Receiver, directive: Directive, *, now_s: float, wall_s: float) -> Ack:
    """Hand a directive to its receiver."""
    offer = Offer(
        pool=directive.pool,
        target=directive.engine,
        version=directive.version,
        values=directive.values,
        incarnation=directive.incarnation,
        capability_hash=directive.capability_hash,
    )
    return receiver.offer(offer, now_s=now_s, wall_s=wall_s)


def _raises(was: Value | None, value: Value) -> bool:
    return not isinstance(was, str) and not isinstance(value, str) and was is not None and value > was
