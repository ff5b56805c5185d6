"""Which hits are computed again: as a block around their calls asks, or the settings."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from memoleo import _switch
from memoleo._functions.compiled import Fragment, nested
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo._switch import Mode, mode
from memoleo.config import _settings
from memoleo.errors import ConfigError

__all__ = ["Verification", "picked", "sampled", "verification", "verify"]

_PER_MINUTE = 6.0


class Verification:
    """How many hits are computed again.

    Parameters
    ----------
    sample
        the part of all hits, from 0 to 1
    per_minute
        how many at most within 60 seconds

    Raises
    ------
    ConfigError
        one of them is no such number
    """

    def __init__(self, sample: float, per_minute: float) -> None:
        for name, value, most in (
            ("sample", sample, 1.0),
            ("per_minute", per_minute, float("inf")),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"{name}={value!r} is not a number")
            if not 0 <= value <= most:
                limit = "from 0 to 1" if most == 1.0 else "0 or more"
                raise ConfigError(f"{name}={value!r}: expected a number {limit}")
        self.sample = float(sample)
        self.per_minute = float(per_minute)
        self._times: deque[float] = deque()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def draws(self) -> bool:
        """Whether chance picks this hit."""
        return random.random() < self.sample

    def allows(self) -> bool:
        """Whether one more may be computed now; if so it counts as computed."""
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] <= now - 60.0:
                self._times.popleft()
            if len(self._times) + 1 > self.per_minute:
                return False
            self._times.append(now)
            return True


_Around = tuple[Verification, "_Around | None"]
_around: ContextVar[_Around | None] = ContextVar("memoleo_verify", default=None)
_of_settings: tuple[Any, Verification | None] = (None, None)


def verification() -> Verification | None:
    """Return what holds here: of the block around the call, else of the settings."""
    if mode.get() is Mode.INSPECT:
        around = _around.get()
        if around is not None:
            return around[0]
    return by_settings()


def by_settings() -> Verification | None:
    """Return what the settings ask for; `None` if they ask for nothing."""
    global _of_settings
    settings = _settings.current()
    known, found = _of_settings
    if known is not settings:
        found = None
        if settings.verify > 0 and settings.verify_per_minute > 0:
            found = Verification(settings.verify, settings.verify_per_minute)
        _of_settings = (settings, found)
    return found


class _Verifying:
    """A block in which hits are verified; see `verify`."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification
        self._switch = _switch.Switch(Mode.INSPECT)

    def __enter__(self) -> None:
        self._switch.__enter__()
        _around.set((self._verification, _around.get()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        within = _around.get()
        if within is not None:
            _around.set(within[1])
        self._switch.__exit__(kind, error, traceback)


def verify(sample: float = 0.01, per_minute: float = _PER_MINUTE) -> _Verifying:
    """Compute some of the hits in this block again, and compare: ``with memoleo.verify(0.05):``.

    Callers get the hit, at once, and never what was computed. That happens in the background, one
    at a time, past any cache. ``memoleo verify`` and `Cache.verified` tell what it has shown: how
    many results differed, and in what. The settings ``caching.verify`` and
    ``caching.verify_per_minute`` ask for the same everywhere.

    Parameters
    ----------
    sample
        the part of all hits, from 0 to 1
    per_minute
        how many at most within a minute

    Raises
    ------
    ConfigError
        one of them is no such number
    """
    return _Verifying(Verification(sample, per_minute))


def sampled(lookup: Fragment) -> Fragment:
    """Return a lookup that lets some hits take the long way, as the settings ask."""
    holds = by_settings()
    if holds is None:
        return lookup
    lines = _SAMPLED.format(lookup=nested(lookup.lines))
    return Fragment(lines, {**lookup.names, "draws": holds.draws, "drawn": _drawn})


_SAMPLED = """\
if $draws():
 $drawn.yes = True
 $missed = $NOT_LOOKED
else:
{lookup}
 $drawn.yes = False"""


class _Drawn(threading.local):
    """Whether chance has picked the hit that is on its way; `None` if it was not asked yet."""

    yes: bool | None = None


_drawn = _Drawn()


def picked(holds: Verification) -> bool:
    """Whether the hit that is on its way is to be computed again."""
    drawn, _drawn.yes = _drawn.yes, None
    if drawn is None or holds is not by_settings():
        return holds.draws()
    return drawn
