"""The settings in force: read once, on first use."""

from __future__ import annotations

from memoleo._platform.forks import RenewedLock
from memoleo.config._load import load_settings
from memoleo.config._sections import Settings

__all__ = ["current", "default_url", "in_force", "use"]

_lock = RenewedLock()
in_force: Settings | None = None
"""The settings, once they were asked for."""


def current() -> Settings:
    """Return the settings of this process.

    Raises
    ------
    ConfigError
        the file or the environment has a value that can't be used
    """
    global in_force
    if in_force is None:
        with _lock:
            if in_force is None:
                in_force = load_settings()
    return in_force


def use(settings: Settings | None) -> Settings | None:
    """Put other settings in force, and return those before.

    `None` stands for settings that are read on their next use.
    """
    global in_force
    before, in_force = in_force, settings
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
