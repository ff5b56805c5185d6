"""The head of a retried call: whether to try again, and when.

A generator that yields steps and is sent what came of them. It reads no clock, never sleeps and
knows neither threads nor tasks; `memoleo._retries.attempts` has the hands.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, count, repeat
from math import inf
from typing import Any, NamedTuple, cast

from memoleo._retries.rules import host_of, match_errors, retry_after
from memoleo._units import Duration, parse_duration
from memoleo.errors import ConfigError

__all__ = [
    "Backoff",
    "Failure",
    "Retry",
    "RetryPolicy",
    "Stop",
    "Take",
    "make_policy",
    "retrying",
]

_LONGEST = 365 * 86400.0
"""Seconds that anybody waits at most: past some such number clocks and calendars give out."""

Backoff = float | Iterable[float] | Callable[[], Iterable[Any]]
"""Milliseconds: the same each time, one after the other, or a wait generator of `backoff`."""


class RetryPolicy(NamedTuple):
    """The frozen settings of one `retried`.

    Parameters
    ----------
    applies, gives_up
        predicates of an error
    attempts
        how often to call at most, the first time included
    waits
        starts the waits of one call, in seconds
    jitter
        spread each wait over the whole range from zero
    deadline
        seconds from the start of the first attempt after which none starts any more
    """

    applies: Callable[[Exception], bool]
    gives_up: Callable[[Exception], bool] | None
    attempts: int
    waits: Callable[[], Iterator[float]]
    jitter: bool
    deadline: float


class Failure(NamedTuple):
    """A failed attempt.

    Parameters
    ----------
    error
        what it raised
    elapsed
        seconds since the start of the first attempt
    now
        seconds since the epoch
    handled
        a retried function further in has already given up on this error
    """

    error: Exception
    elapsed: float
    now: float
    handled: bool


class Stop(NamedTuple):
    """The last failure is to be raised.

    Parameters
    ----------
    gave_up
        it is an error that would have been tried again
    note
        what to add to the error's notes
    """

    gave_up: bool
    note: str | None = None


class Take(NamedTuple):
    """Take a token from a host's budget of retries. Answer: whether there was one."""

    host: str


class Retry(NamedTuple):
    """Call again. Answer: the next `Failure`, if there is one.

    Parameters
    ----------
    wait
        seconds to wait before that
    host
        whose budget it comes from; `None` if no host is known
    """

    wait: float
    host: str | None = None


def retrying(policy: RetryPolicy) -> Generator[Take | Retry, Any, Stop]:
    """Return the decisions of one call: a `Retry` for each failure, at last a `Stop`.

    What it yields first has no meaning.
    """
    step = Retry(0.0)
    waits = policy.waits()
    for attempt in count(1):
        # The failure is held nowhere here: it would keep the caller's frames alive in a cycle.
        answer = _decide(policy, attempt, waits, (yield step))
        if isinstance(answer, Stop):
            return answer
        step = answer
        if answer.host is not None and not (yield Take(answer.host)):
            return Stop(
                gave_up=True,
                note=f"{_times(attempt)}; the budget of retries for {answer.host} is used up",
            )
    raise AssertionError


def _times(attempt: int) -> str:
    return f"{attempt} attempt{'s' * (attempt > 1)}"


def _decide(
    policy: RetryPolicy, attempt: int, waits: Iterator[float], failure: Failure
) -> Retry | Stop:
    error = failure.error
    if failure.handled:
        return Stop(gave_up=True)
    if not policy.applies(error):
        return Stop(gave_up=False)
    tried = f"{_times(attempt)} in {failure.elapsed:.3g} s"
    if policy.gives_up is not None and policy.gives_up(error):
        return Stop(gave_up=True, note=f"{tried}, then give_up said to stop")
    if attempt >= policy.attempts:
        return Stop(gave_up=True, note=tried)
    wait = next(waits)
    if policy.jitter:
        from backoff import full_jitter

        wait = full_jitter(wait)
    asked = retry_after(error, failure.now)
    if asked is not None:
        wait = max(wait, asked)
    if wait > _LONGEST or failure.elapsed + wait > policy.deadline:
        why = "the server asks for" if asked == wait else "the next wait is"
        past = "which nobody waits"
        if policy.deadline < inf:
            past = f"past the deadline of {policy.deadline:.3g} s"
        return Stop(gave_up=True, note=f"{tried}; {why} {wait:.3g} s, {past}")
    return Retry(wait, host_of(error))


def make_policy(
    on: Any,
    attempts: int,
    backoff_ms: Backoff,
    jitter: bool,
    give_up: Any,
    deadline: Duration | None,
) -> RetryPolicy:
    """Check what a user gave, and freeze it.

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    if type(attempts) is not int or attempts < 1:
        raise ConfigError(f"attempts={attempts!r}: give a whole number, 1 or more")
    if type(jitter) is not bool:
        raise ConfigError(f"jitter={jitter!r}: give True or False")
    return RetryPolicy(
        applies=match_errors(on, "on"),
        gives_up=None if give_up is None else match_errors(give_up, "give_up"),
        attempts=attempts,
        waits=_waits(backoff_ms),
        jitter=jitter,
        deadline=inf if deadline is None else parse_duration(deadline, "deadline"),
    )


def _waits(backoff_ms: Any) -> Callable[[], Iterator[float]]:
    if callable(backoff_ms):
        start = cast("Callable[[], Iterable[Any]]", backoff_ms)
        return lambda: _seconds(iter(start()))
    try:
        given = [backoff_ms] if isinstance(backoff_ms, (int, float)) else list(backoff_ms)
    except TypeError:
        given = []
    if not given or not all(
        isinstance(ms, (int, float)) and not isinstance(ms, bool) and 0 <= ms < inf for ms in given
    ):
        raise ConfigError(
            f"backoff_ms={backoff_ms!r}: give milliseconds, a sequence of them such as "
            "(100, 300, 900), or a function that returns one of backoff's wait generators"
        )

    def waits() -> Iterator[float]:
        from backoff import constant

        return _seconds(constant(chain(given, repeat(given[-1]))))

    return waits


def _seconds(milliseconds: Iterator[Any]) -> Iterator[float]:
    last = 0.0
    for ms in milliseconds:
        # The generators of `backoff` yield None before their first wait.
        if ms is not None:
            # What a function of the user's computes may be less than nothing, or no number at all.
            last = max(0.0, ms / 1000)
            yield last
    yield from repeat(last)
