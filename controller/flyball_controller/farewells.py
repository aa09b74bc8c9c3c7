"""Farewells: putting on record that a receiver is attached no more, by whoever knows.

A farewell names the attach that it ends. So it may come late, and twice: it ends no later attach.
"""

from flyball_controller.machine.state import EngineState, GatewayState, PoolState
from flyball_core.ids import Incarnation, PoolId
from flyball_core.inputs import Attach, TargetKind


def farewell(attach: Attach, offset: int) -> Attach:
    """The end of what `attach`, at this offset of the inputs, began."""
    return Attach(
        pool=attach.pool,
        kind=attach.kind,
        target=attach.target,
        incarnation=attach.incarnation,
        attached=False,
        ends=offset,
        attempt=attach.attempt,
    )


def left_behind(pool: PoolState, before: int) -> list[Attach]:
    """Farewells of everybody in the pool who attached before this offset and has not left, as far as the log knows."""
    known: list[tuple[TargetKind, str, EngineState | GatewayState]] = [
        *((TargetKind.ENGINE, name, engine) for name, engine in sorted(pool.engines.items())),
        *((TargetKind.GATEWAY, name, gateway) for name, gateway in sorted(pool.gateways.items())),
    ]
    return [
        farewell(
            Attach(
                pool=PoolId(pool.pool),
                kind=kind,
                target=name,
                incarnation=Incarnation(one.incarnation),
                attempt=one.attach_attempt,
            ),
            one.attach_offset,
        )
        for kind, name, one in known
        if one.attached and 0 <= one.attach_offset < before
    ]
