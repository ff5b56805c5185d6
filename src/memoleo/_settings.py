"""The settings in force: read once, on first use."""

from __future__ import annotations

import threading

from memoleo.config import Settings, load_settings

__all__ = ["current", "use"]

_lock = threading.Lock()
_current: Settings | None = None


def current() -> Settings:
    """Return the settings of this process.

    Raises
    ------
    ConfigError
        the file or the environment has a value that can't be used
    """
    global _current
    if _current is None:
        with _lock:
            if _current is None:
                _current = load_settings()
    return _current


def use(settings: Settings | None) -> Settings | None:
    """Put other settings in force, and return those before.

    `None` stands for settings that are read on their next use.
    """
    global _current
    before, _current = _current, settings
    return before
