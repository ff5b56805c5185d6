"""Hooks for a whole process: what every cache does, and retries and circuits as well.

A hook of one cache is given to `memoleo.Cache` or `memoleo.configure`; patched packages answer
from a cache too, so its hooks hear of their calls. What belongs to no cache, or should be heard
from all of them, is listened to here.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from memoleo import _events
from memoleo._events import KINDS, Event, Hook
from memoleo._platform.forks import RenewedLock
from memoleo.errors import ConfigError

__all__ = ["KINDS", "Listening", "listen"]

_lock = RenewedLock()


class Listening:
    """What `listen` returns: listens until it is closed, or its block ends.

    Parameters
    ----------
    hook
        what is called
    kinds
        the kinds of events that it is called with
    """

    def __init__(self, hook: Hook, kinds: frozenset[str]) -> None:
        self._hook = hook
        self.kinds = kinds

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        self._hook(event)

    def close(self) -> None:
        """Listen no more. Closing twice is harmless."""
        with _lock:
            _events.listeners = tuple(one for one in _events.listeners if one is not self)

    def __enter__(self) -> Listening:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def listen(hook: Hook, *, kinds: Iterable[str] | None = None) -> Listening:
    """Call a hook with what happens in any cache of this process, in retries and in circuits.

    Fresh hits that a decorated function finds in the shortest way are counted, but told only to
    hooks of their own cache: telling costs more than such a hit.

    Parameters
    ----------
    hook
        called with a `memoleo.Event`, in the thread or task where it happens; it should be quick.
        What it raises is logged, and never reaches the call
    kinds
        the kinds of events, of `KINDS`; `None` for all of them

    Raises
    ------
    ConfigError
        the hook can't be called, or there is no such kind
    """
    if not callable(hook):
        raise ConfigError(f"hook={hook!r} is not callable")
    chosen = frozenset(KINDS if kinds is None else kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise ConfigError(f"kinds: there is no event {kind!r}; known: {', '.join(KINDS)}")
    listening = Listening(hook, chosen)
    with _lock:
        _events.listeners = (*_events.listeners, listening)
    return listening
