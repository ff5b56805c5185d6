"""``memoleo top``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from memoleo._cache.cache import Cache
from memoleo._units import size_text
from memoleo.cli._common import cache_option, console, json_option, open_cache, say_what_is_not_kept
from memoleo.cli._numbers import milliseconds_text, operations_table, types_table
from memoleo.metrics._report import read_metrics
from memoleo.metrics._totals import RESERVED

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["command"]


@click.command(
    "top",
    short_help="Watch hits, latencies and the store, live.",
    epilog="Example: memoleo top --last 15m --every 5",
)
@click.option("--last", default="1h", show_default=True, help="The time to look back.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Look N times, then end.")
@cache_option
@json_option
def command(last: str, every: float, count: int | None, url: str | None, as_json: bool) -> None:
    """Watch hits, latencies and the store, until Ctrl-C.

    Where there is no terminal, and with --json, each look is one line.
    """
    out = console()
    with open_cache(url) as cache:
        say_what_is_not_kept(cache)
        looks = _looks(cache, last, every, count)
        try:
            if out.is_terminal and not as_json:
                from rich.live import Live

                with Live(console=out, screen=count is None, auto_refresh=False) as live:
                    for look in looks:
                        if not out.is_terminal:
                            # It has gone, and nobody has said so by a signal.
                            return
                        live.update(_screen(look, last), refresh=True)
            else:
                for look in looks:
                    line = json.dumps(look, ensure_ascii=False) if as_json else _line(look)
                    click.echo(line)
        except KeyboardInterrupt:
            # The usual way to end it.
            return


def _looks(cache: Cache, last: str, every: float, count: int | None) -> Iterator[dict[str, Any]]:
    pause = threading.Event()
    done = 0
    while True:
        store = cache.get_stats()
        yield {
            "time": time.time(),
            "stats": read_metrics(cache, since=last)["stats"],
            "store": {name: store[name] for name in ("total_entries", "total_bytes", "by_type")},
        }
        done += 1
        if done == count:
            return
        pause.wait(every)


def _line(look: dict[str, Any]) -> str:
    types = look["stats"][RESERVED].values()
    lookups = sum(row["lookups"] for row in types)
    answered = sum(row["hits"] + row["stale"] + row["shared"] for row in types)
    saved = milliseconds_text(sum(row["saved_ms"] for row in types))
    rate = f"{100 * answered / lookups:.1f} %" if lookups else "–"
    errors = sum(row["errors"] for row in types)
    store = look["store"]
    clock = time.strftime("%H:%M:%S", time.localtime(look["time"]))
    return (
        f"{clock}  hit rate {rate}  lookups {lookups:,}  errors {errors:,}  saved {saved}  "
        f"entries {store['total_entries']:,}  {size_text(store['total_bytes'])}"
    )


def _screen(look: dict[str, Any], last: str) -> Group:
    from rich.console import Group
    from rich.text import Text

    head = Text(f"memoleo top, the last {last}\n", style="bold")
    stats = look["stats"]
    tables = [types_table(stats)] if stats[RESERVED] else []
    if len(stats) > 1:
        tables.append(operations_table(stats))
    return Group(head, Text(f"{_line(look)}\n"), *tables)
