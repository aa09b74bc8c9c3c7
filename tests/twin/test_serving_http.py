"""The small engine's HTTP door over real sockets, as OpenAI's clients use it."""

import asyncio
import io
import json
import time
from typing import Any

import pytest

from flyball_core.knobs import BATCH_CAP, VARIANT
from flyball_twin.serving import http_door
from flyball_twin.serving.answers import Answer
from serving_parts import MODEL, served

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def chat(text: str = "hello there", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


async def until(so: Any, within_s: float = 5.0) -> None:
    """Wait until `so()` is true; fails if it does not become so."""
    end_s = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.005)


async def test_a_chat_is_streamed_token_by_token() -> None:
    """The role first, then a word an event, the reason with the last, then the usage where it was asked for."""
    async with served() as engine:
        events = await engine.events(CHAT, chat(max_tokens=5, stream_options={"include_usage": True}))

    *tokens, last = events
    assert {"role": "assistant", "content": ""} == tokens[0]["choices"][0]["delta"]
    words = [event["choices"][0]["delta"]["content"] for event in tokens[1:]]
    assert 5 == len(words) == len("".join(words).split())
    assert [None] * 5 + ["length"] == [event["choices"][0]["finish_reason"] for event in tokens]
    assert {"chat.completion.chunk"} == {event["object"] for event in events}
    assert 1 == len({event["id"] for event in events})
    assert [None] * 6 == [event["usage"] for event in tokens]
    # Eleven characters are three tokens, and four for the message.
    assert {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12} == last["usage"]
    assert [] == last["choices"]


async def test_a_stream_has_no_usage_unless_asked() -> None:
    """Without the option no event carries usage, as with OpenAI."""
    async with served() as engine:
        events = await engine.events(COMPLETION, {"prompt": "x", "max_tokens": 3})

    assert 3 == len(events)
    assert not any("usage" in event for event in events)


async def test_an_answer_in_one_piece_says_the_same() -> None:
    """The same prompt gives the same words streamed or whole, and other words than another prompt."""
    async with served() as engine:
        status, whole = await engine.post(CHAT, chat(max_completion_tokens=9))
        events = await engine.events(CHAT, chat(max_completion_tokens=9))
        _, other = await engine.post(CHAT, chat("something else", max_completion_tokens=9))

    (choice,) = whole["choices"]
    assert (200, "chat.completion", "length") == (status, whole["object"], choice["finish_reason"])
    assert choice["message"]["content"] == "".join(event["choices"][0]["delta"]["content"] for event in events)
    assert choice["message"]["content"] != other["choices"][0]["message"]["content"]
    assert {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16} == whole["usage"]


async def test_tokens_arrive_at_the_engines_pace() -> None:
    """Forty tokens take about forty steps of some 13.6 ms: neither at once, nor bunched at the end."""
    async with served() as engine:
        await engine.post(COMPLETION, {"prompt": "x", "max_tokens": 1})
        async with engine.session.post(COMPLETION, json={"prompt": "x", "max_tokens": 40, "stream": True}) as answer:
            times = [time.monotonic() async for line in answer.content if line.startswith(b"data: {")]
        step_s = engine.paced.engine.counters.step_s / engine.paced.engine.counters.steps

    assert 40 == len(times)
    assert 0.7 * 39 * step_s < times[-1] - times[0] < 39 * step_s + 1.0
    assert times[20] - times[0] > 0.3 * (times[-1] - times[0])


async def test_token_ids_count_as_they_are_listed() -> None:
    """A prompt of ids has as many tokens, alone or as the one entry of a list; nothing asked for ends by itself."""
    async with served() as engine:
        _, plain = await engine.post(COMPLETION, {"prompt": [5, 6, 7]})
        _, nested = await engine.post(COMPLETION, {"prompt": [[5, 6, 7]]})
        _, text = await engine.post(COMPLETION, {"prompt": ["abcdefgh"], "max_tokens": 1, "ignore_eos": True})

    assert plain["choices"] == nested["choices"]
    assert "stop" == plain["choices"][0]["finish_reason"]
    assert 3 == plain["usage"]["prompt_tokens"]
    assert 16 <= plain["usage"]["completion_tokens"] <= 255
    assert {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3} == text["usage"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code", "said"),
    [
        (CHAT, "{", 400, None, None, "not JSON"),
        (CHAT, "[" * 100_000, 400, None, None, "not JSON"),
        (CHAT, "[]", 400, None, None, "not a JSON object"),
        (CHAT, chat(n=2), 400, "n", None, "can only be 1"),
        (CHAT, chat(logprobs=True), 400, "logprobs", None, "not supported"),
        (CHAT, chat(max_tokens=0), 400, "max_tokens", None, "at least 1"),
        (CHAT, chat(max_tokens="many"), 400, "max_tokens", None, "whole number"),
        (CHAT, chat(stream="yes"), 400, "stream", None, "true or false"),
        (CHAT, chat(stream=True, stream_options=[]), 400, "stream_options", None, "object"),
        (CHAT, {"messages": []}, 400, "messages", None, "at least one"),
        (CHAT, {"messages": [{"content": "x"}]}, 400, "messages.0", None, "role"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages.0.content",
            None,
            "type text",
        ),
        (CHAT, {**chat(), "model": "gpt"}, 404, "model", "model_not_found", "does not exist"),
        (CHAT, {**chat(), "model": 5}, 400, "model", None, "a text"),
        (COMPLETION, {"prompt": ["a", "b"]}, 400, "prompt", None, "one text"),
        (COMPLETION, {"prompt": [True]}, 400, "prompt", None, "token id"),
        (COMPLETION, {"prompt": "x", "echo": True}, 400, "echo", None, "not supported"),
        (COMPLETION, {"prompt": "x", "max_tokens": 131_072}, 400, "prompt", "context_length_exceeded", "131072"),
        (COMPLETION, {"prompt": "x" * 600_000}, 400, "prompt", "context_length_exceeded", "150000 in the prompt"),
        ("/v1/embeddings", {}, 404, None, None, "Not Found"),
        ("/health", {}, 405, None, None, "Method Not Allowed"),
    ],
)
async def test_what_cannot_be_served_is_an_error_in_openais_shape(
    path: str, body: Any, status: int, param: str | None, code: str | None, said: str
) -> None:
    """Status, parameter and code as a client of OpenAI expects them, and a message that says what is wrong."""
    async with served() as engine:
        data = body if isinstance(body, str) else json.dumps(body)
        async with engine.session.post(path, data=data) as answer:
            document = await answer.json()

    assert {"error"} == set(document)
    error = document["error"]
    assert (status, param, code) == (answer.status, error["param"], error["code"])
    assert "invalid_request_error" == error["type"]
    assert said in error["message"]


async def test_a_body_beyond_the_bound_is_refused() -> None:
    """Five megabytes are not read into memory."""
    async with served() as engine, engine.session.post(CHAT, data=io.BytesIO(b"x" * 5_000_000)) as answer:
        assert (413, "invalid_request_error") == (answer.status, (await answer.json())["error"]["type"])


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that announces a body and sends none is told so after a while."""
    monkeypatch.setattr(http_door, "BODY_S", 0.1)
    async with served() as engine:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        said = await reader.readuntil(b"\r\n")
        writer.close()
        await writer.wait_closed()

    assert b"408" in said


async def test_a_client_that_leaves_is_aborted_in_the_engine() -> None:
    """Its cache is free again and it is counted as aborted, whether it was streaming or waiting for the whole."""
    async with served() as engine:
        response = await engine.session.post(COMPLETION, json={"prompt": "x", "max_tokens": 5000, "stream": True})
        await response.content.readline()
        whole = asyncio.ensure_future(engine.post(COMPLETION, {"prompt": "x", "max_tokens": 5000}))
        await until(lambda: engine.paced.engine.batch.running == 2)
        response.close()
        whole.cancel()
        await until(lambda: engine.paced.tallies.finished["abort"] == 2)

        assert (0, 0) == (engine.paced.engine.batch.running, engine.paced.engine.batch.kv.used)


async def test_a_reader_that_stops_reading_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes nothing more is aborted once the sockets between are full."""
    monkeypatch.setattr(http_door, "STALL_S", 0.2)
    async with served() as engine:
        monkeypatch.setattr(Answer, "events", lambda *_: b"data: " + b"x" * 2_000_000)
        response = await engine.session.post(COMPLETION, json={"prompt": "x", "max_tokens": 5000, "stream": True})
        await until(lambda: engine.paced.tallies.finished["abort"] == 1)
        response.close()


async def test_a_knob_changes_while_streams_run() -> None:
    """Eight streams go on without a gap while the cap falls to two; those that come then wait for their turn."""
    async with served() as engine:
        running = [
            asyncio.ensure_future(engine.events(COMPLETION, {"prompt": "x", "max_tokens": 60})) for _ in range(8)
        ]
        await until(lambda: engine.paced.engine.batch.running == 8)
        engine.paced.set(BATCH_CAP, 2)
        late = asyncio.ensure_future(engine.events(COMPLETION, {"prompt": "x", "max_tokens": 2}))
        await until(lambda: len(engine.paced.engine.batch.waiting) == 1)
        answers = await asyncio.gather(*running, late)

    assert [60] * 8 + [2] == [len(events) for events in answers]


async def test_a_relaunch_ends_streams_with_an_error_and_answers_503_meanwhile() -> None:
    """What had begun ends in an error event, what had not is 503; then the engine serves again, counters at zero."""
    async with served(cold_start_s=0.5) as engine:
        engine.paced.set(BATCH_CAP, 1)
        begun = await engine.session.post(COMPLETION, json={"prompt": "x", "max_tokens": 5000, "stream": True})
        first = await begun.content.readline()
        waiting = asyncio.ensure_future(engine.post(COMPLETION, {"prompt": "x", "max_tokens": 5, "stream": True}))
        await until(lambda: len(engine.paced.engine.batch.waiting) == 1)
        engine.paced.restart({VARIANT: "splitkv"})
        rest = (await begun.content.read()).decode().rstrip().split("\n\n")
        health = [(await engine.session.get(path)).status for path in ("/health", "/metrics")]
        refused = await engine.post(COMPLETION, {"prompt": "x"})
        cut = await waiting
        await until(lambda: engine.paced.ready)
        after = await engine.post(COMPLETION, {"prompt": "x", "max_tokens": 2})

    assert first.startswith(b"data: {")
    last = json.loads(rest[-1].strip().removeprefix("data: "))
    assert "e0 is being relaunched" == last["error"]["message"] == cut[1]["error"]["message"]
    assert [503, 503] == health
    assert (503, 503) == (refused[0], cut[0])
    assert "engine_unavailable" == refused[1]["error"]["code"]
    assert 200 == after[0]
    assert 1 == engine.paced.engine.counters.requests_finished


async def test_the_small_routes_are_those_of_vllm() -> None:
    """Models, health and version answer as a client or a probe expects."""
    async with served() as engine:
        async with engine.session.get("/v1/models") as answer:
            models = await answer.json()
        async with engine.session.get("/health") as answer:
            health = answer.status, await answer.read()
        async with engine.session.get("/version") as answer:
            version = await answer.json()

    assert [(MODEL, "model", 131_072)] == [(m["id"], m["object"], m["max_model_len"]) for m in models["data"]]
    assert (200, b"") == health
    assert {"version"} == set(version)
