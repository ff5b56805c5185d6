"""Latencies and errors of functions and blocks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

from memoleo._functions.decorating import aforward, decorate, default_name
from memoleo.errors import ConfigError
from memoleo.metrics._metrics import Metrics, OperationStats, get_metrics

__all__ = ["TimedDecorator", "timed", "timer"]

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any] | staticmethod[..., Any]")


class TimedDecorator(Protocol):
    """What `timed("name")` returns: it gives a function back with its type unchanged."""

    def __call__(self, func: F, /) -> F:
        """Decorate a function."""
        ...


@overload
def timed(operation: str | None = None, /, *, metrics: Metrics | None = None) -> TimedDecorator: ...
@overload
def timed(*, operation: str | None, metrics: Metrics | None = None) -> TimedDecorator: ...
@overload
def timed(operation: F, /, *, metrics: Metrics | None = None) -> F: ...
def timed(operation: Any = None, *, metrics: Metrics | None = None) -> Any:
    """Record how long each call takes, and how many fail.

    A call that raises counts as an error, and its latency is kept apart. A call that is stopped
    from outside (a cancelled task, Ctrl-C, a generator that its consumer abandons) counts as
    cancelled, neither as success nor as error. A generator's latency lasts from the first item
    asked for until it is exhausted, its consumer's time included. Where a plain function, such as a
    lambda, returns a coroutine, the call ends there, before the coroutine has run.

    Parameters
    ----------
    operation
        the name to record under; left out, the function's qualified name without its module,
        for example "Scorer.score". Functions with the same name are counted together
    metrics
        where to record; left out, `get_metrics`

    Raises
    ------
    ConfigError
        the name is "cache", which `Metrics.get_stats` uses itself, or this is no function
    """
    if metrics is not None and not isinstance(metrics, Metrics):
        raise ConfigError(f"metrics={metrics!r} is no memoleo.metrics.Metrics")
    if operation is not None and not isinstance(operation, str):
        return _decorate(operation, None, metrics)
    if operation is not None:
        (metrics or get_metrics()).operation(operation)
    return lambda func: _decorate(func, operation, metrics)


def _decorate(func: Any, name: str | None, metrics: Metrics | None) -> Any:
    metrics = metrics or get_metrics()
    clock = metrics.clock
    stats = metrics.operation(default_name(func) if name is None else name)
    tally = getattr(func, "__memoleo_tally__", None)
    if tally is not None:
        tally.operation = stats
    makers = {
        "sync": lambda target: _sync(target, stats, clock),
        "async": lambda target: _async(target, stats, clock),
        "generator": lambda target: _generator(target, stats, clock),
        "async generator": lambda target: _async_generator(target, stats, clock),
    }
    return decorate(func, "timed", makers, __memoleo_operation__=stats)


Clock = Callable[[], float]


def _sync(func: Callable[..., Any], stats: OperationStats, clock: Clock) -> Callable[..., Any]:
    record, ended = stats.succeeded.record, stats.ended

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            ended((clock() - started) * 1000, error)
            raise
        record((clock() - started) * 1000)
        return result

    return wrapper


def _async(func: Callable[..., Any], stats: OperationStats, clock: Clock) -> Callable[..., Any]:
    record, ended = stats.succeeded.record, stats.ended

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            ended((clock() - started) * 1000, error)
            raise
        record((clock() - started) * 1000)
        return result

    return wrapper


def _generator(func: Callable[..., Any], stats: OperationStats, clock: Clock) -> Callable[..., Any]:
    record, ended = stats.succeeded.record, stats.ended

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        try:
            result = yield from func(*args, **kwargs)
        except BaseException as error:
            ended((clock() - started) * 1000, error)
            raise
        record((clock() - started) * 1000)
        return result

    return wrapper


def _async_generator(
    func: Callable[..., Any], stats: OperationStats, clock: Clock
) -> Callable[..., Any]:
    record, ended = stats.succeeded.record, stats.ended

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        try:
            source = func(*args, **kwargs)
            sent = thrown = None
            while True:
                try:
                    item = await aforward(source, sent, thrown)
                except StopAsyncIteration:
                    break
                sent = thrown = None
                try:
                    sent = yield item
                except BaseException as error:
                    thrown = error
        except BaseException as error:
            ended((clock() - started) * 1000, error)
            raise
        record((clock() - started) * 1000)

    return wrapper


class timer:
    """Record how long a block takes, under the name of an operation; sync and async.

    One object may be used again, inside itself, and by many threads and tasks at once. A block
    that raises counts as `timed` counts it.

    Parameters
    ----------
    operation
        the name to record under
    metrics
        where to record; left out, `get_metrics`

    Raises
    ------
    ConfigError
        the name is "cache", which `Metrics.get_stats` uses itself
    """

    def __init__(self, operation: str, *, metrics: Metrics | None = None) -> None:
        metrics = metrics or get_metrics()
        self._clock = metrics.clock
        self._stats = metrics.operation(operation)
        # Each thread and each task has a list of its own, which nobody else touches.
        self._open: dict[object, list[float]] = {}

    def __enter__(self) -> None:
        self._open.setdefault(_here(), []).append(self._clock())

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        ended = self._clock()
        here = _here()
        if here not in self._open:
            # Left by another thread or task than entered, as fixtures of test runners do.
            here = next(reversed(self._open))
        starts = self._open[here]
        ms = (ended - starts.pop()) * 1000
        if not starts:
            del self._open[here]
        if error is None:
            self._stats.succeeded.record(ms)
        else:
            self._stats.ended(ms, error)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.__exit__(kind, error, traceback)


def _here() -> object:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
        if task is not None:
            return task
    return threading.get_ident()
