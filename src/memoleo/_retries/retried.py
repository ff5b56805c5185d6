"""Retries of functions that call over a network."""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any, Protocol, TypeVar, overload

from memoleo._functions.decorating import aforward, decorate, default_name, resume
from memoleo._retries.attempts import Attempts, Tally
from memoleo._retries.flow import Backoff, RetryPolicy, make_policy
from memoleo._retries.rules import ErrorRule, is_transient
from memoleo._units import Duration
from memoleo.errors import ConfigError
from memoleo.metrics._metrics import RESERVED

__all__ = ["RetriedDecorator", "retried"]

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any] | staticmethod[..., Any]")


class RetriedDecorator(Protocol):
    """What `retried(…)` returns: it gives a function back with its type unchanged."""

    def __call__(self, func: F, /) -> F:
        """Decorate a function."""
        ...


@overload
def retried(
    on: type[Exception] | tuple[type[Exception], ...],
    /,
    *,
    attempts: int = 3,
    backoff_ms: Backoff = (100, 300, 900),
    jitter: bool = True,
    give_up: ErrorRule | None = None,
    deadline: Duration | None = None,
) -> RetriedDecorator: ...
@overload
def retried(
    *,
    on: ErrorRule = is_transient,
    attempts: int = 3,
    backoff_ms: Backoff = (100, 300, 900),
    jitter: bool = True,
    give_up: ErrorRule | None = None,
    deadline: Duration | None = None,
) -> RetriedDecorator: ...
@overload
def retried(func: F, /) -> F: ...
def retried(
    func: Any = None,
    /,
    *,
    on: Any = is_transient,
    attempts: int = 3,
    backoff_ms: Any = (100, 300, 900),
    jitter: bool = True,
    give_up: Any = None,
    deadline: Duration | None = None,
) -> Any:
    """Call again when a call fails in a way that may pass.

    The last error is raised as it is, with the number of attempts in its notes. Cancellation is
    never retried, and ends a wait. A generator is started again only while it has yielded
    nothing. A coroutine that a plain function returns, such as a lambda, is retried when it is
    awaited; a future, or any other object, is an answer as it is. If a retried function calls
    another one, an error that the inner one has given up on passes through the outer one, so that
    attempts don't multiply.

    Parameters
    ----------
    on
        exception classes, or by keyword a predicate of the error. Left out: connection errors,
        timeouts, and HTTP 408, 425, 429, 500, 502, 503 and 504 of the standard library, httpx,
        requests, aiohttp, urllib3 and ollama. Classes never cover 400, 401, 403 and 404, bad
        certificates, or a 500 whose body says that it will come again; a predicate decides alone
    attempts
        how often to call at most, the first time included
    backoff_ms
        milliseconds to wait: a number, one after the other (the last one repeats), or a function
        that returns one of `backoff`'s wait generators
    jitter
        wait a random part of that ("full jitter"), so that clients don't come back together
    give_up
        exception classes or a predicate: what not to retry, although `on` covers it
    deadline
        no attempt starts later than this after the first one; seconds, a `timedelta`, or text
        such as "30s". A call that runs is not interrupted. A server's ``Retry-After`` is never
        shortened: if it asks for more than is left, the call fails at once

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    is_rule = isinstance(func, tuple) or (
        isinstance(func, type) and issubclass(func, BaseException)
    )
    if is_rule and on is not is_transient:
        raise ConfigError(f"retried({func!r}, on={on!r}): give the errors once")
    policy = make_policy(func if is_rule else on, attempts, backoff_ms, jitter, give_up, deadline)
    if func is None or is_rule:
        return lambda target: _decorate(target, policy)
    return _decorate(func, policy)


def _decorate(func: Any, policy: RetryPolicy) -> Any:
    name = default_name(func)
    if name == RESERVED:
        name = f"{func.__module__}.{name}"
    tally = Tally(name, getattr(func, "__memoleo_operation__", None))
    makers = {
        "sync": lambda target: _sync(target, policy, tally),
        "async": lambda target: _async(target, policy, tally),
        "generator": lambda target: _generator(target, policy, tally),
        "async generator": lambda target: _async_generator(target, policy, tally),
    }
    return decorate(func, "retried", makers, __memoleo_tally__=tally)


def _sync(func: Callable[..., Any], policy: RetryPolicy, tally: Tally) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Attempts(policy, tally)
        while True:
            call.begin()
            try:
                result = func(*args, **kwargs)
                if type(result) is CoroutineType:
                    # No coroutine function, but as good as one: a lambda that calls one, say.
                    again = _async(_Begun(func, result), policy, tally, call)(*args, **kwargs)
                    again.__name__, again.__qualname__ = result.__name__, result.__qualname__
                    return again
                if call.taken:
                    call.succeeded()
                return result
            except Exception as error:
                if (seconds := call.wait(error)) is None:
                    raise
            finally:
                call.end()
            call.pausing.pause(seconds)

    return wrapper


class _Begun:
    """A function whose first call was made already. Its coroutine is closed if nobody takes it."""

    def __init__(self, func: Callable[..., Any], coroutine: CoroutineType[Any, Any, Any]) -> None:
        self._func = func
        self._coroutine: CoroutineType[Any, Any, Any] | None = coroutine

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        coroutine, self._coroutine = self._coroutine, None
        return self._func(*args, **kwargs) if coroutine is None else coroutine

    def __del__(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()


def _async(
    func: Callable[..., Any], policy: RetryPolicy, tally: Tally, begun: Attempts | None = None
) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Attempts(policy, tally) if begun is None else begun.resumed()
        while True:
            call.begin()
            try:
                result = await func(*args, **kwargs)
                if call.taken:
                    call.succeeded()
                return result
            except Exception as error:
                if (seconds := call.wait(error)) is None:
                    raise
            finally:
                call.end()
            await call.pausing.apause(seconds)

    return wrapper


def _generator(func: Callable[..., Any], policy: RetryPolicy, tally: Tally) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Attempts(policy, tally)
        while True:
            call.begin()
            try:
                source = iter(func(*args, **kwargs))
                item = next(source)
                break
            except StopIteration as stop:
                return stop.value
            except Exception as error:
                if (seconds := call.wait(error)) is None:
                    raise
            finally:
                call.end()
            call.pausing.pause(seconds)
        call.succeeded()
        return (yield from resume(source, item))

    return wrapper


def _async_generator(
    func: Callable[..., Any], policy: RetryPolicy, tally: Tally
) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Attempts(policy, tally)
        while True:
            call.begin()
            try:
                source = func(*args, **kwargs)
                item = await source.__anext__()
                break
            except StopAsyncIteration:
                return
            except Exception as error:
                if (seconds := call.wait(error)) is None:
                    raise
            finally:
                call.end()
            await call.pausing.apause(seconds)
        call.succeeded()
        while True:
            sent = thrown = None
            try:
                sent = yield item
            except BaseException as error:
                thrown = error
            try:
                item = await aforward(source, sent, thrown)
            except StopAsyncIteration:
                return

    return wrapper
