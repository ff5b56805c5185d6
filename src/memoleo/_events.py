"""Records of what a cache did, for those who listen, and log lines that come once per spell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from memoleo._platform.interrupts import pass_on

__all__ = ["KINDS", "Event", "Hook", "Spell", "extras", "listeners", "logger", "tell", "wanted"]

logger = logging.getLogger("memoleo")
logger.addHandler(logging.NullHandler())

KINDS = {
    "hit": "answered by a fresh entry",
    "miss": "the function is about to run",
    "stale": "answered by an entry past its TTL, while one refresh runs",
    "shared": "answered by a computation that another caller had under way",
    "stale_if_error": "the run failed, and an entry past its TTL was served instead",
    "expired": "an entry was found past its time; the lookup is a miss as well",
    "call": "the function ran: how long it took, what it raised, the tokens that a model spent",
    "error": "the function raised",
    "stored": "the result was stored",
    "refused": "the result was not stored: cache_if said no, or it can't be encoded",
    "corrupt": "an entry did not verify or decode; the lookup is a miss as well",
    "failure": "an operation of the store failed",
    "would_hit": "memoleo.observe() saw a call that would have been a hit",
    "would_miss": "memoleo.observe() saw a call that would have been a miss",
    "retry": "an operation failed and is tried again, after a wait",
    "circuit_open": "calls to a host fail: none goes there for a while",
    "circuit_half_open": "a call is let through to see whether a host works again",
    "circuit_closed": "a host works again",
}
"""The kinds of events, and what each of them says."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Parameters
    ----------
    outcome
        its kind, one of `KINDS`
    type
        the category of the call; empty for retries and circuits
    label
        the qualified name of what was called, the name of a model, of an operation or of a host
    key
        the key, 32 bytes; empty for retries and circuits
    ms
        what it took, saved, or waits, in milliseconds
    error
        the exception behind it
    tokens
        what a model read and wrote for it
    provider, operation
        whom a model was asked and what for, by OpenTelemetry's conventions for generative AI,
        such as "ollama" and "chat"; `label` is then the model's name
    """

    outcome: str
    type: str = ""
    label: str = ""
    key: bytes = b""
    ms: float = 0.0
    error: BaseException | None = None
    tokens: tuple[int, int] = (0, 0)
    provider: str = ""
    operation: str = ""


Hook = Callable[[Event], None]
"""Called with every event of a cache, or with those of the kinds that its attribute ``kinds``
names. What it raises is logged, and never reaches the call."""

listeners: tuple[Hook, ...] = ()
"""Hooks for the whole process; see `memoleo.hooks.listen`."""


def wanted(hooks: Iterable[Hook], kind: str) -> bool:
    """Whether one of these hooks wants events of a kind."""
    return any(_wants(hook, kind) for hook in hooks)


def _wants(hook: Hook, kind: str) -> bool:
    # A hook may be anything that can be called, with attributes for another purpose.
    try:
        kinds = getattr(hook, "kinds", None)
    except Exception:
        return True
    return not isinstance(kinds, (frozenset, set, tuple, list)) or kind in kinds


def tell(hooks: Iterable[Hook], event: Event) -> None:
    """Tell these hooks, and those of the whole process, what happened."""
    for hook in (*hooks, *listeners):
        try:
            if _wants(hook, event.outcome):
                hook(event)
        except Exception as error:
            pass_on(error)
            logger.exception("a hook of memoleo failed", extra=extras("hook_failed"))


def extras(
    event: str,
    *,
    type: str | None = None,
    label: str | None = None,
    key: bytes | None = None,
    path: str | None = None,
    error: BaseException | None = None,
) -> dict[str, object]:
    """Return what a log record says besides its text, for ``extra=``.

    Parameters
    ----------
    event
        what happened, in a word or two that stay the same: ``record.memoleo_event``
    type, label, key, path, error
        what it happened to; those that are given become ``memoleo_type`` and so on, the key as
        the text that `cache_key` and the command line use
    """
    said: dict[str, object] = {"memoleo_event": event}
    for name, value in (("type", type), ("label", label), ("path", path), ("error", error)):
        if value is not None:
            said[f"memoleo_{name}"] = value
    if key:
        said["memoleo_key"] = f"m1-{key.hex()}"
    return said


class Spell:
    """A run of failures of one kind: logged when it begins and when it ends, not in between.

    While failures cost waiting time (a lock that somebody holds), the operation is skipped for a
    while that doubles from 0.1 s up to 5 s, so that not every call pays for it.

    Parameters
    ----------
    what
        what fails, as the subject of a sentence
    """

    _WAITED = 0.01
    _PAUSES = (0.1, 5.0)

    def __init__(self, what: str) -> None:
        self.what = what
        self.failing = False
        self._pause = self._PAUSES[0]
        self._until = 0.0

    def skips(self) -> bool:
        """Whether the operation should not be tried now."""
        return self.failing and time.monotonic() < self._until

    def failed(self, error: BaseException, seconds: float = 0.0) -> None:
        """Note a failure that took this many seconds."""
        if seconds > self._WAITED:
            self._until = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, self._PAUSES[1])
        if not self.failing:
            self.failing = True
            logger.warning(
                "%s: %s. Calls go on without it.",
                self.what,
                error or repr(error),
                extra=extras("failing", label=self.what, error=error),
            )

    def worked(self) -> None:
        """Note a success."""
        if self.failing:
            self.failing = False
            self._pause = self._PAUSES[0]
            logger.warning(
                "%s: works again", self.what, extra=extras("works_again", label=self.what)
            )
