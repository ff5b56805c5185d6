"""The hands of a retried call: clocks, budgets, counters, and calls inside of calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from memoleo._events import Event, extras, logger, tell
from memoleo._platform.notes import add_note
from memoleo._retries import pausing
from memoleo._retries.budget import RetryBudget
from memoleo._retries.flow import Failure, Retry, RetryPolicy, Stop, Take, retrying
from memoleo.config import _settings
from memoleo.metrics._metrics import OperationStats, get_metrics

__all__ = ["Attempts", "Tally"]


_MOST = 256


class Tally:
    """Where the retries of one function are counted.

    Parameters
    ----------
    name
        the operation, and what a log line calls it
    operation
        where `timed` counts the function, if it does
    """

    def __init__(self, name: str, operation: OperationStats | None = None) -> None:
        self.name = name
        self.operation = operation

    def count(self) -> None:
        """Count a retry."""
        operation = self.operation or get_metrics().operation(self.name)
        operation.count(retries=1)


class _Attempt:
    """What retried functions further in say to the one around them."""

    __slots__ = ("given_up",)

    def __init__(self) -> None:
        # Several that run at once may give up, and any of their errors may be what is raised.
        self.given_up: deque[BaseException] | None = None

    def note(self, error: BaseException) -> None:
        if self.given_up is None:
            self.given_up = deque(maxlen=_MOST)
        self.given_up.append(error)


_around: ContextVar[_Attempt | None] = ContextVar("memoleo_attempt", default=None)


class Attempts:
    """One call that may be made again: what drivers for functions and coroutines have in common.

    `begin` and `end` stand around each attempt; `wait` says what to do about a failure.
    """

    __slots__ = ("attempt", "head", "outer", "pausing", "policy", "started", "taken", "tally")

    head: Generator[Take | Retry, Any, Stop] | None

    def __init__(self, policy: RetryPolicy, tally: Tally) -> None:
        self.policy = policy
        self.tally = tally
        self.head = None
        self.taken: list[str] = []
        self.outer = _around.get()
        self.pausing = pausing.current()
        self.started = self.pausing.elapsed()

    def resumed(self) -> Attempts:
        """Go on where a coroutine is awaited, which may be later and inside of another call."""
        self.outer = _around.get()
        if self.head is None:
            self.started = self.pausing.elapsed()
        return self

    def begin(self) -> None:
        """Note that an attempt begins."""
        self.attempt = _Attempt()
        _around.set(self.attempt)

    def end(self) -> None:
        """Note that it has ended, in whatever way."""
        # Not by token: a generator may be advanced and closed in different contexts.
        _around.set(self.outer)

    def wait(self, error: Exception) -> float | None:
        """Return how many seconds to wait before the next attempt, or `None`: let it raise."""
        if self.head is None:
            self.head = retrying(self.policy)
            next(self.head)
        final, self.attempt.given_up = self.attempt.given_up or (), None
        handled = any(_stems_from(error, each) for each in final)
        elapsed = self.pausing.elapsed() - self.started
        failure = Failure(error, elapsed, self.pausing.now(), handled)
        try:
            step = self.head.send(failure)
            while isinstance(step, Take):
                taken = self._budget().take(step.host, self.pausing.elapsed())
                if taken:
                    self.taken.append(step.host)
                step = self.head.send(taken)
        except StopIteration as stop:
            self._give_up(error, stop.value, handled)
            return None
        self.tally.count()
        name = self.tally.name
        logger.info(
            "%s failed (%r); next attempt in %.3g s",
            name,
            error,
            step.wait,
            extra=extras("retry", label=name, error=error),
        )
        tell((), Event("retry", label=name, ms=step.wait * 1000, error=error))
        return step.wait

    def succeeded(self) -> None:
        """Give back what its retries took of the budgets."""
        for host in self.taken:
            self._budget().give_back(host, 1, self.pausing.elapsed())

    def _budget(self) -> RetryBudget:
        budget = self.pausing.budget
        # Settings that can't be read are said by whatever needs them; a retry goes on without.
        with suppress(Exception):
            network = _settings.current().networking
            budget.burst = network.retry_budget
            budget.per_second = network.retry_budget_per_second
        return budget

    def _give_up(self, error: Exception, stop: Stop, handled: bool) -> None:
        if stop.gave_up and self.outer is not None:
            self.outer.note(error)
        if stop.note is not None:
            add_note(error, stop.note)
        if handled and self.tally.name not in _warned:
            _warned.add(self.tally.name)
            logger.warning(
                "%s is retried, and so is a function that it calls: only the inner one retries. "
                "Remove one of the two",
                self.tally.name,
                extra=extras("retried_twice", label=self.tally.name),
            )


_warned: set[str] = set()


def _stems_from(error: BaseException, cause: BaseException) -> bool:
    # The answer that a client gave up on is the same, whoever made an error of it.
    answer = getattr(cause, "response", None)
    at: BaseException | None = error
    for _ in range(20):
        if at is None or at is cause:
            break
        if answer is not None and getattr(at, "response", None) is answer:
            return True
        at = at.__cause__ or at.__context__
    return at is cause
