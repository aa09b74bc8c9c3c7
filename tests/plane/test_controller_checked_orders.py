"""Which orders are refused at the door, with what would be right."""

import math
from dataclasses import replace

import pytest

from flyball_controller.serving.checked_orders import Said, check_order, signed
from flyball_core.errors import Rejected
from flyball_core.ids import PoolId
from flyball_core.inputs import Mode, Order, OverrideClear, OverrideSet, PolicyText, Rebase

POOL = PoolId("chat")
NOW_S = 1_000.0
PIN = OverrideSet(
    pool=POOL,
    override_id="o1",
    target="",
    knob="max_active_requests",
    value=32,
    expires_wall_s=NOW_S + 60.0,
    reason="a test",
    author="ada",
)
SOUND: tuple[Said, ...] = (
    PIN,
    replace(PIN, value="graphs"),
    replace(PIN, value=True),
    OverrideClear(pool=POOL, override_id="o1", author="ada"),
    PolicyText(pool=POOL, text="version: 1", author="ada"),
    Order(pool=POOL, author="ada", mode=Mode.CONTROL),
    Order(pool=POOL, author="ada", paused=False),
    Rebase(pool=POOL, target="", author="ada", reason=""),
)


@pytest.mark.parametrize("said", SOUND, ids=lambda said: type(said).__name__)
def test_what_an_owner_can_judge_passes(said: Said) -> None:
    """Sound orders of every kind go on record."""
    check_order(said, NOW_S)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (replace(PIN, author=""), "names its author"),
        (replace(PIN, value=math.nan), "cannot be pinned at nan"),
        (replace(PIN, value=2**62), "cannot be pinned"),
        (replace(PIN, value=-math.inf), "cannot be pinned"),
        (replace(PIN, value="v" * 1001), "1001 characters"),
        (replace(PIN, expires_wall_s=math.inf), "expires at a time"),
        (replace(PIN, expires_wall_s=NOW_S - 5.0), "expired already, 5 s ago"),
        (replace(PIN, knob=""), "names a knob"),
        (replace(PIN, override_id="o" * 201), "an override's id of 201 characters"),
        (replace(PIN, target="e\n1"), "cannot be printed"),
        (replace(PIN, reason="r" * 1001), "a reason of 1001 characters"),
        (OverrideClear(pool=POOL, override_id="", author="ada"), "name the override"),
        (PolicyText(pool=POOL, text=" \n", author="ada"), "is not empty"),
        (Order(pool=POOL, author="ada", reason="why not"), "says a mode"),
        (Order(pool=PoolId("p" * 201), author="ada", paused=True), "a pool's name of 201"),
    ],
)
def test_what_no_owner_could_follow_is_refused(said: Said, why: str) -> None:
    """The refusal says what would be right."""
    with pytest.raises(Rejected, match=why):
        check_order(said, NOW_S)


@pytest.mark.parametrize("said", SOUND, ids=lambda said: type(said).__name__)
def test_a_certificate_signs(said: Said) -> None:
    """Under TLS the author is who the certificate says, whatever the request says; on plaintext the request's."""
    assert "grace" == signed(said, "grace").author
    assert "ada" == signed(said, None).author
