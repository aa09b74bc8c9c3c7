"""What a client asks for, read from OpenAI's JSON; and errors in OpenAI's shape.

There is no tokenizer here: a prompt of text has one token for every four characters, rounded up (and four
more for each chat message, for its role), and a list of token ids has as many as it lists. An answer has
the tokens that were asked for; where nothing was asked for, 16 to 255, drawn from the prompt's checksum,
so that the same prompt is answered alike every time.

What the small engine cannot do is refused by name, never ignored: several choices, log probabilities, echo, images.
What only shapes text (temperature, stop words, tools, …) is accepted and makes no difference to filler words.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball_core.errors import Rejected

CHARACTERS_PER_TOKEN = 4
MESSAGE_TOKENS = 4
LEAST_DRAWN, MOST_DRAWN = 16, 255
"""Bounds of an answer's tokens where the client names no limit."""


class RefusedRequest(Rejected):
    """A request that is answered with an error; `param` and `code` as OpenAI has them."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        self.status, self.param, self.code = status, param, code
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, as far as the engine and the answer need to know it."""

    chat: bool
    prompt_tokens: int
    output_tokens: int
    finish: str
    """`length` if the client set the limit, `stop` if the answer ends by itself."""
    stream: bool
    usage: bool
    """Whether a stream ends with the usage counts."""
    checksum: int
    """Of the prompt; what the answer says depends on nothing else."""


def error_body(message: str, *, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def read_request(body: bytes, *, chat: bool, model: str, longest_tokens: int) -> Asked:
    """What the body asks for. Raises `RefusedRequest` for what cannot be served, saying which part of it."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedRequest(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedRequest("the body is not a JSON object")
    _refuse_model(fields, model)
    _refuse_unable(fields)
    prompt_tokens, checksum = _messages(fields) if chat else _prompt(fields)
    limit = _limit(fields)
    room = longest_tokens - prompt_tokens
    if room < (limit or 1):
        raise RefusedRequest(
            f"the longest context is {longest_tokens} tokens; {prompt_tokens} in the prompt"
            f" and {limit or 1} to be written do not fit",
            param="messages" if chat else "prompt",
            code="context_length_exceeded",
        )
    drawn = LEAST_DRAWN + checksum % (MOST_DRAWN - LEAST_DRAWN + 1)
    stream = _flag(fields, "stream")
    return Asked(
        chat=chat,
        prompt_tokens=prompt_tokens,
        output_tokens=limit if limit is not None else min(drawn, room),
        finish="stop" if limit is None else "length",
        stream=stream,
        usage=stream and _usage(fields),
        checksum=checksum,
    )


def _refuse_model(fields: Mapping[str, Any], model: str) -> None:
    wanted = fields.get("model", model)
    if not isinstance(wanted, str):
        raise RefusedRequest("model is a text", param="model")
    if wanted != model:
        message = f"the model {wanted[:200]!r} does not exist here; this engine serves {model!r}"
        raise RefusedRequest(message, status=404, param="model", code="model_not_found")


def _refuse_unable(fields: Mapping[str, Any]) -> None:
    for name in ("n", "best_of"):
        if fields.get(name) not in (None, 1) or fields.get(name) is True:
            raise RefusedRequest(f"{name} can only be 1 here", param=name)
    for name in ("echo", "logprobs", "top_logprobs", "prompt_logprobs"):
        if fields.get(name) not in (None, False):
            raise RefusedRequest(f"{name} is not supported: the small engine has no probabilities", param=name)


def _limit(fields: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RefusedRequest(f"{name} is a whole number of at least 1", param=name)
        return value
    return None


def _flag(fields: Mapping[str, Any], name: str, within: str = "") -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise RefusedRequest(f"{within}{name} is true or false", param=f"{within}{name}")
    return bool(value)


def _usage(fields: Mapping[str, Any]) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise RefusedRequest("stream_options is an object", param="stream_options")
    return _flag(options, "include_usage", "stream_options.")


def _messages(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens and checksum of a chat's messages."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedRequest("messages is a list of at least one message", param="messages")
    characters = checksum = 0
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RefusedRequest("a message is an object with a role", param=f"messages.{place}")
        for text in _texts(message.get("content"), f"messages.{place}.content"):
            characters += len(text)
            checksum = zlib.crc32(text.encode(errors="surrogatepass"), checksum)
    return _tokens(characters) + MESSAGE_TOKENS * len(messages), checksum


def _texts(content: object, param: str) -> list[str]:
    if content is None:  # an assistant's message that only called tools
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise RefusedRequest("content is a text or a list of parts", param=param)
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise RefusedRequest("only parts of type text can be read here", param=param)
    return [text for text in texts if isinstance(text, str)]


def _prompt(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens and checksum of a completion's prompt: a text, a list of token ids, or a list of one of either."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return _tokens(len(prompt)), zlib.crc32(prompt.encode(errors="surrogatepass"))
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return len(prompt), zlib.crc32(repr(prompt).encode())
    raise RefusedRequest("prompt is one text, or one list of at least one token id", param="prompt")


def _tokens(characters: int) -> int:
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))
