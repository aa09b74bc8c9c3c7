"""The alerts: valid, over numbers that our services really serve, and each fires when it should and only then."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from all_services import fleet
from project_paths import PROMETHEUS
from prometheus_scraper import Prometheus, pages_of

RULES = PROMETHEUS / "flyball.rules.yml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
JOB = 'job="flyball-controller",instance="c:7461"'
WELL = {
    f"up{{{JOB}}}": "1+0x200",
    f"flyball_controller_partitions_owned{{{JOB}}}": "1+0x200",
    f'flyball_controller_tick_age_seconds{{{JOB},partition="0"}}': "0.5+0x200",
    f'flyball_controller_inputs_behind{{{JOB},partition="0"}}': "3+0x200",
    f'flyball_controller_heartbeat_age_seconds{{{JOB},pool="chat"}}': "1+0x200",
    f'flyball_controller_frames_shed_total{{{JOB},reason="rate"}}': "9+0x200",
    f'flyball_controller_inputs_set_aside{{{JOB},reason="malformed"}}': "2+0x200",
    f"flyball_controller_stale_pools{{{JOB}}}": "0+0x200",
    f'flyball_controller_nacks_total{{{JOB},pool="chat"}}': "1+0x200",
    f'flyball_controller_attaches_refused_total{{{JOB},reason="unavailable"}}': "0+1x200",
    f"flyball_controller_handshakes_total{{{JOB}}}": "100+1x200",
    f"flyball_controller_connections_total{{{JOB}}}": "90+1x200",
    f'flyball_controller_callers_refused_total{{{JOB},reason="role"}}': "3+0x200",
    f'flyball_controller_certificate_expires_seconds{{{JOB},used_for="grpc",certificate="own"}}': "2592000+0x200",
    'flyball_agent_certificate_expires_seconds{used_for="kafka",certificate="own"}': "2592000+0x200",
    f"flyball_controller_claims_total{{{JOB}}}": "8+0x200",
    'flyball_agent_source_up{source="engine chat-0"}': "1+0x200",
    "flyball_agent_spool_frames": "2+0x200",
    'flyball_agent_frames_dropped_total{reason="age"}': "5+0x200",
    'flyball_gateway_engine_up{engine="chat-0"}': "1+0x200",
    'flyball_receiver_lease_seconds{target="chat-0"}': "1799+0x200",
}
"""A fleet that is well: a sample of each series every 15 s, for 50 minutes."""
TROUBLE = {
    "FlyballNoOwner": {f"flyball_controller_partitions_owned{{{JOB}}}": "0+0x200"},
    "FlyballPoolWithoutHeartbeat": {f'flyball_controller_heartbeat_age_seconds{{{JOB},pool="chat"}}': "1+15x200"},
    "FlyballControllerNotTicking": {f'flyball_controller_tick_age_seconds{{{JOB},partition="0"}}': "1+15x200"},
    "FlyballInputsBehind": {f'flyball_controller_inputs_behind{{{JOB},partition="0"}}': "3+200x200"},
    "FlyballTelemetryShed": {f'flyball_controller_frames_shed_total{{{JOB},reason="rate"}}': "9+200x200"},
    "FlyballInputsUnreadable": {f'flyball_controller_inputs_set_aside{{{JOB},reason="malformed"}}': "2+1x200"},
    "FlyballPoolStale": {f"flyball_controller_stale_pools{{{JOB}}}": "1+0x200"},
    "FlyballNacks": {f'flyball_controller_nacks_total{{{JOB},pool="chat"}}': "1+1x200"},
    "FlyballAttachRefused": {
        f'flyball_controller_attaches_refused_total{{{JOB},reason="already_attached"}}': "0+1x200"
    },
    "FlyballOwnersFlap": {f"flyball_controller_claims_total{{{JOB}}}": "8+1x200"},
    "FlyballEngineUnreachable": {'flyball_agent_source_up{source="engine chat-0"}': "0+0x200"},
    "FlyballSpoolFilling": {"flyball_agent_spool_frames": "2+15x200"},
    "FlyballFramesDropped": {'flyball_agent_frames_dropped_total{reason="age"}': "5+15x200"},
    "FlyballGatewayEngineDown": {'flyball_gateway_engine_up{engine="chat-0"}': "0+0x200"},
    "FlyballLeaseEnding": {'flyball_receiver_lease_seconds{target="chat-0"}': "1799-15x100 299+0x100"},
    "FlyballCertificateExpires": {
        'flyball_agent_certificate_expires_seconds{used_for="kafka",certificate="own"}': "600000+0x200"
    },
    "FlyballStrangersAtTheDoor": {f"flyball_controller_handshakes_total{{{JOB}}}": "100+2x200"},
    "FlyballDown": {f"up{{{JOB}}}": "0+0x200"},
}
"""What is otherwise when an alert has reason to fire."""


def firing(prometheus: Prometheus, folder: Path, series: dict[str, str]) -> set[str]:
    """The alerts that fire after 40 minutes of these series."""
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    wanted = {"expr": query, "eval_time": "40m", "exp_samples": [{"labels": '{alertname="none"}', "value": 1}]}
    document = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [wanted],
            }
        ],
    }
    path = folder / "alerts.test.yml"
    path.write_text(yaml.safe_dump(document))
    # It is asked to fail: what it says then is which alerts fire.
    code, said = prometheus.promtool("test", "rules", str(path))

    assert code == 1, said
    assert "got:" in said, said
    return set(re.findall(r'alertname="(\w+)"', said.partition("got:")[2]))


def test_every_alert_is_tried() -> None:
    """Each alert has a trouble of its own below."""
    assert set(ALERTS) == set(TROUBLE)


def test_promtool_takes_rules_and_example(prometheus: Prometheus) -> None:
    """The rules and the example configuration are valid."""
    for what, file in (("rules", RULES), ("config", PROMETHEUS / "prometheus.yml")):
        code, said = prometheus.promtool("check", what, str(file))

        assert code == 0, said


def test_nothing_fires_when_all_is_well(prometheus: Prometheus, tmp_path: Path) -> None:
    """A healthy fleet is quiet."""
    assert set() == firing(prometheus, tmp_path, WELL)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_fires_on_its_trouble_and_no_other_does(prometheus: Prometheus, tmp_path: Path, alert: str) -> None:
    """Each alert fires when what it watches goes wrong, and it alone."""
    assert {alert} == firing(prometheus, tmp_path, {**WELL, **TROUBLE[alert]})


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_says_what_to_do(alert: str) -> None:
    """Each alert has a severity, says what is wrong in a sentence, and what to do about it."""
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "do"} == set(rule["annotations"])
    assert all(text.endswith(".") for text in rule["annotations"].values())


async def test_alerts_watch_numbers_that_are_served(tmp_path: Path) -> None:
    """Every metric that an alert names is on the page of a running service, with the labels that are asked for.

    Counters that nothing was counted on yet are there by their description only.
    """
    async with fleet(tmp_path) as running:
        pages = "\n".join((await pages_of(running.pages)).values())
    described = set(re.findall(r"^# TYPE (flyball_\w+) ", pages, re.MULTILINE))
    named = {name for rule in ALERTS.values() for name in re.findall(r"\bflyball_\w+", rule["expr"])}

    assert len(named) >= 12
    assert set() == named - described
