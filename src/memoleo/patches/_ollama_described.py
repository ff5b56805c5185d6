"""What the key of a request to an Ollama server is made of, for those who ask why it missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from memoleo._streams.stream import Recorded
from memoleo.keys._portrait import Description, Portrait
from memoleo.patches._ollama_request import LEFT_OUT, Question

__all__ = ["describe", "essence"]

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


def essence(answer: Any) -> Any:
    """Return what of an answer counts when it is compared: not when it came, nor how fast."""
    if type(answer) is Recorded:
        return _joined([_essence(part) for part in answer.items])
    return _essence(answer)


def _essence(answer: Any) -> Any:
    dump = getattr(answer, "model_dump", None)
    if dump is None:
        return answer
    fields = dump(exclude_unset=True, by_alias=True, warnings=False)
    return {name: value for name, value in fields.items() if name not in _PASSING}


def _joined(parts: list[Any]) -> dict[str, Any]:
    """Return what the parts of an answer say in all, however the server cut them."""
    whole: dict[str, Any] = {}
    for part in parts:
        flat = {**part, **(part.get("message") or {})}
        flat.pop("message", None)
        for name, value in flat.items():
            if isinstance(value, str) and name in _TEXTS:
                whole[name] = whole.get(name, "") + value
            elif value is not None and name != "done":
                whole[name] = value
    return whole


_TEXTS = frozenset({"response", "thinking", "content"})
_PASSING = frozenset(
    {
        "created_at",
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
        "prompt_eval_count",
        "eval_count",
    }
)


@lru_cache(maxsize=256)
def _portrait(path: str, fields: tuple[str, ...]) -> Portrait:
    return Portrait(f"ollama:{path}", (*_FIRST, *fields), {})
