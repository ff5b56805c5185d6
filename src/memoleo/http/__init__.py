"""An asynchronous HTTP client on httpx: limits per host, retries, caching. Extra: memoleo[http]."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoleo._breaker import BreakerPolicy, Breakers, get_breakers
    from memoleo.http._client import AsyncNetworkClient
    from memoleo.http._shared import get_async_client

_HOMES = {
    "AsyncNetworkClient": "memoleo.http._client",
    "BreakerPolicy": "memoleo._breaker",
    "Breakers": "memoleo._breaker",
    "get_async_client": "memoleo.http._shared",
    "get_breakers": "memoleo._breaker",
}

__all__ = ["AsyncNetworkClient", "BreakerPolicy", "Breakers", "get_async_client", "get_breakers"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
