"""The head: what to do on a cached call, decided in one place.

A flow is a generator. It yields steps and is sent their answers; it does no I/O, reads no clock
and takes no lock, and knows neither threads nor tasks. `memoleo._flow.drive` has the hands.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import Any

from memoleo._entry import Entry
from memoleo._flow.policy import Freshness
from memoleo._flow.steps import (
    Call,
    Count,
    Failed,
    Followed,
    Lead,
    Leading,
    Leave,
    Now,
    Open,
    Returned,
    Save,
    Seen,
    Spawn,
    Step,
    Unsee,
)

__all__ = ["Flow", "Intent", "flow"]

Outcome = Returned | Failed
Flow = Generator[Step, Any, Outcome]

_FLIGHTS = 2
"""How many other calls one call waits for before it computes by itself.

When a leader fails, one follower takes over and the rest wait for it. If that fails too, the
failure belongs to the call: everybody computes, as if there were no cache.
"""

# Steps without contents are made once: every miss takes several of them.
_NOW, _LEAD, _CALL, _SPAWN = Now(), Lead(), Call(), Spawn()


class Intent(enum.Enum):
    """Why a flow runs."""

    ANSWER = "answer"
    REFRESH = "refresh"
    REVALIDATE = "revalidate"
    OBSERVE = "observe"


def flow(intent: Intent, freshness: Freshness, found: Entry | None, streamed: bool) -> Flow:
    """Return the steps of one call.

    Parameters
    ----------
    intent
        answer a caller, replace what is stored, refresh in the background, or only observe
    freshness
        what may be done with an entry of a given age
    found
        what the store held when the call came in
    streamed
        the result is an iterator, which stores itself once it is exhausted; every caller
        consumes its own
    """
    fallback: Entry | None = None
    opened: Returned | None
    if intent is Intent.REVALIDATE:
        return (yield from _revalidate(freshness, streamed=streamed))
    if intent is Intent.OBSERVE:
        return (yield from _observe(freshness, found))
    if found is not None and intent is Intent.ANSWER:
        opened, fallback = yield from _serve(freshness, found)
        if opened is not None:
            return opened
    leading = False
    for _ in range(0 if streamed or intent is Intent.REFRESH else _FLIGHTS):
        ticket = yield _LEAD
        if isinstance(ticket, Leading):
            leading = True
            # A second look: another may have finished before this one took the lead.
            again = ticket.entry
            if again is None:
                break
            if freshness.fresh(again.created, (yield _NOW)):
                opened = yield Open(again)
                if opened is not None:
                    yield Leave(again)
                    yield Count("hit", again)
                    return opened
            elif found is None:
                yield Count("expired")
            break
        if not isinstance(ticket, Followed):
            break
        if ticket.entry is not None:
            opened = yield Open(ticket.entry)
            if opened is not None:
                yield Count("shared", ticket.entry)
                return opened
        elif not ticket.failed:
            # Its result is not to be stored, and so will this one be: waiting again won't help.
            break
    result: Outcome = yield _CALL
    if isinstance(result, Returned):
        if not streamed:
            yield Save(result)
        return result
    is_failure = isinstance(result.error, Exception)
    if is_failure:
        yield Count("error", error=result.error)
    if leading:
        yield Leave(None, failed=True)
    if fallback is None or not is_failure:
        return result
    opened = yield Open(fallback)
    if opened is None:
        return result
    yield Count("stale_if_error", fallback, result.error)
    return opened


def _serve(
    freshness: Freshness, found: Entry
) -> Generator[Step, Any, tuple[Returned | None, Entry | None]]:
    """Return what an entry serves now, and the entry if it may serve a call that fails."""
    opened: Returned | None
    now = yield _NOW
    if freshness.fresh(found.created, now):
        opened = yield Open(found)
        if opened is not None:
            yield Count("hit", found)
        return opened, None
    if freshness.revalidates(found.created, now):
        opened = yield Open(found)
        if opened is not None:
            yield Count("stale", found)
            yield _SPAWN
        return opened, None
    yield Count("expired")
    return None, found if freshness.excuses(found.created, now) else None


def _revalidate(freshness: Freshness, *, streamed: bool) -> Flow:
    ticket = yield Lead(wait=False)
    if not isinstance(ticket, Leading):
        return Returned(None)
    found = ticket.entry
    if found is not None and freshness.fresh(found.created, (yield _NOW)):
        yield Leave(found)
        return Returned(None)
    result: Outcome = yield Call(missed=False)
    if isinstance(result, Returned):
        yield Leave(None) if streamed else Save(result)
        return result
    if isinstance(result.error, Exception):
        yield Count("error", error=result.error)
    yield Leave(None, failed=True)
    return result


def _observe(freshness: Freshness, found: Entry | None) -> Flow:
    now = yield _NOW
    seen = yield Seen(now)
    known = seen or (found is not None and freshness.fresh(found.created, now))
    result: Outcome = yield Call(missed=False)
    if not seen:
        yield Unsee(result)
    yield Count("would_hit" if known else "would_miss", ms=result.ms)
    return result
