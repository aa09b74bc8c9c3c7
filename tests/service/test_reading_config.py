"""The configuration file: what is read, and where a fault is said to be."""

from pathlib import Path

import pytest

from flyball_core.errors import InvalidDocument, Rejected
from flyball_service.config import (
    Config,
    ControllerConfig,
    GatewayConfig,
    GpuSource,
    LaneConfig,
    LogFormat,
    SpoolConfig,
    TlsConfig,
)
from flyball_service.reading import MAX_BYTES, read_config, spell_duration

FULL = """\
log: data/log
state: /var/lib/flyball
tls: none
logs: {level: debug, format: text}
controller:
  name: controller-0
  listen: 127.0.0.1:0
  http: 0.0.0.0:7461
  tick: 250ms
  partitions: 8
  create_log: false
  policies:
    chat: policies/chat.yaml
agent:
  name: node-7
  period: 2s
  scrape_timeout: 500ms
  controllers: ["127.0.0.1:7460", "[::1]:7460"]
  gpus: none
  spool: {megabytes: 12.5, age: 24h}
  engines:
    - engine: engine-0
      pool: chat
      metrics: http://10.0.0.7:8000/metrics
      gpus: [0, 1]
      variant: graphs
      model: llama
  gateways:
    - {gateway: gw, pool: chat, metrics: "http://127.0.0.1:7465/metrics"}
    - {gateway: gw, pool: batch, metrics: "http://127.0.0.1:7465/metrics"}
gateway:
  pool: chat
  engines:
    - engine: engine-0
      url: https://engine-0.example:8443
  lanes:
    - {lane: realtime, max_wait: 60s}
    - {lane: bulk, priority: 10, max_wait: 8min}
twin:
  pool: chat
  engines:
    - {engine: engine-0, listen: "127.0.0.1:0", speed: 0.4}
    - {engine: engine-1, listen: "127.0.0.1:0"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the file."""
    return tmp_path


def read(folder: Path, text: str | bytes) -> Config:
    """The configuration that this text declares."""
    file = folder / "flyball.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(file)


def test_every_section_is_read(folder: Path) -> None:
    """Every key reaches its field: durations in seconds, paths from the file's folder."""
    config = read(folder, FULL)

    assert config.log == str(folder / "data" / "log")
    assert config.state == Path("/var/lib/flyball")
    assert config.tls is None
    assert (config.logs.level, config.logs.format) == ("debug", LogFormat.TEXT)
    assert config.controller == ControllerConfig(
        name="controller-0",
        listen="127.0.0.1:0",
        http="0.0.0.0:7461",
        tick_s=0.25,
        partitions=8,
        create_log=False,
        policies={"chat": folder / "policies" / "chat.yaml"},
    )
    assert config.agent is not None
    assert (config.agent.period_s, config.agent.scrape_timeout_s) == (2.0, 0.5)
    assert config.agent.controllers == ("127.0.0.1:7460", "[::1]:7460")
    assert config.agent.gpus is GpuSource.NONE
    assert config.agent.spool == SpoolConfig(megabytes=12.5, age_s=86_400.0)
    assert (config.agent.engines[0].gpus, config.agent.engines[0].model) == ((0, 1), "llama")
    assert [one.pool for one in config.agent.gateways] == ["chat", "batch"]
    assert config.gateway is not None
    assert config.gateway.lanes[1] == LaneConfig(lane="bulk", priority=10, max_wait_s=480.0)
    assert config.twin is not None
    assert [one.speed for one in config.twin.engines] == [0.4, 1.0]


def test_what_is_left_out_has_its_default(folder: Path) -> None:
    """An empty section is all defaults, an absent one is None; default paths are relative to the file as well."""
    config = read(folder, "tls: none\ncontroller:\ngateway: {pool: chat}\n")

    assert config.controller == ControllerConfig()
    assert config.gateway == GatewayConfig(pool="chat")
    assert (config.agent, config.twin, config.kafka) == (None, None, None)
    assert (config.log, config.state) == (str(folder / "log"), folder / "state")


def test_paths_do_not_hang_on_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is named from elsewhere means the same."""
    (folder / "etc").mkdir()
    read(folder / "etc", FULL)
    monkeypatch.chdir(folder)

    config = read_config(Path("etc/flyball.yaml"))

    assert config.log == str(folder / "etc" / "data" / "log")


def test_certificates_allow_every_address(folder: Path) -> None:
    """With `tls` a service may listen and connect anywhere."""
    config = read(folder, "tls: {folder: certs, trust_domain: acme}\ncontroller: {listen: '0.0.0.0:7460'}\n")

    assert config.tls == TlsConfig(folder=folder / "certs", trust_domain="acme")


def test_kafka_is_read_with_its_secrets_by_file(folder: Path) -> None:
    """A password is named, never written."""
    config = read(
        folder,
        """\
log: kafka://a:9093,b:9093/chat
kafka:
  tls_folder: kafka-certs
  sasl_mechanism: SCRAM-SHA-512
  sasl_username: flyball
  sasl_password_file: kafka-password
""",
    )

    assert config.log == "kafka://a:9093,b:9093/chat"
    assert config.kafka is not None
    assert config.kafka.sasl_password_file == folder / "kafka-password"


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(Rejected, match=r"flyball\.yaml: cannot be read: No such file"):
        read_config(folder / "flyball.yaml")


_AGENT = "tls: none\nagent:\n"
_ENGINE = "tls: none\nagent:\n  engines:\n  - {engine: a, pool: p, metrics: 'http://h/m'}\n"
_TWIN = "tls: none\ntwin: {pool: p, engines: "

FAULTS: dict[str, tuple[str | bytes, int, int, str, str]] = {
    # What is no such file at all.
    "empty": ("", 1, 1, "empty", ""),
    "not a mapping": ("- a\n", 1, 1, "must be a mapping", ""),
    "not YAML": ("tls: none\nlog: [\n", 3, 1, "not YAML", ""),
    "two documents": ("tls: none\n---\ntls: none\n", 2, 1, "not YAML", ""),
    "a tab": ("controller:\n\tname: a\n", 2, 1, "not YAML", ""),
    "an unknown alias": ("tls: *a\n", 1, 6, "not YAML", ""),
    "deep": ("a: " + "[" * 20_000, 1, 19, "not YAML: nested deeper than 16", ""),
    "too large": ("#" * (MAX_BYTES + 1), 1, 1, "larger than 256 KiB", ""),
    "not UTF-8": (b"tls: none\nlog: \xff\n", 2, 1, "not UTF-8", ""),
    # Keys.
    "unknown key": (_AGENT + "  perriod: 1s\n", 3, 3, "unknown key 'perriod' in agent", "did you mean 'period'?"),
    "a field's name": (_AGENT + "  period_s: 1s\n", 3, 3, "unknown key 'period_s'", "did you mean 'period'?"),
    "unknown section": ("tls: none\ncontoller: {}\n", 2, 1, "unknown key 'contoller'", "did you mean 'controller'?"),
    "file is no key": ("tls: none\nfile: a\n", 2, 1, "unknown key 'file'", ""),
    "far from all": ("tls: none\nxyzzy: a\n", 2, 1, "unknown key 'xyzzy'", "known keys: log, state"),
    "merge": ("tls: none\nagent: {<<: {name: a}}\n", 2, 9, "unknown key '<<'", ""),
    "twice": ("tls: none\nlog: a\nlog: b\n", 3, 1, "'log' is given twice", ""),
    "not said": ("tls: none\ngateway:\n  name: g\n", 3, 3, "gateway does not say its pool", "add `pool: ...` (name)"),
    "nothing said": ("tls: none\ntwin:\n", 2, 6, "twin does not say its pool", "add `pool: ...`"),
    "not said in a list": (_ENGINE + "  - {engine: b}\n", 5, 5, "engines does not say its pool", ""),
    "no section": ("tls: none\nagent: yes\n", 2, 8, "agent must be a mapping", ""),
    # Values.
    "no unit": (_AGENT + "  period: 1\n", 3, 11, "'1' is not a duration with a unit", "write 1ms or 1s"),
    "other unit": (_AGENT + "  period: 1 d\n", 3, 11, "not a duration", "units are ms, s, min, h"),
    "too short": (_AGENT + "  period: 0s\n", 3, 11, "0s is not between 100ms and 1min", ""),
    "too long": ("tls: none\ncontroller: {tick: 6s}\n", 2, 20, "6s is not between 100ms and 5s", ""),
    "null": (_AGENT + "  period:\n", 3, 10, "expected a duration", ""),
    "no number": ("tls: none\ncontroller: {partitions: x}\n", 2, 26, "'x' is not a whole number", ""),
    "a fraction": ("tls: none\ncontroller: {partitions: 1.5}\n", 2, 26, "'1.5' is not a whole number", ""),
    "out of range": ("tls: none\ncontroller: {partitions: 0}\n", 2, 26, "0 is not between 1 and 1024", ""),
    "not a number": (_TWIN + "[{engine: a, listen: 'localhost:1', speed: nan}]}\n", 2, 69, "nan is not between", ""),
    "no truth": ("tls: none\ncontroller: {create_log: yes}\n", 2, 26, "'yes' is none of true, false", ""),
    "no choice": (_AGENT + "  gpus: nvlm\n", 3, 9, "'nvlm' is none of nvml, none", "did you mean 'nvml'?"),
    "no level": ("logs: {level: warn}\n", 1, 15, "'warn' is none of", "did you mean 'warning'?"),
    "no list": (_AGENT + "  engines: engine-0\n", 3, 12, "engines is a list of section", "one `- ` per entry"),
    "no list of numbers": (_ENGINE.replace("'}", "', gpus: 0}"), 4, 55, "gpus is a list of whole number", ""),
    "too many": (f"tls: none\nagent: {{controllers: [{'a:1,' * 5000}]}}\n", 2, 22, "5000 entries in controllers", ""),
    "an empty name": ("tls: none\ngateway: {pool: ''}\n", 2, 17, "'' is not a name", ""),
    "control character": ('tls: none\nagent: {name: "a\\u0007"}\n', 2, 15, "is not a name", "no control characters"),
    "spaces around": ("tls: none\nagent: {name: ' a'}\n", 2, 15, "' a' is not a name", "no spaces around"),
    "a long name": (f"tls: none\nagent: {{name: {'a' * 201}}}\n", 2, 15, "1 to 200 characters, not 201", ""),
    "a list for a name": ("tls: none\nagent: {name: [a]}\n", 2, 15, "expected a name", ""),
    "no address": (_AGENT + "  http: localhost\n", 3, 9, "'localhost' is not HOST:PORT", ""),
    "no port": ("tls: none\ncontroller: {listen: 'localhost:70000'}\n", 2, 22, "'70000' is not a port", ""),
    "no URL": (_ENGINE.replace("http://h/m", "h:8000"), 4, 35, "not an http or https URL", "such as http://"),
    "a wrong port": (_ENGINE.replace("http://h/m", "http://h:x/m"), 4, 35, "is not a URL", "such as http://"),
    "a secret": (_ENGINE.replace("http://h", "http://u:p@h"), 4, 35, "no user name or password", "no secret stands"),
    "engine twice": (_ENGINE + "  - {engine: a, pool: q, metrics: 'http://h/m'}\n", 5, 5, "a is twice in engines", ""),
    "gpu twice": (_ENGINE.replace("'}", "', gpus: [1, 1]}"), 4, 59, "1 is twice in gpus", ""),
    "listen twice": (
        _TWIN + "[{engine: a, listen: 'localhost:1'},\n  {engine: b, listen: 'localhost:1'}]}\n",
        *(3, 3, "localhost:1 is twice in engines", ""),
    ),
    # TLS.
    "tls not said": ("log: log\nagent: {}\n", 1, 1, "does not say how connections are secured", "write `tls: none`"),
    "tls empty": ("tls:\nagent: {}\n", 1, 5, "tls is `none` or a section", "write `tls: none`"),
    "tls otherwise": ("tls: off\n", 1, 6, "tls is `none` or a section", "write `tls: none`"),
    "tls without folder": ("tls: {}\n", 1, 6, "tls does not say its folder", ""),
    "listening": ("tls: none\ncontroller:\n  listen: 0.0.0.0:7460\n", 3, 11, "0.0.0.0:7460 is beyond loopback", "tls:"),
    "connecting": (
        _AGENT + "  controllers:\n  - localhost:1\n  - c.example:1\n",
        5,
        5,
        "c.example:1 is beyond",
        "tls:",
    ),
    "small engine": (_TWIN + "[{engine: a, listen: 'host:1'}]}\n", 2, 47, "host:1 is beyond loopback", "tls:"),
    # The log.
    "no such log": ("log: redis://h\n", 1, 6, "'redis://h' is not a log", "kafka://HOST:PORT"),
    "no broker": ("log: kafka:///p\n", 1, 6, "is not HOST:PORT", ""),
    "no prefix": ("log: kafka://127.0.0.1:9092/a/b\n", 1, 6, "topic prefix 'a/b'", ""),
    "plain Kafka": ("log: kafka://broker:9092/p\n", 1, 6, "without TLS only loopback", ""),
    "Kafka for a folder": ("log: a\nkafka: {tls_folder: a}\n", 2, 8, "`log` names no brokers", "write `log: kafka://"),
    "SASL without user": (
        "log: kafka://b:9092/p\nkafka: {tls_folder: a, sasl_mechanism: PLAIN}\n",
        *(2, 8, "needs a username and a password file", ""),
    ),
    "no mechanism": ("kafka: {sasl_mechanism: GSSAPI}\n", 1, 25, "'GSSAPI' is none of", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_place_and_its_remedy(folder: Path, fault: str) -> None:
    """A fault is an `InvalidDocument` at its line and column, in words, with what would be right."""
    text, line, column, problem, hint = FAULTS[fault]

    with pytest.raises(InvalidDocument) as caught:
        read(folder, text)

    error = caught.value
    assert problem in error.problem
    assert hint in error.hint
    assert (error.line, error.column) == (line, column)
    assert error.file == str(folder / "flyball.yaml")
    assert len(str(error)) < 600


def test_aliases_cost_no_more_than_they_show(folder: Path) -> None:
    """A file whose aliases unfold to millions of entries is refused at once."""
    bomb = "tls: none\nagent:\n  name: &a [x,x,x,x,x,x,x,x,x]\n  controllers: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"

    with pytest.raises(InvalidDocument, match="expected a name"):
        read(folder, bomb)


def test_http_is_plain_everywhere(folder: Path) -> None:
    """Numbers and signs of life may be asked for from anywhere: nothing comes in through that door."""
    config = read(folder, "tls: none\nagent: {http: '0.0.0.0:7463'}\n")

    assert config.agent is not None
    assert config.agent.http == "0.0.0.0:7463"


def test_hours_are_spelled_as_hours() -> None:
    """A day is 24 hours."""
    assert spell_duration(86_400.0) == "24h"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.001, "1ms"), (0.25, "250ms"), (1.0, "1s"), (1.5, "1.5s"), (60.0, "1min"), (90.0, "90s"), (480.0, "8min")],
)
def test_durations_are_spelled_as_they_are_read(folder: Path, seconds: float, written: str) -> None:
    """What a duration is spelled like is read as the same duration."""
    assert spell_duration(seconds) == written
    text = f"tls: none\ngateway: {{pool: p, lanes: [{{lane: a, max_wait: {written}}}]}}"
    config = read(folder, text)

    assert config.gateway is not None
    assert config.gateway.lanes[0].max_wait_s == seconds
