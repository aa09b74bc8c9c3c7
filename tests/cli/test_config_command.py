"""`flyball config`: checks, explanations and examples."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_cli.config_example import KINDS
from flyball_cli.issuing import Terms, Wanted, issue, make_authority
from flyball_log.embedded import EmbeddedLog
from flyball_service.config import Config
from flyball_service.keys import walk
from flyball_service.reading import read_config

Flyball = Callable[..., Answer]
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file."""

    def put(text: str) -> Path:
        file = tmp_path / "flyball.yaml"
        file.write_text(text)
        return file

    return put


def faults(flyball: Flyball, file: Path) -> list[dict[str, Any]]:
    """What `check` finds, after its exit code has been held to it."""
    answer = flyball("config", "check", file, "--json")
    document = answer.document
    assert answer.code == (1 if document["faults"] else 0)
    assert document["ok"] == (not document["faults"])
    return list(document["faults"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_accepted(flyball: Flyball, write: Write, kind: str) -> None:
    """What `example` prints has no faults, and configures what was asked for."""
    text = flyball("config", "example", kind).out
    file = write(text)

    assert faults(flyball, file) == []
    config = read_config(file)
    wanted = KINDS[:-1] if kind == "up" else (kind,)
    assert {name for name in KINDS[:-1] if getattr(config, name) is not None} == set(wanted)


def test_the_example_names_every_key(flyball: Flyball) -> None:
    """The file for everything is complete: each key stands in it, with its text."""
    text = flyball("config", "example").out
    plain = " ".join(line.lstrip("# ") for line in text.splitlines())

    for _, key in walk(Config):
        assert f"{key.name}:" in plain
        assert key.doc in plain


def test_defaults_in_the_example_are_defaults(flyball: Flyball, write: Write) -> None:
    """The commented keys of sections, taken in, change nothing."""
    text = flyball("config", "example", "controller").out
    lines = text.splitlines()
    start = lines.index("controller:")
    taken = [line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in lines[start:]]

    assert read_config(write("\n".join(lines[:start] + taken))) == read_config(write(text))


def test_check_says_which_services_it_found(flyball: Flyball, write: Write) -> None:
    """A file without faults: exit code 0, its services by role and name."""
    file = write("tls: none\ncontroller: {name: c}\ntwin: {pool: p, engines: [{engine: e, listen: 'localhost:0'}]}\n")

    answer = flyball("config", "check", file)

    assert (answer.code, answer.out) == (
        0,
        f"{file}: nothing is wrong with it; 2 services: controller c, engine e\n",
    )


def test_a_file_that_does_not_read_is_a_fault_with_its_place(flyball: Flyball, write: Write) -> None:
    """A fault of the text itself: exit code 1, line and column."""
    file = write("tls: none\nagent: {perriod: 1s}\n")

    answer = flyball("config", "check", file)
    assert (answer.code, answer.out) == (
        1,
        f"{file}:2:9: unknown key 'perriod' in agent (did you mean 'period'?)\n",
    )
    document = flyball("config", "check", file, "--json").document
    assert (document["services"], document["faults"][0]["line"]) == ([], 2)


def test_a_file_that_is_not_there_is_bad_input(flyball: Flyball, tmp_path: Path) -> None:
    """Exit code 2: there is nothing to check."""
    answer = flyball("config", "check", tmp_path / "none.yaml")

    assert answer.code == 2
    assert "No such file" in answer.err


def test_a_file_without_a_service_is_a_fault(flyball: Flyball, write: Write) -> None:
    """Nothing could be started from it."""
    (fault,) = faults(flyball, write("log: log\n"))

    assert fault["problem"] == "no service is configured"


# ---- certificates


@pytest.fixture
def certs(tmp_path: Path) -> Callable[..., Path]:
    """Makes certificates of one authority below `certs`."""
    now = datetime.now(UTC)
    authority = make_authority(tmp_path / "certs", "flyball", now)

    def make(role: str, name: str, *, days: float = 1.0, trust_domain: str = "flyball") -> Path:
        terms = Terms(expires=now + timedelta(days=days), trust_domain=trust_domain)
        return issue(authority, Wanted(role=role, name=name), tmp_path / "certs", terms).folder

    return make


Certs = Callable[..., Path]


def test_certificates_that_fit(flyball: Flyball, write: Write, certs: Certs) -> None:
    """Each service of the file has its certificate in a folder of its own: no fault."""
    for role, name in (("controller", "c"), ("agent", "a"), ("engine", "e")):
        certs(role, name)
    file = write(
        "tls: {folder: certs}\ncontroller: {name: c, listen: '0.0.0.0:7460'}\nagent: {name: a}\n"
        "twin: {pool: p, engines: [{engine: e, listen: '0.0.0.0:8000'}]}\n"
    )

    assert faults(flyball, file) == []


def one_fault(flyball: Flyball, write: Write, folder: Path) -> str:
    """The one fault of a controller `c` that is given this folder of certificates."""
    (fault,) = faults(flyball, write(f"tls: {{folder: {folder}}}\ncontroller: {{name: c}}\n"))
    assert fault["key"] == "tls.folder"
    return str(fault["problem"])


def test_certificates_that_do_not_fit(flyball: Flyball, write: Write, certs: Certs, tmp_path: Path) -> None:
    """Nothing there, another's name, another role, another domain, an expired one: each is a fault of its own."""
    assert "No such file" in one_fault(flyball, write, tmp_path / "nowhere")
    assert "is of controller other, not of controller c" in one_fault(flyball, write, certs("controller", "other"))
    assert "carries spiffe://acme/controller/d" in one_fault(
        flyball, write, certs("controller", "d", trust_domain="acme")
    )
    assert "expired on" in one_fault(flyball, write, certs("controller", "c", days=-0.001))


def test_which_certificate_was_looked_for(flyball: Flyball, write: Write, certs: Certs) -> None:
    """A folder of many without the service's own, which goes by the host's name: which it was, and which are there."""
    certs("agent", "a")
    file = write("tls: {folder: certs}\ncontroller: {}\n")

    (none,) = faults(flyball, file)
    certs("controller", "c-1")
    (other,) = faults(flyball, file)

    assert f"certs holds neither controller-{socket.gethostname()} nor a tls.crt" in none["problem"]
    assert "there is only agent-a" == none["remedy"]
    assert other["problem"] == none["problem"]
    assert "there is controller-c-1: " in other["remedy"]


def test_files_that_do_not_belong_together(flyball: Flyball, write: Write, certs: Certs, tmp_path: Path) -> None:
    """A key of another certificate, a foreign authority, and what is no PEM are faults."""
    other = certs("agent", "a")
    folder = certs("controller", "c")
    (folder / "tls.key").write_bytes((other / "tls.key").read_bytes())
    assert "is not the key of tls.crt" in one_fault(flyball, write, folder)

    certs("controller", "c")
    foreign = make_authority(tmp_path / "foreign", "flyball", datetime.now(UTC))
    (folder / "ca.crt").write_bytes(foreign.pem)
    assert "is not signed by ca.crt" in one_fault(flyball, write, folder)

    (folder / "tls.crt").write_text("nothing")
    assert "not PEM" in one_fault(flyball, write, folder)


def test_a_certificate_of_another_role_is_told_by_everything_it_lacks(
    flyball: Flyball, write: Write, certs: Certs
) -> None:
    """An agent's certificate is neither a controller's nor may it serve."""
    found = faults(flyball, write(f"tls: {{folder: {certs('agent', 'c')}}}\ncontroller: {{name: c}}\n"))

    assert [fault["problem"].split("tls.crt ")[1] for fault in found] == [
        "is of agent c, not of controller c",
        "is not for server auth",
    ]


# ---- the log, the state, policies


def test_a_log_that_cannot_be_used(flyball: Flyball, write: Write, tmp_path: Path) -> None:
    """A folder of something else, a missing log that may not be made, another number of partitions."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "notes.txt").touch()
    (fault,) = faults(flyball, write("tls: none\ncontroller: {}\n"))
    assert (fault["key"], "holds no log" in fault["problem"]) == ("log", True)

    (fault,) = faults(flyball, write("log: other\ntls: none\ncontroller: {create_log: false}\n"))
    assert "does not exist" in fault["problem"]


async def test_a_log_of_other_partitions(flyball: Flyball, write: Write, tmp_path: Path) -> None:
    """The number of partitions is frozen: a file that says another one is told so."""
    await EmbeddedLog.create(tmp_path / "log", 8).close()

    (fault,) = faults(flyball, write("tls: none\ncontroller: {partitions: 2}\n"))
    assert (fault["key"], fault["remedy"][:21]) == ("controller.partitions", "write `partitions: 8`")
    assert faults(flyball, write("tls: none\ncontroller: {partitions: 8}\n")) == []


def test_a_state_folder_that_is_a_file(flyball: Flyball, write: Write, tmp_path: Path) -> None:
    """The state is a folder that is there or can be made."""
    (tmp_path / "state").touch()

    (fault,) = faults(flyball, write("tls: none\nagent: {}\n"))

    assert (fault["key"], "is no folder" in fault["problem"]) == ("state", True)


def test_an_agent_that_could_send_nowhere(flyball: Flyball, write: Write) -> None:
    """Neither a controller nor Kafka: a fault."""
    (fault,) = faults(flyball, write("tls: none\nagent: {controllers: []}\n"))

    assert fault["key"] == "agent.controllers"


def test_policies_are_read(flyball: Flyball, write: Write, tmp_path: Path) -> None:
    """A missing document, a wrong one and one of other pools are faults; one that fits is none."""
    (tmp_path / "wrong.yaml").write_text("version: 1\nmodus: control\n")
    (tmp_path / "other.yaml").write_text("version: 1\npools: [other]\n")
    (tmp_path / "good.yaml").write_text("version: 1\npools: [d, e]\n")
    found = faults(
        flyball,
        write("tls: none\ncontroller:\n  policies: {a: none.yaml, b: wrong.yaml, c: other.yaml, d: good.yaml}\n"),
    )

    assert [fault["key"] for fault in found] == [f"controller.policies.{pool}" for pool in "abc"]
    assert "No such file" in found[0]["problem"]
    assert "wrong.yaml:2:1: unknown key 'modus'" in found[1]["problem"]
    assert "is for other, not for c" in found[2]["problem"]


def test_kafka_s_files_are_looked_at(flyball: Flyball, write: Write, tmp_path: Path) -> None:
    """A missing authority and an empty password are faults before the broker has to say so."""
    (tmp_path / "password").touch()
    found = faults(
        flyball,
        write(
            "log: kafka://b:9093/p\ntls: none\nagent: {}\nkafka: {tls_folder: kafka, sasl_mechanism: PLAIN,"
            " sasl_username: u, sasl_password_file: password}\n"
        ),
    )

    assert [(fault["key"], fault["problem"].rpartition("/")[2]) for fault in found] == [
        ("kafka.tls_folder", "ca.crt: No such file or directory"),
        ("kafka.sasl_password_file", "password is empty"),
    ]


# ---- explain


def test_explain_tells_of_every_key(flyball: Flyball) -> None:
    """All keys, in the order of the file, each with its type and text."""
    document = flyball("config", "explain", "--json").document

    assert [one["key"] for one in document["keys"]] == [path for path, _ in walk(Config)]
    assert all(one["doc"] and one["type"] for one in document["keys"])


def test_explain_tells_of_one_key(flyball: Flyball) -> None:
    """One key, as it is written in the file: a duration with its unit, its bounds, its default."""
    (said,) = flyball("config", "explain", "controller.tick", "--json").document["keys"]

    assert (said["type"], said["default"], said["least"], said["most"]) == ("duration", "1s", "100ms", "5s")
    out = flyball("config", "explain", "controller.tick").out
    assert out.startswith("controller.tick: duration, 100ms to 5s; default 1s\n    Seconds between")


def test_explain_tells_of_what_is_below(flyball: Flyball) -> None:
    """A section is told with its keys; the brackets of a list need not be written."""
    listed = flyball("config", "explain", "agent.spool", "--json").document["keys"]
    assert [one["key"] for one in listed] == ["agent.spool", "agent.spool.megabytes", "agent.spool.age"]

    (said,) = flyball("config", "explain", "agent.engines.metrics", "--json").document["keys"]
    assert (said["key"], said["required"], said["default"]) == ("agent.engines[].metrics", True, None)


def test_explain_names_the_nearest_key(flyball: Flyball) -> None:
    """An unknown key is bad input, with the nearest one."""
    answer = flyball("config", "explain", "controller.ticks")

    assert answer.code == 2
    assert "did you mean controller.tick" in answer.err


def test_documents_have_the_documented_shape(flyball: Flyball, write: Write) -> None:
    """What `--json` prints is what docs/commands.md says."""
    broken = write("tls: none\nagent: {perriod: 1s}\n")
    same_shape("config-check", flyball("config", "check", broken, "--json").document)
    same_shape("config-check", flyball("config", "check", write("tls: none\nagent: {}\n"), "--json").document)
    same_shape("config-explain", flyball("config", "explain", "--json").document)
