"""One function over many inputs: which call comes next, and what becomes of its outcome.

`Mapping` decides, and knows neither threads nor tasks; `run` and `arun` are its hands: so many
workers, each of which takes the next call as soon as it has finished one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sized
from typing import Any, NamedTuple

from memoleo._events import extras, logger
from memoleo._platform.locks import Lock
from memoleo._platform.notes import add_note
from memoleo.errors import ConfigError

__all__ = ["Mapping", "Misused", "Work", "arun", "run"]

Told = Callable[[int, "int | None"], None]
"""Is told how many inputs are done, and how many there are if that is known."""


class Misused(ConfigError):
    """The function can't be called in this way, with any input."""


class Work(NamedTuple):
    """One call to make: for the inputs at these positions, which all have the same key."""

    input: Any
    positions: list[int]


class Mapping:
    """The calls for some inputs, each key once, and their results in the order of the inputs.

    Inputs are taken one at a time, as workers come free. Safe from any thread.

    Parameters
    ----------
    inputs
        what to call the function with
    key
        returns what is equal for inputs that have one result; `None` if an input has none
    stop
        make no further call after one has failed
    told
        called after each call; what it raises is logged once, and it is called no more
    """

    def __init__(
        self,
        inputs: Iterable[Any],
        key: Callable[[Any], Hashable | None],
        *,
        stop: bool,
        told: Told | None = None,
    ) -> None:
        self.total = len(inputs) if isinstance(inputs, Sized) else None
        self.failure: BaseException | None = None
        self.results: list[Any] = []
        self.repeated: list[Work] = []
        self._inputs = iter(inputs)
        self._key = key
        self._stop = stop
        self._told = told
        self._works: dict[Hashable, Work] = {}
        self._finished: set[int] = set()
        self._done = 0
        self._ended = False
        # Inputs may wait for what becomes of earlier ones: results need no lock of theirs.
        self._taking = Lock()
        self._lock = Lock()

    def next(self) -> Work | None:
        """Return the next call to make, or `None` if there is no further one."""
        with self._taking:
            while not self._ended:
                try:
                    given = next(self._inputs)
                except StopIteration:
                    self.stop()
                    break
                except BaseException as error:
                    self.stop(error)
                    break
                try:
                    key = self._key(given)
                    hash(key)
                except BaseException as error:
                    self.stop(error)
                    break
                if self._ended:
                    break
                with self._lock:
                    work = self._place(given, key)
                if work is not None:
                    return work
            return None

    def _place(self, given: Any, key: Hashable | None) -> Work | None:
        """Give an input its place in the results, and return the call to make if it is new."""
        position = len(self.results)
        self.results.append(None)
        work = None if key is None else self._works.get(key)
        if work is not None:
            self._repeat(work, position)
            return None
        work = Work(given, [position])
        if key is not None:
            self._works[key] = work
        return work

    def _repeat(self, work: Work, position: int) -> None:
        if len(work.positions) == 1:
            self.repeated.append(work)
        first = work.positions[0]
        work.positions.append(position)
        if first in self._finished:
            self.results[position] = self.results[first]
            self._advance(1)

    def returned(self, work: Work, result: Any) -> None:
        """Note the result of a call."""
        with self._lock:
            self._finish(work, result)

    def raised(self, work: Work, error: BaseException) -> None:
        """Note that a call failed."""
        with self._lock:
            if self._stop or not isinstance(error, Exception) or isinstance(error, Misused):
                if self.failure is None and isinstance(error, Exception):
                    add_note(error, f"input {work.positions[0]} of map: {_short(work.input)}")
                self._fail(error)
            self._finish(work, error)

    def _fail(self, error: BaseException) -> None:
        self._ended = True
        if self.failure is None:
            self.failure = error

    def _finish(self, work: Work, result: Any) -> None:
        for position in work.positions:
            self.results[position] = result
        self._finished.add(work.positions[0])
        self._advance(len(work.positions))

    def _advance(self, by: int) -> None:
        self._done += by
        if self._told is None:
            return
        try:
            self._told(self._done, self.total)
        except Exception:
            self._told = None
            logger.exception("what shows the progress failed", extra=extras("progress_failed"))

    def stop(self, error: BaseException | None = None) -> None:
        """Make no further call, and raise an error in the end if there is one."""
        with self._lock:
            if error is None:
                self._ended = True
            else:
                self._fail(error)

    def close(self) -> list[Any]:
        """Return the results, in the order of the inputs.

        Raises
        ------
        BaseException
            what a call raised, if that ends all, or what the inputs or their keys raised
        """
        if self.failure is not None:
            try:
                raise self.failure
            finally:
                # The traceback leads back here: no cycle that would keep results alive.
                self.failure = None
        return self.results


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:79] + "…"


def run(mapping: Mapping, call: Callable[[Any], Any], concurrency: int) -> list[Any]:
    """Make the calls in so many threads; with one, in the caller's own.

    If it is interrupted, no further call begins, and those that run are waited for.
    """

    def worker() -> None:
        while (work := mapping.next()) is not None:
            try:
                result = call(work.input)
            except BaseException as error:
                mapping.raised(work, error)
            else:
                mapping.returned(work, result)

    concurrency = _workers(mapping, concurrency)
    if concurrency <= 1:
        worker()
        return mapping.close()
    import contextvars
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(concurrency, thread_name_prefix="memoleo-map") as pool:
        try:
            futures = [
                pool.submit(contextvars.copy_context().run, worker) for _ in range(concurrency)
            ]
            for future in futures:
                future.result()
        except BaseException:
            mapping.stop()
            raise
    return mapping.close()


async def arun(
    mapping: Mapping, call: Callable[[Any], Awaitable[Any]], concurrency: int
) -> list[Any]:
    """Make the calls in so many tasks.

    If it is cancelled, so are the calls that run, and it returns when they have ended.
    """
    import asyncio

    async def worker() -> None:
        while (work := mapping.next()) is not None:
            try:
                result = await call(work.input)
            except Exception as error:
                mapping.raised(work, error)
            except BaseException:
                mapping.stop()
                raise
            else:
                mapping.returned(work, result)

    workers = [worker() for _ in range(_workers(mapping, concurrency))]
    ended = await asyncio.gather(*workers, return_exceptions=True)
    for error in ended:
        if error is not None:
            raise error
    return mapping.close()


def _workers(mapping: Mapping, concurrency: int) -> int:
    return concurrency if mapping.total is None else min(concurrency, mapping.total)
