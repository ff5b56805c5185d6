"""The settings in force: read once, on first use."""

from __future__ import annotations

import threading

from memoleo.config import Settings, load_settings

__all__ = ["current", "default_url", "use"]

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


def default_url() -> str:
    """Return the URL of the default cache: the settings', else a file in the user's cache folder.

    Raises
    ------
    ConfigError
        the settings can't be read
    """
    url = current().cache_url
    if url is not None:
        return url
    from urllib.parse import quote

    import platformdirs

    path = platformdirs.user_cache_path("memoleo") / "cache.db"
    return f"sqlite:///{quote(path.as_posix())}"
