"""What an import costs: an inference engine's environment can bear the base, and is asked for no more."""

import subprocess
import sys

import pytest

HEAVY = {"aiokafka", "click", "grpc", "matplotlib", "numpy", "pyarrow", "pynvml", "rich", "river", "scipy", "yaml"}
SERVICES = {"aiohttp", "prometheus_client", "structlog"}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after `statement`."""
    program = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["errors", "fencing", "frames", "ids", "inputs", "knobs", "outputs", "version"])
def test_core_is_standard_library_only(module: str) -> None:
    """The core imports nothing but the standard library."""
    loaded = loaded_by(f"import flyball_core.{module}")
    before = loaded_by("pass")

    assert {"flyball_core"} == {name for name in loaded - before if name not in sys.stdlib_module_names}


def test_the_codec_needs_protobuf_only() -> None:
    """Reading and writing the contract pulls in protobuf, and neither grpc nor anything of an extra."""
    loaded = loaded_by("import flyball_proto.codec")

    assert "google" in loaded
    assert set() == loaded & HEAVY


@pytest.mark.parametrize(
    "module", ["receiver", "engine_adapter", "gateway_adapter", "receiver_store", "attached", "attach_stream"]
)
def test_a_receiver_is_light(module: str) -> None:
    """A receiver inside an engine or gateway, and what keeps it attached, pulls in nothing of an extra."""
    before = loaded_by("import google.protobuf, grpc.aio")
    assert set() == (loaded_by(f"import flyball_agents.{module}") - before) & (HEAVY | SERVICES)


@pytest.mark.parametrize(
    "module",
    [
        "explain",
        "operating.completions",
        "operating.orders",
        "operating.overrides",
        "operating.policies",
        "operating.status",
        "operating.watch",
    ],
)
def test_operators_commands_start_at_once(module: str) -> None:
    """What asks a fleet loads gRPC, and nothing that only deciding, serving or making certificates needs."""
    loaded = loaded_by(f"import flyball_cli.main, flyball_cli.{module}")
    drawing = {"rich"} if module == "operating.watch" else set[str]()

    assert set() == loaded & ((HEAVY | SERVICES | {"cryptography"}) - {"click", "grpc", "yaml"} - drawing)


def test_the_log_needs_no_broker_client() -> None:
    """The log's interface and its embedded home work without Kafka's client."""
    assert set() == loaded_by("import flyball_log, flyball_log.embedded") & HEAVY
