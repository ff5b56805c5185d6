"""Whether an answer is one that may be stored."""

from __future__ import annotations

from typing import Any

import msgspec

from memoleo.http_rules._bodies import is_json, is_lines, resolve
from memoleo.http_rules._control import storable
from memoleo.http_rules._headers import PRIVATE
from memoleo.http_rules._messages import Answer, Request
from memoleo.http_rules._presets import APIS
from memoleo.http_rules._rule import Rule

__all__ = ["FAILURES", "acceptable", "public"]

FAILURES = frozenset({500, 502, 503, 504})
"""Statuses that count as errors for ``stale_if_error`` (RFC 5861, section 4) and for breakers."""


def acceptable(rule: Rule, request: Request, answer: Answer) -> bool:
    """Whether an answer is stored: its status, then what it says, then what the rule asks for.

    Parameters
    ----------
    rule, request
        what was asked
    answer
        what came
    """
    parsed = rule.parsed
    if answer.status not in parsed.statuses:
        return False
    if rule.api is not None and not APIS[rule.api].complete(request, answer):
        return False
    if rule.obey_cache_control and not storable(answer):
        return False
    kind = answer.header("content-type")
    try:
        values: list[Any] = []
        if is_lines(kind):
            values = answer.lines()
            if not values:
                return False
        elif (is_json(kind) and (answer.body or request.method != "HEAD")) or parsed.required:
            values = [answer.json()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if any(isinstance(value, dict) and value.get("error") for value in values):
        return False
    for pointer, wanted in parsed.required:
        found = list(resolve(values[-1], pointer))
        if not found or not all(_among(each, wanted) for each in found):
            return False
    return parsed.check is None or bool(parsed.check(answer))


def _among(value: Any, wanted: list[Any]) -> bool:
    # `true` is not 1 in JSON.
    return any(
        value == each and isinstance(value, bool) is isinstance(each, bool) for each in wanted
    )


def public(answer: Answer) -> Answer:
    """Return an answer without the headers that are meant for one caller at one time."""
    return msgspec.structs.replace(
        answer,
        headers=[each for each in answer.headers if each[0].lower() not in PRIVATE],
        history=[public(each) for each in answer.history],
    )
