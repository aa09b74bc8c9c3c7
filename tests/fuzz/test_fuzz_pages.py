"""Metrics pages: nothing is taken of one, or what is taken is a measurement."""

import time

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_agents.node.engine_page import EngineReader
from flyball_agents.node.gateway_page import GatewayReader
from flyball_agents.node.pages import MALFORMED, PageRefused
from fuzz_pages import BOOT, ENGINE, GATEWAY, engine_page, gateway_page, page_answer
from fuzz_strategies import mutated

pytestmark = pytest.mark.usefixtures("close_what_targets_keep")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("engine_page"))
def test_engine_page_with_any_bytes(data: bytes) -> None:
    """An engine's page gives sound samples or `PageRefused`."""
    engine_page(data)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("gateway_page"))
def test_gateway_page_with_any_bytes(data: bytes) -> None:
    """A gateway's page gives sound samples or `PageRefused`."""
    gateway_page(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("page_answer"))
def test_page_answer_with_any_bytes(data: bytes) -> None:
    """An HTTP answer of any kind is a page or a counted failure, within its bounds."""
    page_answer(data)


QUEUED = 'flyball_gateway_requests_queued{lane="%s"} 1\n'
RUNNING = 'vllm:num_requests_running{engine="%s"} 1\n'


def test_a_line_that_names_itself_twice_is_malformed() -> None:
    """It is wanted for what stands before its first blank, and read as what stands before its brace."""
    with pytest.raises(PageRefused) as refused:
        EngineReader(ENGINE, BOOT).read(b'vllm:num_requests_running 1,another_name{engine="0"} 1\n', 1.0)

    assert MALFORMED == refused.value.reason


@pytest.mark.parametrize(
    "page", [QUEUED % ("x" * 5000), f'flyball_gateway_info{{gateway="gw0",incarnation="{"x" * 5000}"}} 1\n']
)
def test_a_name_of_5000_characters_costs_its_page_alone(page: str) -> None:
    """Names go into the frame that carries the engines of the same pool, which would be too large for the log."""
    with pytest.raises(PageRefused) as refused:
        GatewayReader(GATEWAY, BOOT).read((page + QUEUED % "chat").encode(), 1.0)

    assert MALFORMED == refused.value.reason


@pytest.mark.parametrize("page", [RUNNING * 50_000, RUNNING % ("0" * 1_900_000)], ids=["lines", "line"])
def test_a_page_of_2_mb_holds_up_the_beat_for_less_than_half_a_second(page: str) -> None:
    """A page that is all wanted lines, or one endless one, is refused before it is parsed."""
    began_s = time.process_time()
    with pytest.raises(PageRefused):
        EngineReader(ENGINE, BOOT).read(page.encode(), 1.0)

    assert 0.5 > time.process_time() - began_s
