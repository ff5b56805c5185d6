"""Enriches diary entries with a language model: feelings as numbers, then a poem and tips.

A program as anybody would write it, with the ``ollama`` package and nothing else.
"""

from __future__ import annotations

import json
from typing import Any

import ollama

__all__ = ["EMOTIONS", "score_emotions", "write_poem_and_tips"]

EMOTIONS = ("joy", "sadness", "anger", "calm")

_SCORES: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 9} for name in EMOTIONS},
    "required": list(EMOTIONS),
    "additionalProperties": False,
}


def _lines(count: int, longest: int) -> dict[str, Any]:
    line = {"type": "string", "minLength": 8, "maxLength": longest}
    return {"type": "array", "items": line, "minItems": count, "maxItems": count}


_POEM_AND_TIPS: dict[str, Any] = {
    "type": "object",
    "properties": {"poem": _lines(4, 40), "tips": _lines(3, 30)},
    "required": ["poem", "tips"],
    "additionalProperties": False,
}

_EXAMPLE_DAY = "Long day at work."
_EXAMPLE = {
    "poem": [
        "The desk was loud, the day was long,",
        "my chair was hard, the tea was strong,",
        "the lamp went out, the street was still,",
        "and sleep came softly up the hill.",
    ],
    "tips": ["Go home on time.", "Walk a little.", "Go to bed early."],
}


def score_emotions(client: ollama.Client, model: str, entry: str) -> dict[str, int]:
    """Return how strong each emotion is in an entry, from 0 to 9."""
    answer = client.chat(
        model,
        [
            {"role": "system", "content": "Rate the emotions in the diary entry from 0 to 9."},
            {"role": "user", "content": _tidy(entry)},
        ],
        format=_SCORES,
        think=False,
        options={"temperature": 0, "num_predict": 60},
    )
    scores: dict[str, int] = _read(answer.message.content)
    return scores


def write_poem_and_tips(client: ollama.Client, model: str, entry: str) -> dict[str, list[str]]:
    """Return a poem of four lines and three tips for the writer of an entry."""
    answer = client.chat(
        model,
        [
            {"role": "system", "content": "Answer with a poem and tips."},
            {"role": "user", "content": _EXAMPLE_DAY},
            {"role": "assistant", "content": json.dumps(_EXAMPLE)},
            {"role": "user", "content": _tidy(entry)},
        ],
        format=_POEM_AND_TIPS,
        think=False,
        options={"temperature": 0.3, "seed": 11, "num_predict": 120},
    )
    poem_and_tips: dict[str, list[str]] = _read(answer.message.content)
    return poem_and_tips


def _tidy(entry: str) -> str:
    return " ".join(entry.split())


def _read(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        # The model ran out of tokens in the middle of it.
        return {}
