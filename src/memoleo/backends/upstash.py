"""Entries in a Redis of Upstash, by its REST interface: for where no connection may stay open."""

from __future__ import annotations

import base64
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memoleo import _switch
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo._units import parse_duration
from memoleo.backends._redis_commands import Command
from memoleo.backends.redis import RedisBackend
from memoleo.errors import BackendError, ConfigError

if TYPE_CHECKING:
    import httpx

__all__ = ["UpstashBackend"]

TOKEN = "UPSTASH_REDIS_REST_TOKEN"
"""The environment variable that holds the token."""


class UpstashBackend(RedisBackend):
    """Keeps entries in a Redis of Upstash, by HTTP; what it stores a `RedisBackend` reads, too.

    Parameters
    ----------
    url
        ``https://….upstash.io``
    token
        what requests are allowed by; `None` takes the variable ``UPSTASH_REDIS_REST_TOKEN``
    prefix, timeout
        as for `RedisBackend`

    Raises
    ------
    ConfigError
        there is no token, or an argument is wrong
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        prefix: str = "memoleo",
        timeout: float | str = 2.0,
    ) -> None:
        server = _RestServer(url, token, parse_duration(timeout, "timeout"))
        # Every renewal is a request that costs money.
        self._begin(server, prefix, lease=30.0)


class _RestServer:
    """Carries commands by REST: https://upstash.com/docs/redis/features/restapi."""

    text = True

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("an Upstash URL is written as upstash+https://….upstash.io")
        if parts.username or parts.password:
            raise ConfigError(f"an Upstash URL holds no credentials: put the token into {TOKEN}")
        token = os.environ.get(TOKEN, "") if token is None else token
        if not token:
            raise ConfigError(f"Upstash needs a token: set the environment variable {TOKEN}")
        self.place = f"{parts.scheme}://{parts.netloc}"
        self._token = token
        self._timeout = timeout
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._client: httpx.Client | None = None

    def run(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        """Carry out commands; see `Server.run`."""
        import httpx

        body = [[_text(part) for part in command] for command in commands]
        path = "/multi-exec" if atomic else "/pipeline"
        try:
            # It must not be answered from a cache.
            with _switch.bypass():
                answer = self._open().post(self.place + path, json=body)
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise BackendError(f"{self.place}: {error or type(error).__name__}") from error
        try:
            rows = answer.json()
        except ValueError:
            raise BackendError(f"{self.place}: it answered {answer.status_code}") from None
        if isinstance(rows, dict) or answer.status_code != 200:
            reason = rows.get("error") if isinstance(rows, dict) else None
            raise BackendError(f"{self.place}: {reason or f'it answered {answer.status_code}'}")
        if not isinstance(rows, list) or len(rows) != len(commands):
            raise BackendError(f"{self.place}: its answer is not understood")
        return [self._result(row) for row in rows]

    def _result(self, row: Any) -> Any:
        if not isinstance(row, dict) or "result" not in row:
            reason = row.get("error") if isinstance(row, dict) else row
            raise BackendError(f"{self.place}: {reason}")
        try:
            return _bytes(row["result"])
        except ValueError:
            raise BackendError(f"{self.place}: its answer is not understood") from None

    def _open(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                import httpx

                self._client = httpx.Client(
                    timeout=self._timeout,
                    headers={
                        "Authorization": f"Bearer {self._token}",
                        # Blocks are bytes, and JSON has none.
                        "Upstash-Encoding": "base64",
                    },
                )
                # Sockets that nobody closed would be complained about.
                weakref.finalize(self, self._client.close)
            return self._client

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _text(part: Any) -> Any:
    return part.decode() if isinstance(part, bytes) else part


def _bytes(result: Any) -> Any:
    if isinstance(result, str):
        # A status comes as it is.
        return b"OK" if result == "OK" else base64.b64decode(result, validate=True)
    if isinstance(result, list):
        return [_bytes(item) for item in result]
    return result
