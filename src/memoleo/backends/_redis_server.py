"""The way to a server by Redis' own protocol, through the library ``redis``."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from memoleo.backends._redis_commands import Command
from memoleo.errors import BackendError, ConfigError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise ConfigError('Redis needs a library: pip install "memoleo[redis]"') from error

__all__ = ["RedisServer"]


class RedisServer:
    """Carries commands to a Redis or Valkey server; see `memoleo.backends.redis.Server`.

    Parameters
    ----------
    url
        where it is
    timeout
        seconds to wait for it

    Raises
    ------
    ConfigError
        the URL is wrong
    """

    text = False

    def __init__(self, url: str, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
            # An idle connection may have been closed by the other side: then one more attempt.
            # The pool opens new connections in a child after `fork`.
            self._client: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 1),
                retry_on_error=[redis.ConnectionError],
                decode_responses=False,
            )
        except Exception as error:
            # What the library says might show a password.
            raise ConfigError(f"a Redis URL is not understood: {type(error).__name__}") from None
        # Sockets that nobody closed would be complained about.
        weakref.finalize(self, self._client.close)
        chosen = self._client.connection_pool.connection_kwargs
        host = chosen.get("path") or f"{parts.hostname or 'localhost'}:{port}"
        self.place = f"{parts.scheme}://{host}/{chosen.get('db', 0)}"

    def run(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        """Carry out commands; see `Server.run`."""
        try:
            if len(commands) == 1:
                return [self._client.execute_command(*commands[0])]
            pipeline = self._client.pipeline(transaction=atomic)
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())
        except (redis.RedisError, OSError) as error:
            raise BackendError(f"{self.place}: {error}") from error

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()
