"""``memoleo metrics``."""

from __future__ import annotations

from typing import Any

import click

from memoleo._cache.cache import Cache
from memoleo._health import NOT_KEPT
from memoleo.cli._common import (
    agreed,
    cache_option,
    console,
    json_option,
    keeps_numbers,
    open_cache,
    print_json,
    say_what_is_not_kept,
)
from memoleo.cli._numbers import operations_table, savings_table, types_table
from memoleo.metrics._report import clear_metrics, read_metrics, read_savings
from memoleo.metrics._totals import RESERVED

__all__ = ["command"]


@click.command(
    "metrics",
    short_help="Latencies, hits and savings of all programs.",
    epilog="Example: memoleo metrics --last 1h",
)
@click.option("--since", metavar="TIME", help='From then on: "today", "week", a date, a time.')
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("--last", metavar="DURATION", help='The last such time, as "1h" or "7d".')
@click.option("--step", metavar="LENGTH", help='With --json: also by "minute", "hour" or "day".')
@click.option("--savings", is_flag=True, help="What was saved today, this week and ever.")
@click.option("--forget", is_flag=True, help="Remove all that is kept of these numbers.")
@click.option("--yes", "-y", is_flag=True, help="With --forget: don't ask.")
@cache_option
@json_option
def command(
    since: str | None,
    until: str | None,
    last: str | None,
    step: str | None,
    savings: bool,
    forget: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Show latencies, errors, hits and savings of all programs that use a cache."""
    if since is not None and last is not None:
        raise click.UsageError("--since and --last both say where to begin: give one of them.")
    if savings and (since or until or last or step):
        raise click.UsageError("--savings stands alone: it has its own times.")
    if step is not None and not as_json:
        raise click.UsageError("--step is for --json.")
    if forget and (since or until or last or step or savings):
        raise click.UsageError("--forget stands alone: what is kept is forgotten whole.")
    with open_cache(url) as cache:
        if forget:
            return _forget(cache, yes, as_json)
        say_what_is_not_kept(cache)
        if savings:
            periods = read_savings(cache)
            if as_json:
                print_json(periods)
            else:
                console().print(savings_table(periods))
            return 0
        metrics = read_metrics(cache, since=since or last, until=until, step=step)
        if as_json:
            print_json(metrics if step else metrics["stats"])
            return 0
        _print(metrics["stats"], read_savings(cache) if not (since or last or until) else None)
    return 0


def _forget(cache: Cache, yes: bool, as_json: bool) -> int:
    if not keeps_numbers(cache):
        raise click.ClickException(f"There is nothing to forget: {NOT_KEPT.message}.")
    agrees = yes or agreed("Remove the numbers of all programs that use this cache?")
    if agrees:
        clear_metrics(cache)
    if as_json:
        print_json({"forgotten": agrees})
    else:
        click.echo("All numbers are forgotten." if agrees else "Nothing was forgotten.")
    return 0 if agrees else 1


def _print(stats: dict[str, Any], periods: dict[str, Any] | None) -> None:
    out = console()
    if len(stats) == 1 and not stats[RESERVED]:
        out.print("Nothing was counted in this time.")
        return
    if len(stats) > 1:
        out.print(operations_table(stats))
    if stats[RESERVED]:
        out.print(types_table(stats))
    if periods is not None:
        out.print(savings_table(periods))
