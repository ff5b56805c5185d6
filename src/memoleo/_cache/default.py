"""Which cache is used when none is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memoleo import _switch
from memoleo._cache.cache import Cache
from memoleo._events import Hook
from memoleo._platform.forks import RenewedLock
from memoleo._units import Duration
from memoleo.config import _settings
from memoleo.config._load import load_settings
from memoleo.config._settings import default_url

__all__ = ["configure", "default_url", "get_cache"]

_lock = RenewedLock()
current: Cache | None = None


def get_cache() -> Cache:
    """Return the default cache; the first use opens it.

    Raises
    ------
    ConfigError
        the settings can't be read
    """
    global current
    if current is None:
        with _lock:
            if current is None:
                current = Cache(default_url())
    return current


def configure(
    cache: Cache | str | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    enabled: bool | None = None,
    ttl: Duration | None = None,
    types: Mapping[str, Duration] | None = None,
    hooks: Sequence[Hook] = (),
    clock: Callable[[], float] | None = None,
) -> Cache:
    """Set the default cache, for every function that names none, already decorated ones included.

    Called without arguments it goes back to what the settings say.

    Parameters
    ----------
    cache
        a `Cache`, or the URL of one; `None` takes the settings'
    config
        a settings file to read instead of the one that would be found
    enabled
        whether anything is cached at all; `None` takes the settings'
    ttl, types, hooks, clock
        as for `Cache`; only where no `Cache` is given

    Returns
    -------
    Cache
        the new default cache. The one before is not closed: others may hold it

    Raises
    ------
    ConfigError
        an argument or the settings are wrong
    """
    global current
    _settings.use(None if config is None else load_settings(config))
    _switch.turn(enabled)
    if not isinstance(cache, Cache):
        options: dict[str, Any] = {} if clock is None else {"clock": clock}
        cache = Cache(cache or default_url(), ttl=ttl, types=types, hooks=hooks, **options)
    current = cache
    return cache
