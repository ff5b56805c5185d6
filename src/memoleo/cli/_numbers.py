"""How counts, durations and rates are shown in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoleo._plain import plain_name
from memoleo.metrics._totals import RESERVED

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["milliseconds_text", "operations_table", "savings_table", "types_table"]

_COUNTS = ("hits", "misses", "stale", "shared", "errors", "corrupt", "evicted")
_LATENCIES = ("p50_ms", "p95_ms", "p99_ms", "avg_ms", "max_ms")
_TROUBLES = {"errors", "corrupt"}
_ALWAYS = {"hits", "misses", "errors"}


def milliseconds_text(ms: float) -> str:
    """Return a duration as people write it: "870 µs", "12 ms", "3.4 s", "1 h 54 min", "2 d 3 h"."""
    if ms < 1:
        return f"{ms * 1000:.0f} µs" if ms else "0"
    if ms < 999.5:
        return f"{ms:.3g} ms"
    if ms < 59_950:
        return f"{ms / 1000:.3g} s"
    rest = round(ms / 1000)
    for larger, smaller, length, part in (
        ("d", "h", 86_400, 3600),
        ("h", "min", 3600, 60),
        ("min", "s", 60, 1),
    ):
        if rest >= length:
            return f"{rest // length} {larger} {rest % length // part} {smaller}"
    return f"{rest} s"


def types_table(stats: dict[str, Any], title: str | None = None) -> Table:
    """Return what was counted per type, in the shape of `Metrics.get_stats`, as a table."""
    names = [name for name in _COUNTS if name in _ALWAYS or _any(stats[RESERVED], name)]
    tokens = _any(stats[RESERVED], "tokens_saved")
    table = _table(title, "type", "hit rate", *names, "saved", *(["tokens"] if tokens else []))
    rows = sorted(stats[RESERVED].items(), key=lambda pair: (-pair[1]["lookups"], pair[0]))
    for type, row in rows:
        table.add_row(
            plain_name(type),
            f"{row['hit_rate']:.1f} %",
            *[_count(name, row[name]) for name in names],
            milliseconds_text(row["saved_ms"]),
            *([f"{row['tokens_saved']:,}"] if tokens else []),
        )
    return table


def operations_table(stats: dict[str, Any], title: str | None = None) -> Table:
    """Return what was counted per operation as a table."""
    heads = [name.removesuffix("_ms").replace("avg", "mean") for name in _LATENCIES]
    operations = [(name, row) for name, row in stats.items() if name != RESERVED]
    retries = _any(dict(operations), "retries")
    table = _table(title, "operation", "count", "errors", *heads, *(["retries"] if retries else []))
    for name, row in sorted(operations, key=lambda pair: (-pair[1]["count"], pair[0])):
        table.add_row(
            plain_name(name),
            f"{row['count']:,}",
            _count("errors", row["errors"]),
            *[milliseconds_text(row[each]) for each in _LATENCIES],
            *([f"{row['retries']:,}"] if retries else []),
        )
    return table


def savings_table(periods: dict[str, Any]) -> Table:
    """Return what was saved today, this week and ever as a table."""
    ever = periods["ever"]["total"]
    heads = ["runs", "time", "tokens"]
    heads += [name for name in ("kwh", "money") if ever[name] is not None]
    names = {"kwh": "kWh", "money": periods["ever"]["currency"]}
    table = _table(None, "saved", *[names.get(head, head) for head in heads])
    for period, savings in periods.items():
        total = savings["total"]
        cells = [f"{total['runs']:,}", milliseconds_text(total["ms"]), f"{total['tokens']:,}"]
        cells += [_amount(total[head]) for head in heads[3:]]
        table.add_row("this week" if period == "week" else period, *cells)
    return table


def _amount(value: float) -> str:
    return "< 0.01" if 0 < value < 0.005 else f"{value:,.2f}"


def _any(rows: dict[str, dict[str, float]], name: str) -> bool:
    return any(row.get(name) for row in rows.values())


def _count(name: str, value: float) -> Text:
    from rich.text import Text

    style = ("red" if name in _TROUBLES else "") if value else "dim"
    return Text(f"{value:,}", style=style)


def _table(title: str | None, first: str, *others: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # Lines between the columns would leave no room for names where 80 letters are a line.
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    table.add_column(first, min_width=12)
    for head in others:
        table.add_column(head, justify="right", no_wrap=True)
    return table
