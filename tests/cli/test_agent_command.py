"""`flyball agent --check` says what can be read, what not, and why; its exit code is the answer."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_twin.stand_ins.nvml import ERROR_CODES, StandInGpu, StandInNvml, installed
from flyball_twin.stand_ins.pages import MODEL, VllmPage

Flyball = Callable[..., Answer]


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """Log lines are for each test to arrange."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def install() -> Iterator[Callable[[StandInNvml | None], None]]:
    """Puts a library below pynvml until the test is over."""
    with ExitStack() as stack:
        yield lambda library: stack.enter_context(installed(library))


@contextmanager
def page_of(text: bytes) -> Iterator[str]:
    """The URL of this page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page."""
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def written(folder: Path, url: str, gpus: str = "nvml", model: str = MODEL) -> Path:
    """A configuration file of an agent with one engine."""
    file = folder / "agent.yaml"
    file.write_text(
        f"tls: none\nstate: state\nagent:\n  name: node-1\n  gpus: {gpus}\n"
        f"  engines:\n    - {{engine: e1, pool: chat, metrics: '{url}', model: {model}}}\n"
    )
    return file


def test_where_everything_can_be_read_it_says_so(
    flyball: Flyball, install: Callable[[StandInNvml | None], None], tmp_path: Path
) -> None:
    """Exit code 0; each value with its source, each page with its size; and nothing is written."""
    install(StandInNvml(StandInGpu()))
    with page_of(VllmPage().text()) as url:
        answer = flyball("agent", "--check", "--config", written(tmp_path, url))

    assert answer.code == 0
    assert "GPU 0: NVIDIA H100 80GB HBM3, GPU-00000000" in answer.out
    assert "hbm_bandwidth_ratio    0.625            (GPM DRAM_BW_UTIL)" in answer.out
    assert re.search(rf"engine e1: {url}: \d\d\.\d kB in \d+ ms, 1 ranks, 21 values", answer.out)
    assert answer.out.endswith("nothing is missing\n")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.yaml"]


def test_the_documents_are_as_documented(
    flyball: Flyball, install: Callable[[StandInNvml | None], None], tmp_path: Path
) -> None:
    """With everything there, and with everything wrong, the document has the documented shape."""
    install(
        StandInNvml(StandInGpu(), StandInGpu(errors={"nvmlDeviceGetHandleByIndex_v2": ERROR_CODES["NO_PERMISSION"]}))
    )
    page = VllmPage().text(without="num_requests_waiting{", rename={"kv_cache_usage_perc": "gpu_cache_usage_perc"})
    with page_of(page) as url:
        document = flyball("agent", "--check", "--json", "--config", written(tmp_path, url)).document

    same_shape("agent-check", document)
    assert document["gpus"]["absent"] == [{"gpu": 1, "why": "NO_PERMISSION"}]
    assert document["pages"][0]["missing"] == [{"value": "requests_waiting", "why": "absent"}]
    assert document["pages"][0]["renamed"] == [{"value": "kv_used_ratio", "name": "vllm:gpu_cache_usage_perc"}]
    same_shape("agent-check", flyball("agent", "--check", "--json", "--config", written(tmp_path, url)).document)


@pytest.mark.parametrize("error", ["NO_PERMISSION", "NOT_SUPPORTED", "TIMEOUT"])
def test_a_value_that_is_missing_is_named_with_what_would_help(
    flyball: Flyball, install: Callable[[StandInNvml | None], None], error: str
) -> None:
    """Exit code 1; which right or which GPU is missing, where anything is known to help."""
    install(StandInNvml(StandInGpu(errors={"nvmlGpmSampleGet": ERROR_CODES[error]})))
    answer = flyball("agent", "--check")
    (value,) = [one for one in read_values(flyball("agent", "--check", "--json")) if one["missing"]]

    assert (answer.code, value["value"], value["missing"], value["number"]) == (1, "hbm_bandwidth_ratio", error, None)
    assert f"missing: {error}" in answer.out
    assert bool(value["remedy"]) == (error != "TIMEOUT")
    assert value["remedy"] in answer.out


def read_values(answer: Answer) -> list[dict[str, Any]]:
    """The values of the first GPU in a document."""
    values: list[dict[str, Any]] = answer.document["gpus"]["read"][0]["values"]
    return values


def test_a_machine_without_gpus_is_told_what_to_write(
    flyball: Flyball, install: Callable[[StandInNvml | None], None], tmp_path: Path
) -> None:
    """No library is something missing, unless the configuration says that there are no GPUs."""
    install(None)
    answer = flyball("agent", "--check")
    with page_of(VllmPage().text()) as url:
        without = flyball("agent", "--check", "--config", written(tmp_path, url, gpus="none"))

    assert answer.code == 1
    assert "none can be read: nvmlInit: LIBRARY_NOT_FOUND" in answer.out
    assert "agent.gpus: none" in answer.out
    assert (without.code, without.out.splitlines()[0]) == (0, "GPUs: not to be read")


def test_a_page_of_which_nothing_is_taken_is_something_missing(flyball: Flyball, tmp_path: Path) -> None:
    """Another model's page; a page that is not there."""
    with page_of(VllmPage().text()) as url:
        wrong = flyball("agent", "--check", "--config", written(tmp_path, url, gpus="none", model="other"))
    away = flyball("agent", "--check", "--config", written(tmp_path, url, gpus="none"))

    assert (wrong.code, away.code) == (1, 1)
    assert f"nothing is taken: wrong_model: is of {MODEL}, not of other" in wrong.out
    assert "nothing is taken: unreachable: Connection refused" in away.out


def test_an_agent_without_what_it_needs_says_so(flyball: Flyball, tmp_path: Path) -> None:
    """A file with an agent in it; `--json` only where there is a document."""
    file = tmp_path / "none.yaml"
    file.write_text("tls: none\n")

    assert flyball("agent", "--config", file).err.endswith("there is no section `agent`\n")
    for arguments, why in ((("agent",), "--config FILE"), (("agent", "--json"), "goes with --check")):
        with pytest.raises(Exception, match=why):
            flyball(*arguments)
