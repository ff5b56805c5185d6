"""Calls as users of language models make them, and what they return."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["PAYLOADS", "Payload"]

TEXT = "why am I so tired today, again? it was a long day, and the evening was longer"
ENTRY = (
    "Woke up before the alarm and could not find my way back into sleep. The meeting about the "
    "move was shorter than I had feared, but it left me with more questions than before. Walked "
    "home along the river instead of taking the bus; the heron was there again, and for a while "
    "nothing else mattered. Called mum. She laughed about the burnt cake, and so did I."
)
SYSTEM = (
    "You are a kind and brief companion who reads diary entries. Answer in at most three "
    "sentences, name the feeling that you hear most clearly, and end with one small thing that "
    "could be done tomorrow. Never give medical advice."
)
FEELINGS = ("joy", "sadness", "anger", "fear", "disgust", "surprise", "trust", "calm")
LABELS = [f"feeling {number:02d}" for number in range(36)]


class Payload(NamedTuple):
    """One call: its arguments by name, what it returns, and how a user would write it.

    Parameters
    ----------
    name, what
        for tables
    arguments
        by name
    result
        what the function returns
    define
        decorates the function, and returns what `call` calls
    call
        the call as a program spells it; ``it`` is what `define` returned
    keyed
        what a key must be made of, in the words of the function
    """

    name: str
    what: str
    arguments: dict[str, Any]
    result: Any
    define: Callable[[Callable[[Any], Any]], Any]
    call: str
    keyed: str


RESULTS: dict[str, Any] = {}
"""What the functions return. It is no captured variable: those are keyed anew on each call."""


def one_text(decorate: Callable[[Any], Any]) -> Any:
    @decorate
    def score(text: str) -> Any:
        return RESULTS["P1"]

    return score


def chat(decorate: Callable[[Any], Any]) -> Any:
    @decorate
    def ask(model: str, messages: list[Any], options: dict[str, Any]) -> Any:
        return RESULTS["P2"]

    return ask


def image(decorate: Callable[[Any], Any]) -> Any:
    @decorate
    def caption(image: str) -> Any:
        return RESULTS["P3"]

    return caption


def sentences(decorate: Callable[[Any], Any]) -> Any:
    @decorate
    def embed(texts: list[str]) -> Any:
        return RESULTS["P4"]

    return embed


def method(decorate: Callable[[Any], Any]) -> Any:
    class Scorer:
        def __init__(self) -> None:
            self.model = "small"
            self.threshold = 0.5

        @decorate
        def score(self, text: str, labels: list[str]) -> Any:
            return RESULTS["P5"]

    return Scorer()


def _noise(size: int) -> bytes:
    return hashlib.shake_128(b"memoleo").digest(size)


PAYLOADS = [
    Payload(
        "P1",
        "one short text",
        {"text": TEXT},
        dict.fromkeys(FEELINGS, 0.125),
        one_text,
        "it(text)",
        "text",
    ),
    Payload(
        "P2",
        "a chat, 5 options",
        {
            "model": "llama3.2",
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": ENTRY},
            ],
            "options": {
                "temperature": 0.3,
                "num_predict": 120,
                "top_p": 0.9,
                "seed": 7,
                "num_ctx": 4096,
            },
        },
        {
            "model": "llama3.2",
            "created_at": "2026-11-01T10:00:00Z",
            "message": {"role": "assistant", "content": "Rest is also a way to go on. " * 12},
            "done": True,
            "done_reason": "stop",
            "total_duration": 2_345_678_901,
            "prompt_eval_count": 40,
            "eval_count": 88,
        },
        chat,
        "it(model, messages, options)",
        "model, messages, options",
    ),
    Payload(
        "P3",
        "a 1 MB image",
        {"image": base64.b64encode(_noise(786_432)).decode()},
        "a cat on a mat",
        image,
        "it(image)",
        "image",
    ),
    Payload(
        "P4",
        "32 sentences to 32x384 floats",
        {"texts": [f"{TEXT} {number}" for number in range(32)]},
        [[byte / 255.0 for byte in _noise(384)] for _ in range(32)],
        sentences,
        "it(texts)",
        "texts",
    ),
    Payload(
        "P5",
        "a method, 36 labels",
        {"text": TEXT, "labels": LABELS},
        dict.fromkeys(LABELS, 0.01),
        method,
        "it.score(text, labels)",
        "self.model, self.threshold, text, labels",
    ),
]

RESULTS.update((payload.name, payload.result) for payload in PAYLOADS)
