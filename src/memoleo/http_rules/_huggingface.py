"""The hosted inference router of Hugging Face, and servers that speak like it."""

from __future__ import annotations

from typing import Any

from memoleo.http_rules._bodies import json_of
from memoleo.http_rules._messages import Answer, Request

__all__ = ["asks", "complete"]

_Number = (int, float)


def asks(request: Request) -> bool:
    """Whether a request asks a model for something: its body is an object with `inputs`."""
    body = json_of(request.body)
    return isinstance(body, dict) and bool(body.get("inputs"))


def complete(request: Request, answer: Answer) -> bool:
    """Whether an answer has the shape that the request calls for.

    A model that is loading says so with 503, and older routers with an object that has an
    `error` or an `estimated_time`.
    """
    body, found = json_of(request.body), json_of(answer.body)
    if not found or not isinstance(body, dict):
        return False
    inputs = body["inputs"]
    if isinstance(inputs, dict) and isinstance(inputs.get("sentences"), list):
        return _numbers(found) and len(found) == len(inputs["sentences"])
    parameters = body.get("parameters")
    wanted = parameters.get("candidate_labels") if isinstance(parameters, dict) else None
    if wanted is not None:
        if isinstance(wanted, str):
            wanted = [each for each in wanted.split(",") if each.strip()]
        rows = found if isinstance(inputs, list) and isinstance(found, list) else [found]
        return _each(rows, inputs) and all(_labels(row, len(wanted)) for row in rows)
    if isinstance(found, dict):
        return _labels(found) or _texts(found)
    if not isinstance(found, list):
        return False
    return _tensor(found) or _ranked(found) or all(_texts(each) for each in found)


def _each(rows: list[Any], inputs: Any) -> bool:
    """Whether there is a row for every input, or the rows are those of a single one."""
    return not isinstance(inputs, list) or len(rows) == len(inputs)


def _labels(row: Any, count: int | None = None) -> bool:
    """Whether a row says how well each label fits, in one of the two forms that exist."""
    if isinstance(row, list):
        return _ranked(row) and (count is None or len(row) == count)
    if not isinstance(row, dict):
        return False
    labels: Any = row.get("labels")
    scores: Any = row.get("scores")
    return (
        isinstance(labels, list)
        and _numbers(scores)
        and len(labels) == len(scores)
        and (count is None or len(labels) == count)
    )


def _ranked(rows: Any) -> bool:
    if not isinstance(rows, list) or not rows:
        return False
    if all(isinstance(row, list) for row in rows):
        return all(_ranked(row) for row in rows)
    return all(
        isinstance(row, dict)
        and isinstance(row.get("score"), _Number)
        and any(
            isinstance(row.get(name), str)
            for name in ("label", "token_str", "entity_group", "word", "answer")
        )
        for row in rows
    )


def _texts(row: Any) -> bool:
    """Whether it is the text that a model wrote, translated, summed up or heard, or an answer."""
    names = ("generated_text", "translation_text", "summary_text", "text", "answer")
    return isinstance(row, dict) and any(isinstance(row.get(name), str) for name in names)


def _numbers(found: Any) -> bool:
    return (
        isinstance(found, list)
        and bool(found)
        and all(isinstance(each, _Number) and not isinstance(each, bool) for each in found)
    )


def _tensor(found: Any) -> bool:
    """Whether it is a vector, or a list of such, however deep."""
    if not isinstance(found, list) or not found:
        return False
    return _numbers(found) or all(_tensor(each) for each in found)
