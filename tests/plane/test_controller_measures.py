"""What a controller counts of itself: with bounded labels, and of the state as it is."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from flyball_controller.serving.measures import MOST_POOLS, Measures, Now
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId, PoolId
from flyball_core.inputs import Ack, AckStatus, TargetKind
from plane_clients import Running, attached, eventually

NOW = Now(
    tick_age_s={0: 0.5, 3: 0.25},
    inputs_behind={0: 7, 3: 0},
    pools_by_mode={"control": 2, "advise": 1},
    stale_pools=1,
    streams_by_kind={"engine": 4},
    heartbeat_age_s={"chat": 1.5},
    ignored_records=9,
)


def ack(pool: str, status: AckStatus = AckStatus.APPLIED) -> Ack:
    """An answer of an engine of a pool."""
    return Ack(
        pool=PoolId(pool),
        kind=TargetKind.ENGINE,
        target="e1",
        incarnation=Incarnation("i"),
        version=Version(log_id=LogId("l"), partition=0, epoch=0, revision=0),
        status=status,
    )


def test_the_state_is_read_when_somebody_asks() -> None:
    """Gauges are those of the moment of the question, one sample for each partition, mode, kind or pool."""
    registry, states = CollectorRegistry(), [NOW, replace(NOW, stale_pools=0)]
    Measures(registry, lambda: states[0])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"flyball_controller_{name}", labels)

    assert (2, 0.5, 7) == (
        value("partitions_owned"),
        value("tick_age_seconds", partition="0"),
        value("inputs_behind", partition="0"),
    )
    assert (2, 1, 4) == (value("pools", mode="control"), value("stale_pools"), value("streams", kind="engine"))
    assert (1.5, 9) == (value("heartbeat_age_seconds", pool="chat"), value("ignored_records"))
    states.pop(0)

    assert 0 == value("stale_pools")


def test_pools_without_number_share_a_label() -> None:
    """However many pools answer, no more than a thousand have numbers of their own; nothing is lost of the rest."""
    registry = CollectorRegistry()
    measures = Measures(registry, lambda: NOW)
    for number in range(MOST_POOLS + 50):
        measures.acked(ack(f"p{number}"))
        measures.acked(ack(f"p{number}", AckStatus.NACK))

    assert 50 == registry.get_sample_value("flyball_controller_acks_total", {"pool": "_others"})
    assert 50 == registry.get_sample_value("flyball_controller_nacks_total", {"pool": "_others"})
    assert MOST_POOLS + 1 == generate_latest(registry).decode().count("flyball_controller_acks_total{")


def test_heartbeats_of_pools_are_bounded_too() -> None:
    """A log with ten thousand pools makes no page of ten thousand lines."""
    registry = CollectorRegistry()
    Measures(registry, lambda: replace(NOW, heartbeat_age_s={f"p{number}": 1.0 for number in range(10_000)}))

    assert MOST_POOLS == generate_latest(registry).decode().count("heartbeat_age_seconds{")


async def test_a_living_controller_tells_of_itself(controller: Running) -> None:
    """What it owns, how old its ticks and heartbeats are, who is attached, and what it sent."""
    async with attached(controller.addresses.grpc):
        sent = await eventually(
            lambda: controller.metric("flyball_controller_pushes_total", kind="heartbeat"), lambda number: number > 2
        )

        assert 2 < sent
        assert 2 == await controller.metric("flyball_controller_partitions_owned")
        assert 1 == await controller.metric("flyball_controller_pools", mode="control")
        assert 1 == await controller.metric("flyball_controller_streams", kind="engine")
        assert 2 < await controller.metric("flyball_controller_tick_seconds_count")
        assert 5.0 > await controller.metric("flyball_controller_heartbeat_age_seconds", pool="chat")
        assert 5.0 > await controller.metric("flyball_controller_tick_age_seconds", partition="0")
    assert (200, '{"live": true, "overdue_s": {}}') == await controller.get("/live")
