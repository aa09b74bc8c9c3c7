"""What another policy document would have decided, and what a fingerprint tells apart."""

from dataclasses import replace
from pathlib import Path

from flyball_controller.fingerprint import difference, own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.whatif import compare_policies
from flyball_core.knobs import BATCH_CAP
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Topic
from harness.logged_pool import LoggedPool, logged_pool, owner_of
from harness.odd_logs import QUICK
from harness.scripted_pool import POLICY, WALL_S


async def lived(folder: Path) -> LoggedPool:
    """A minute of a pool with a slow engine, and a takeover in it."""
    pool, owner = await logged_pool(EmbeddedLog.create(folder / "log", 1, QUICK))
    pool.scripted.engines["e0-1"].slowness = 2.5
    await pool.run(owner, 30)
    successor = owner_of(pool.log, "c2")
    await successor.take(0, WALL_S + pool.now_s)
    await pool.run(successor, 30)
    return pool


async def test_a_stricter_document_would_have_decided_otherwise(tmp_path: Path) -> None:
    """With a lower maximum every cap would have come down to it; the recorded course stays what it was."""
    pool = await lived(tmp_path)
    found = await compare_policies(pool.log, POLICY.replace("max: 128", "max: 20"), standard_seams)
    caps = {target: knobs[BATCH_CAP] for target, knobs in found.other.settings.items() if BATCH_CAP in knobs}

    assert found.first_apart_s is not None
    assert set(pool.scripted.engines) == set(caps)
    assert all(isinstance(cap, int) and cap <= 20 for cap in caps.values())
    assert found.recorded.changes != found.other.changes
    await pool.log.close()


async def test_a_comparison_appends_nothing(tmp_path: Path) -> None:
    """Every topic ends where it ended."""
    pool = await lived(tmp_path)
    ends = [await pool.log.bounds(topic, 0) for topic in Topic]
    await compare_policies(pool.log, POLICY, standard_seams)

    assert ends == [await pool.log.bounds(topic, 0) for topic in Topic]
    await pool.log.close()


def test_a_fingerprint_is_equal_to_itself_and_names_what_differs() -> None:
    """Of two processes on one machine nothing differs; of others every part that does is named."""
    own = own_fingerprint()
    other = replace(own, numpy="0.1", cpu=(*own.cpu, "AVX9"))

    assert "" == difference(own, own_fingerprint())
    assert f"numpy 0.1, here {own.numpy}; CPU features AVX9" == difference(other, own)
