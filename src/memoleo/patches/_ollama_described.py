"""What the key of a request to an Ollama server is made of, for those who ask why it missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from memoleo.keys._portrait import Description, Portrait
from memoleo.patches._ollama_request import LEFT_OUT, Question

__all__ = ["describe"]

_FIRST = ("model", "digest of the model", "server, or who asks")


def describe(
    question: Question,
    server: bytes,
    digest: str,
    body: Mapping[str, Any],
    inputs: Sequence[str] | None,
) -> Description:
    """Return what a key is made of: the model, who answers, and each field of the request.

    Parameters
    ----------
    question
        what is asked
    server, digest
        as for `Question.key`
    body
        of the request
    inputs
        texts to embed instead of those in `body`
    """
    fields = tuple(sorted(name for name in body if name != "model" and name not in LEFT_OUT))
    values = [body[name] for name in fields]
    if inputs is not None and "input" in fields:
        values[fields.index("input")] = list(inputs)
    portrait = _portrait(question.verb.path, fields)
    return Description(portrait, (question.model, digest, server, *values))


@lru_cache(maxsize=256)
def _portrait(path: str, fields: tuple[str, ...]) -> Portrait:
    return Portrait(f"ollama:{path}", (*_FIRST, *fields), {})
