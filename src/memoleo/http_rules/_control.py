"""What an answer says of its own freshness (RFC 9111), where a rule obeys it."""

from __future__ import annotations

import msgspec

from memoleo.http_rules._headers import HARMLESS
from memoleo.http_rules._messages import Answer

__all__ = ["fresh_until", "renewed", "storable", "validators"]

_OF_BODY = frozenset({"content-length", "content-encoding", "content-type", "transfer-encoding"})


def _directives(answer: Answer) -> dict[str, str]:
    found = {}
    for part in answer.header("cache-control").split(","):
        name, _, value = part.strip().partition("=")
        found[name.lower()] = value.strip().strip('"')
    return found


def storable(answer: Answer) -> bool:
    """Whether an answer lets itself be stored, by somebody for himself (section 3)."""
    directives = _directives(answer)
    if "no-store" in directives:
        return False
    varies = {name.strip().lower() for name in answer.header("vary").split(",")} - {""}
    # Of what it varies with, those are left out of the key; the first one changes the form only.
    return "*" not in varies and not (varies & HARMLESS - {"accept-encoding"})


def fresh_until(answer: Answer, now: float) -> float | None:
    """Return until when an answer is fresh by its own account; `None` if it doesn't say.

    Sections 4.2.1 and 5.2.2: ``max-age`` less ``Age``, else ``Expires`` less ``Date``;
    ``no-cache`` is never fresh.
    """
    directives = _directives(answer)
    if "no-cache" in directives:
        return now
    fresh_for = _seconds(directives.get("max-age", ""))
    if fresh_for is not None:
        return now + fresh_for - (_seconds(answer.header("age")) or 0.0)
    expires = answer.header("expires")
    if not expires:
        return None
    from email.utils import parsedate_to_datetime

    try:
        ends = parsedate_to_datetime(expires).timestamp()
        date = answer.header("date")
        return now + ends - (parsedate_to_datetime(date).timestamp() if date else now)
    except (TypeError, ValueError, OverflowError):
        return now  # section 5.3: what is no date has passed


def _seconds(value: str) -> float | None:
    """Return a number of seconds; one that is too large is the largest there is (section 1.2.2)."""
    return min(float(value), 2.0**31) if value.isdecimal() else None


def validators(answer: Answer) -> dict[str, str]:
    """Return the headers that ask a server whether an answer still holds (section 4.3.1)."""
    found = {}
    if answer.header("etag"):
        found["If-None-Match"] = answer.header("etag")
    if answer.header("last-modified"):
        found["If-Modified-Since"] = answer.header("last-modified")
    return found


def renewed(old: Answer, confirmed: Answer) -> Answer:
    """Return a stored answer with what a 304 says of it now (section 3.2)."""
    newer = {name.lower() for name, _ in confirmed.headers} - _OF_BODY
    headers = [each for each in old.headers if each[0].lower() not in newer]
    headers += [each for each in confirmed.headers if each[0].lower() in newer]
    return msgspec.structs.replace(old, headers=headers)
