"""Records of what a cache did, for those who listen, and log lines that come once per spell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

__all__ = ["Event", "Hook", "Spell", "logger"]

logger = logging.getLogger("memoleo")
logger.addHandler(logging.NullHandler())


class Event(msgspec.Struct, frozen=True):
    """Something that happened on a cached call.

    Parameters
    ----------
    outcome
        "hit", "miss", "stale", "shared", "stale_if_error", "error", "corrupt", "refused",
        "failure", "stored", "would_hit" or "would_miss"
    type
        the category of the call
    label
        the qualified name of what was called
    key
        the key, 32 bytes
    ms
        what it took, or saved, in milliseconds
    error
        the exception behind it
    """

    outcome: str
    type: str
    label: str
    key: bytes
    ms: float = 0.0
    error: BaseException | None = None


Hook = Callable[[Event], None]
"""Called with every event of a cache. What it raises is logged, and never reaches the call."""


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
            logger.warning("%s: %s. Calls go on without it.", self.what, error or repr(error))

    def worked(self) -> None:
        """Note a success."""
        if self.failing:
            self.failing = False
            self._pause = self._PAUSES[0]
            logger.warning("%s: works again", self.what)
