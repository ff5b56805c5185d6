"""What the programs of one cache did, merged: in all, over time, and what it saved."""

from __future__ import annotations

import time
from math import inf
from typing import Any

from memoleo.backends._urls import open_backend
from memoleo.config import _settings
from memoleo.errors import ConfigError
from memoleo.metrics._keeper import keeper
from memoleo.metrics._ledger import Ledger, ledger_at, place_of
from memoleo.metrics._savings import savings_of
from memoleo.metrics._spans import Place
from memoleo.metrics._totals import Totals
from memoleo.metrics._when import Step, When, parse_step, parse_when

__all__ = ["PERIODS", "clear_metrics", "read_metrics", "read_savings", "read_totals"]

PERIODS = ("today", "week", "ever")
"""What `read_savings` tells apart: since midnight, since Monday, and since the beginning; UTC."""


def read_metrics(
    cache: Any = None,
    *,
    since: When | None = None,
    until: When | None = None,
    step: Step | None = None,
) -> dict[str, Any]:
    """Return what all programs that use a cache did, as plain data.

    What this process counted is included up to this moment, what others counted up to their last
    flush. A cache in memory knows of this process only.

    Parameters
    ----------
    cache
        a `memoleo.Cache`, the URL of one, or `None` for the default cache
    since, until
        the stretch of time: seconds since the epoch, a `datetime`, how long ago ("1h"), a date,
        "today", "yesterday", "week" (Monday) or "month". `since` is rounded down to what is told
        apart at its age: minutes in the last hours, then hours, days after two months. All of
        it is UTC
    step
        the length of a part of the series, "minute", "hour", "day" or whole minutes in seconds;
        `None` for no series

    Returns
    -------
    dict
        ``stats``
            the shape of `Metrics.get_stats`
        ``savings``
            ``{"total": {…}, "types": {type: {…}}, "currency": label}``, each with ``runs``,
            ``runs_shared``, ``ms``, ``tokens``, ``kwh`` and ``money``; `None` where no price is
            configured
        ``series``
            a list of ``{"start", "span", "stats", "savings"}``, oldest first: seconds since the
            epoch, seconds, and the same shapes. Parts in which nothing happened are left out, and
            parts of which only a longer stretch is known have that one's span
        ``since``, ``until``
            what the stretch turned out to be, in seconds since the epoch; `None` for no bound
        ``first``, ``last``
            when the first part begins and the last one ends; `None` if nothing happened

    Raises
    ------
    ConfigError
        an argument is wrong
    BackendError
        the metrics can't be read
    """
    now = time.time()
    start = -inf if since is None else parse_when(since, now, "since")
    end = inf if until is None else parse_when(until, now, "until")
    length = None if step is None else parse_step(step)
    prices = _settings.current().savings
    found = _read(cache, start, end)
    whole = Totals()
    for _, totals in found:
        whole.merge(totals)
    series = [] if length is None else _series(found, length)
    return {
        "stats": whole.stats(),
        "savings": savings_of(whole, prices),
        "series": [
            {
                "start": place.start,
                "span": place.span,
                "stats": totals.stats(),
                "savings": savings_of(totals, prices),
            }
            for place, totals in series
        ],
        "since": None if start == -inf else start,
        "until": None if end == inf else end,
        "first": min((place.start for place, _ in found), default=None),
        "last": max((place.start + place.span for place, _ in found), default=None),
    }


def read_savings(cache: Any = None) -> dict[str, Any]:
    """Return what a cache saved ``today``, this ``week`` and ``ever``.

    Parameters
    ----------
    cache
        as for `read_metrics`

    Returns
    -------
    dict
        ``{period: {"total": {…}, "types": {type: {…}}, "currency": label}}``; see `read_metrics`

    Raises
    ------
    ConfigError, BackendError
        as for `read_metrics`
    """
    now = time.time()
    prices = _settings.current().savings
    found = _read(cache, -inf, inf)
    periods = {}
    for period in PERIODS:
        since = parse_when(period, now, "period")
        totals = Totals()
        for place, part in found:
            if place.start + place.span > since:
                totals.merge(part)
        periods[period] = savings_of(totals, prices)
    return periods


def read_totals(cache: Any = None) -> Totals:
    """Return all that was ever counted, with whole distributions instead of some quantiles.

    Parameters
    ----------
    cache
        as for `read_metrics`

    Raises
    ------
    ConfigError, BackendError
        as for `read_metrics`
    """
    whole = Totals()
    for _, totals in _read(cache, -inf, inf):
        whole.merge(totals)
    return whole


def clear_metrics(cache: Any = None) -> None:
    """Forget what is kept of a cache's programs, other processes' numbers included.

    What `memoleo.get_metrics` shows of this process stays; its `reset` forgets that.

    Parameters
    ----------
    cache
        as for `read_metrics`

    Raises
    ------
    ConfigError
        the URL is wrong
    BackendError
        the metrics can't be removed
    """
    keeper.collect()
    _ledger_of(cache).clear()


def _read(cache: Any, since: float, until: float) -> list[tuple[Place, Totals]]:
    ledger = _ledger_of(cache)
    keeper.collect()
    return ledger.read(since, until)


def _ledger_of(cache: Any) -> Ledger:
    ledger = getattr(getattr(cache, "calls", None), "ledger", None)
    if isinstance(ledger, Ledger):
        return ledger
    if cache is not None and not isinstance(cache, str):
        raise ConfigError(f"{cache!r} is neither a memoleo.Cache nor the URL of one")
    return ledger_at(place_of(open_backend(cache or _settings.default_url())))


def _series(found: list[tuple[Place, Totals]], length: int) -> list[tuple[Place, Totals]]:
    parts: dict[Place, Totals] = {}
    for place, totals in found:
        if place.span < length:
            place = Place(place.start - place.start % length, length)
        parts.setdefault(place, Totals()).merge(totals)
    return sorted(parts.items(), key=lambda part: part[0])
