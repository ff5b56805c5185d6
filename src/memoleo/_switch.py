"""What the surrounding code asked of every cached call, such as to bypass the cache."""

from __future__ import annotations

import enum
import os
from contextvars import ContextVar
from types import TracebackType

from memoleo.config import _settings

__all__ = [
    "OBSERVED", "Mode", "Switch", "bypass", "enabled", "mode", "observe", "on", "refresh", "turn",
]  # fmt: skip

OBSERVED = "MEMOLEO_RUN_OBSERVED"
"""The environment variable that names the folder where ``memoleo run --observe`` collects."""


class Mode(enum.Enum):
    """How cached calls behave in the current context."""

    SERVE = "serve"
    BYPASS = "bypass"
    REFRESH = "refresh"
    OBSERVE = "observe"
    INSPECT = "inspect"


# The default reaches every thread, which a value that somebody sets doesn't.
mode: ContextVar[Mode] = ContextVar(
    "memoleo_mode", default=Mode.OBSERVE if os.environ.get(OBSERVED) else Mode.SERVE
)


class Switch:
    """A context manager that sets the mode, and restores on leaving what was there before.

    It holds for the current `contextvars` context: other threads and tasks don't notice. One
    instance may be entered many times, also while it is entered.
    """

    def __init__(self, to: Mode) -> None:
        self._to = to

    def __enter__(self) -> None:
        _entered.set((mode.get(), _entered.get()))
        mode.set(self._to)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entered = _entered.get()
        if entered is not None:
            before, outer = entered
            mode.set(before)
            _entered.set(outer)


_Entered = tuple[Mode, "_Entered | None"]
_entered: ContextVar[_Entered | None] = ContextVar("memoleo_entered", default=None)


def bypass() -> Switch:
    """Compute every call in this block, and touch no cache."""
    return Switch(Mode.BYPASS)


def refresh() -> Switch:
    """Compute every call in this block, and replace what is stored."""
    return Switch(Mode.REFRESH)


def observe() -> Switch:
    """Compute every call in this block, and count which ones would have been hits.

    Nothing is served and nothing is stored. A call counts as a would-be hit if the cache holds a
    fresh entry for it, or if the same call was already observed within its TTL.
    """
    return Switch(Mode.OBSERVE)


on: bool | None = None
"""Whether anything is cached at all; `None` until the settings were asked."""


def enabled() -> bool:
    """Whether anything is cached at all: what `turn` said last, else the settings.

    Raises
    ------
    ConfigError
        the settings can't be read
    """
    global on
    if on is None:
        on = _settings.current().enabled
    return on


def turn(to: bool | None) -> None:
    """Switch all caching on or off in this process; `None` asks the settings again."""
    global on
    on = to
