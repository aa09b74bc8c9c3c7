"""Answers in OpenAI's shapes: whole, or as server-sent events, one for each token.

The words are filler, drawn from a fixed list by the prompt's checksum. What repeats in every event of a
stream is written once, because at each step of a busy engine there is one event for every request in it.
"""

import json
from typing import Any

from flyball_twin.serving.asking import Asked

DONE = b"data: [DONE]\n\n"

_FILLER = """
governor engine speed throttle steam valve wheel belt shaft load rise fall steady swing weight arm lever spring bearing
boiler pressure gauge mill water stone grain turn slow fast open close hold ease drift settle measure again between
under over after before while until because though never always often seldom near far small large quiet heavy light
even odd
"""

WORDS = tuple(_FILLER.split())
"""What answers are made of; each word is one token."""

_STEP = 37
"""From one word to the next; shares no factor with the number of words, so that all of them come up."""

_GAP = "%%%"
"""Where a token's word goes in the text of its event; nothing behind it in an event looks like it."""


class Answer:
    """How one request is answered, under its id; `created` is Unix seconds."""

    def __init__(self, asked: Asked, answer_id: str, model: str, created: int) -> None:
        self._asked = asked
        self._id, self._model, self._created = answer_id, model, created
        self._before, _, self._after = self._event(self._choice(_GAP, None)).rpartition(_GAP)

    def word(self, place: int) -> str:
        """The token at this place, counted from 0, with the space before it."""
        word = WORDS[(self._asked.checksum + place * _STEP) % len(WORDS)]
        return f" {word}" if place else word

    def text(self, tokens: int) -> str:
        """The first so many tokens."""
        return "".join(self.word(place) for place in range(tokens))

    def events(self, first: int, last: int) -> bytes:
        """The events of tokens `first` up to but without `last`; with the very last token, all that ends a stream."""
        events = []
        if first == 0 and self._asked.chat:
            events.append(self._event(self._choice("", None, role="assistant")))
        ends = last == self._asked.output_tokens
        events += [f"{self._before}{self.word(place)}{self._after}" for place in range(first, last - ends)]
        if ends:
            events.append(self._event(self._choice(self.word(last - 1), self._asked.finish)))
            if self._asked.usage:
                events.append(self._event(None, self.usage()))
        data = "".join(events).encode()
        return data + DONE if ends else data

    def usage(self) -> dict[str, int]:
        """The counts of a finished request."""
        prompt, output = self._asked.prompt_tokens, self._asked.output_tokens
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        asked = self._asked
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": asked.finish}
        text = self.text(asked.output_tokens)
        if asked.chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return {
            "id": self._id,
            "object": "chat.completion" if asked.chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "usage": self.usage(),
        }

    def _choice(self, text: str, finish: str | None, *, role: str = "") -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0}
        if self._asked.chat:
            choice["delta"] = {"role": role, "content": text} if role else {"content": text}
        else:
            choice["text"] = text
        return {**choice, "logprobs": None, "finish_reason": finish}

    def _event(self, choice: dict[str, Any] | None, usage: dict[str, int] | None = None) -> str:
        body: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk" if self._asked.chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [] if choice is None else [choice],
        }
        if self._asked.usage:
            body["usage"] = usage
        return f"data: {json.dumps(body)}\n\n"


def error_event(body: dict[str, Any]) -> bytes:
    """What ends a stream that broke off."""
    return f"data: {json.dumps(body)}\n\n".encode()
