"""A content-addressed cache for slow and costly calls.

The same input, asked again, is answered at once: from memory or from a file that processes share.
Every name is imported on first use, so that ``import memoleo`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoleo._cache.cache import Cache
    from memoleo._cache.default import configure, get_cache
    from memoleo._decorators.cached import CachedFunction, content_cached
    from memoleo._decorators.timed import timed, timer
    from memoleo._events import Event
    from memoleo._explaining.explain import Explanation, explain
    from memoleo._mapping.map import amap, map
    from memoleo._retries.retried import retried
    from memoleo._stored import StoredEntry
    from memoleo._switch import bypass, observe, refresh
    from memoleo._verifying.findings import Verified
    from memoleo._verifying.verify import verify
    from memoleo.errors import (
        BackendError,
        CircuitOpenError,
        CodecError,
        ConfigError,
        CorruptEntry,
        KeyingError,
        MemoleoError,
    )
    from memoleo.metrics._metrics import Metrics, get_metrics
    from memoleo.patches._enable import disable, enable, proxy

_HOMES = {
    "BackendError": "errors",
    "Cache": "_cache.cache",
    "CachedFunction": "_decorators.cached",
    "CircuitOpenError": "errors",
    "CodecError": "errors",
    "ConfigError": "errors",
    "CorruptEntry": "errors",
    "Event": "_events",
    "Explanation": "_explaining.explain",
    "KeyingError": "errors",
    "MemoleoError": "errors",
    "Metrics": "metrics._metrics",
    "StoredEntry": "_stored",
    "Verified": "_verifying.findings",
    "amap": "_mapping.map",
    "bypass": "_switch",
    "configure": "_cache.default",
    "content_cached": "_decorators.cached",
    "disable": "patches._enable",
    "enable": "patches._enable",
    "explain": "_explaining.explain",
    "get_cache": "_cache.default",
    "get_metrics": "metrics._metrics",
    "map": "_mapping.map",
    "observe": "_switch",
    "proxy": "patches._enable",
    "refresh": "_switch",
    "retried": "_retries.retried",
    "timed": "_decorators.timed",
    "timer": "_decorators.timed",
    "verify": "_verifying.verify",
}

__all__ = [
    "BackendError",
    "Cache",
    "CachedFunction",
    "CircuitOpenError",
    "CodecError",
    "ConfigError",
    "CorruptEntry",
    "Event",
    "Explanation",
    "KeyingError",
    "MemoleoError",
    "Metrics",
    "StoredEntry",
    "Verified",
    "amap",
    "bypass",
    "configure",
    "content_cached",
    "disable",
    "enable",
    "explain",
    "get_cache",
    "get_metrics",
    "map",
    "observe",
    "proxy",
    "refresh",
    "retried",
    "timed",
    "timer",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("memoleo")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
