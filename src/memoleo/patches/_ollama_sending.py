"""How a request gets to the server: retried and limited in time, if that was asked for."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextvars import ContextVar
from typing import Any

from memoleo._retries.retried import retried
from memoleo._units import parse_duration
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._ollama_parts import Part

__all__ = ["BELOW", "Request", "Sending", "being_asked", "make_sending"]

_asking: ContextVar[Any] = ContextVar("memoleo_ollama_asking", default=None)
"""The body of the request that this context is passing on, so that it is answered only once."""

BELOW = "__memoleo_below__"
"""An attribute of functions of ours that stand in for another: themselves, and what it is now."""


def being_asked(body: Any) -> bool:
    """Whether the current context is passing on the request with this very body."""
    return _asking.get() is body


def _takes_anything(original: Any) -> bool:
    """Whether something else may be given to a method in place of the class of its answers.

    That is so for the client's own code, which only calls it. Somebody else's patch may look at
    it.
    """
    while True:
        own, below = getattr(original, BELOW, (None, None))
        if own is not original or below is None:
            break
        original = below()
    module = sys.modules.get("ollama._client")
    return module is not None and getattr(original, "__globals__", None) is vars(module)


class Request:
    """A call of a client's method, as it came in.

    Parameters
    ----------
    original
        the method that is stood in for; it takes the client first
    client, args, kwargs
        what it was called with
    """

    __slots__ = ("args", "client", "failed", "kwargs", "original", "sent")

    def __init__(self, original: Any, client: Any, args: Any, kwargs: Any) -> None:
        self.original = original
        self.client = client
        self.args = args
        self.kwargs = kwargs
        # Not the error: its traceback holds this call, and a circle would keep both.
        self.failed = False
        self.sent: tuple[Any, Part] | None = None

    def sent_for(self, answer: Any) -> Part | None:
        """Return what the server sent for the answer that came last."""
        sent = self.sent
        return sent[1] if sent is not None and sent[0] is answer else None

    def start(self, kwargs: Mapping[str, Any]) -> Any:
        """Call the method: it returns the answer, an iterator, or what is awaited for one."""
        token = _asking.set(kwargs["json"])
        try:
            return self.original(self.client, *self._arguments(), **kwargs)
        finally:
            _asking.reset(token)

    async def astart(self, kwargs: Mapping[str, Any]) -> Any:
        """Do what `start` does, and await it."""
        token = _asking.set(kwargs["json"])
        try:
            return await self.original(self.client, *self._arguments(), **kwargs)
        finally:
            _asking.reset(token)

    def _arguments(self) -> tuple[Any, ...]:
        """Return what the method is given: a class of answers, made to note what it gets."""
        if not _takes_anything(self.original):
            return tuple(self.args)
        made = self.args[0]

        def noting(**fields: Any) -> Any:
            answer = made(**fields)
            self.sent = (answer, fields)
            return answer

        return (noting, *self.args[1:])


def _send(request: Request, kwargs: Mapping[str, Any]) -> Any:
    return request.start(kwargs)


async def _asend(request: Request, kwargs: Mapping[str, Any]) -> Any:
    return await request.astart(kwargs)


def _stream(request: Request, kwargs: Mapping[str, Any]) -> Generator[Any, None, None]:
    source = request.start(kwargs)
    try:
        yield from source
    finally:
        source.close()


async def _abegin(request: Request, kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """Return the first part of an answer, if there is any, and a generator of those after it."""
    source = await request.astart(kwargs)
    try:
        return [await source.__anext__()], source
    except StopAsyncIteration:
        return [], source


for _function in (_send, _asend, _stream, _abegin):
    # The operation under which further attempts are counted.
    _function.__qualname__ = "ollama"


class Sending:
    """Sends requests.

    Parameters
    ----------
    retry
        decorates what sends; `None` to send once
    timeout
        seconds to wait for a connection, and for each piece of the answer; `None` to leave that
        to the client
    """

    def __init__(
        self,
        retry: Callable[[Any], Any] | None = None,
        timeout: tuple[float, float] | None = None,
    ) -> None:
        def plain(function: Any) -> Any:
            return function

        around = plain if retry is None else retry
        self.active = retry is not None or timeout is not None
        self._timeout = timeout
        self._send = around(_send)
        self._asend = around(_asend)
        self._stream = around(_stream)
        self._abegin = around(_abegin)

    def send(self, request: Request, kwargs: Mapping[str, Any]) -> Any:
        """Return the answer to a request.

        Parameters
        ----------
        request
            the call
        kwargs
            the keywords to make it with
        """
        try:
            return self._send(request, self._limited(request, kwargs))
        except BaseException:
            request.failed = True
            raise

    async def asend(self, request: Request, kwargs: Mapping[str, Any]) -> Any:
        """Do what `send` does."""
        try:
            return await self._asend(request, self._limited(request, kwargs))
        except BaseException:
            request.failed = True
            raise

    def stream(self, request: Request, kwargs: Mapping[str, Any]) -> Generator[Any, None, None]:
        """Yield the parts of an answer; it is retried until the first of them."""
        source = self._stream(request, self._limited(request, kwargs))
        try:
            yield from source
        except Exception:
            request.failed = True
            raise
        finally:
            source.close()

    async def astream(
        self, request: Request, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Do what `stream` does."""
        source = None
        try:
            first, source = await self._abegin(request, self._limited(request, kwargs))
            for part in first:
                yield part
            async for part in source:
                yield part
        except Exception:
            request.failed = True
            raise
        finally:
            if source is not None:
                await source.aclose()

    def _limited(self, request: Request, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return keywords with a timeout, unless the client has one of its own."""
        if self._timeout is None or "timeout" in kwargs:
            return kwargs
        try:
            own = request.client._client.timeout
            if any(each is not None for each in own.as_dict().values()):
                return kwargs
            connect, read = self._timeout
            return {**kwargs, "timeout": type(own)(read, connect=connect)}
        except Exception:
            # A client that isn't httpx's: it has its own idea of time.
            return kwargs


def make_sending(retries: Any, timeout: Any, settings: Settings) -> Sending:
    """Return what sends requests the way a user asked for.

    Parameters
    ----------
    retries
        true, how many attempts, or the keywords of `retried`; `None` takes the config's
    timeout
        true, a duration, or one to connect and one to read; `None` takes the config's
    settings
        for the sections ``ollama`` and ``networking``

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    retries = settings.ollama.retries if retries is None else retries
    timeout = settings.ollama.timeout if timeout is None else timeout
    return Sending(_retry(retries, settings), _seconds(timeout, settings))


def _retry(given: Any, settings: Settings) -> Callable[[Any], Any] | None:
    if given is False:
        return None
    networking = settings.networking
    keywords: dict[str, Any] = {
        "attempts": networking.retry_attempts,
        "backoff_ms": networking.retry_backoff_ms,
    }
    if isinstance(given, Mapping):
        keywords.update(given)
    elif given is not True:
        keywords["attempts"] = given
    try:
        decorator: Callable[[Any], Any] = retried(**keywords)
    except TypeError:
        raise ConfigError(
            f"retries={given!r}: give True, a number of attempts, or the keywords of retried, "
            'such as {"attempts": 5, "deadline": "60s"}'
        ) from None
    except ConfigError as error:
        raise ConfigError(f"retries={given!r}: {error}") from None
    return decorator


def _seconds(given: Any, settings: Settings) -> tuple[float, float] | None:
    if given is False or given is None:
        return None
    networking = settings.networking
    if given is True:
        return networking.timeout_connect, networking.timeout_read
    pair = given if isinstance(given, (tuple, list)) else (given, given)
    try:
        connect, read = (parse_duration(each, "timeout") for each in pair)
    except (ConfigError, ValueError) as error:
        raise ConfigError(
            f'timeout={given!r}: give True, a duration such as "60s", or two, to connect and to '
            f"read ({error})"
        ) from None
    if not connect or not read:
        raise ConfigError(f"timeout={given!r}: nothing is ready in no time; give more than 0")
    return connect, read
