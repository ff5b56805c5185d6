"""The client that a program shares."""

from __future__ import annotations

from memoleo._platform.forks import RenewedLock
from memoleo.http._client import AsyncNetworkClient

__all__ = ["get_async_client"]

_lock = RenewedLock()
_client: AsyncNetworkClient | None = None


def get_async_client() -> AsyncNetworkClient:
    """Return the client that the whole program shares, with the settings of ``[networking]``.

    It keeps one pool of connections per event loop and closes it with the loop, so nobody has to
    close it. If somebody has, the next call returns a new one.
    """
    global _client
    with _lock:
        if _client is None or _client.is_closed:
            _client = AsyncNetworkClient()
        return _client
