"""Ready and live: what a service waits for, and which of its loops went silent."""

from structlog.testing import capture_logs

from flyball_service.health import Health


def test_a_service_that_waits_for_nothing_is_ready() -> None:
    """There is nothing to wait for at first."""
    health = Health()

    assert health.ready
    assert health.waiting == {}


def test_waiting_names_everything_that_is_missing() -> None:
    """Not ready while anything is missing; ready when all is there."""
    health = Health()
    health.waits_for("log", "no folder")
    health.waits_for("controller", "refused")

    health.has("log")
    assert health.waiting == {"controller": "refused"}
    assert not health.ready

    health.has("controller")
    assert health.ready


def test_waiting_is_logged_once_per_reason() -> None:
    """A line when it begins, a line when its reason changes, a line when it ends; none in between."""
    health = Health()
    with capture_logs() as lines:
        for why in ("a", "a", "b", "b"):
            health.waits_for("log", why)
        health.has("log")
        health.has("log")

    assert [(line["event"], line.get("why")) for line in lines] == [
        ("waiting", "a"),
        ("waiting", "b"),
        ("going_on", None),
    ]


def test_a_loop_is_live_until_it_is_overdue() -> None:
    """A loop that promised a beat within 5 s is overdue after them, by how much is said; a beat heals it."""
    health = Health()
    health.beat("ticks", 100.0, 5.0)
    health.beat("pushes", 100.0, 60.0)

    assert health.live(105.0) == {}
    assert health.live(107.0) == {"ticks": 2.0}

    health.beat("ticks", 107.0, 5.0)
    assert health.live(111.0) == {}


def test_a_loop_that_ended_on_purpose_is_not_missed() -> None:
    """What ended promises nothing."""
    health = Health()
    health.beat("restore", 0.0, 1.0)

    health.ended("restore")

    assert health.live(100.0) == {}
