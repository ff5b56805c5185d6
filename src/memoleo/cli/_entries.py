"""``memoleo entries``."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from memoleo._cache.cache import Cache
from memoleo._plain import plain, plain_name
from memoleo._stored import StoredEntry
from memoleo._units import duration_text, size_text
from memoleo.cli._common import cache_option, console, json_option, open_cache, print_json
from memoleo.errors import ConfigError

__all__ = ["command"]

_PREVIEW = 200


@click.command(
    "entries",
    short_help="What is stored, one by one.",
    epilog="Example: memoleo entries --type emotion_scoring --newer-than 1d",
)
@click.option("--type", "type_", metavar="TYPE", help="Only entries of this type.")
@click.option("--tag", metavar="TAG", help="Only entries with this tag.")
@click.option("--label", metavar="NAME", help="Only entries of this function, such as app.score.")
@click.option("--older-than", metavar="AGE", help='Only entries older than this, such as "7d".')
@click.option("--newer-than", metavar="AGE", help="Only entries at most so old.")
@click.option("--larger-than", metavar="SIZE", help='Only entries of this size, such as "1MiB".')
@click.option("--key", metavar="START", help="Only entries whose key begins so.")
@click.option("--fresh/--expired", default=None, help="Only entries within, or past, their time.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N",
              help="Show so many at most.")  # fmt: skip
@click.option("--values", is_flag=True, help="Show what is stored; it may be private.")
@cache_option
@json_option
def command(
    type_: str | None,
    tag: str | None,
    label: str | None,
    older_than: str | None,
    newer_than: str | None,
    larger_than: str | None,
    key: str | None,
    fresh: bool | None,
    limit: int,
    values: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Show what is stored, the newest first: all of it, or what matches every option given."""
    if values:
        _readers()
    with open_cache(url) as cache:
        try:
            found = cache.entries(
                type_,
                tag,
                label=label,
                older_than=older_than,
                newer_than=newer_than,
                larger_than=larger_than,
                key=key,
                fresh=fresh,
            )
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        shown = list(islice(found, limit))
        more = next(found, None) is not None
        if as_json:
            rows = [_row(entry, values) for entry in shown]
            print_json({"entries": rows, "shown": len(rows), "more": more})
        else:
            _print(cache, shown, more, values)


def _row(entry: StoredEntry, values: bool) -> dict[str, Any]:
    row = entry.to_dict()
    if values:
        row["value"] = _plain(entry)
    return row


def _plain(entry: StoredEntry) -> Any:
    """Return a value as JSON can show it: as itself, or the way that Python writes it."""
    import json

    value = _value(entry)
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _readers() -> None:
    """Learn to show what libraries' answers look like in a store."""
    # Heavy imports that few look-ups need.
    import memoleo._exchanges.answers
    import memoleo.patches._ollama_codec  # noqa: F401


def _value(entry: StoredEntry) -> Any:
    try:
        return entry.value
    except Exception as error:
        return f"<can't be read: {error}>"


def _print(cache: Cache, shown: list[StoredEntry], more: bool, values: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not shown:
        out.print("There are no such entries.")
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("key", no_wrap=True)
    for name in ("type", "function", "tags"):
        table.add_column(name, min_width=4 if name == "tags" else 10)
    for name in ("age", "ttl", "size", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in shown:
        table.add_row(
            Text(str(entry.key)[:15]),
            plain_name(entry.type),
            plain_name(entry.label),
            plain_name(", ".join(entry.tags)),
            _age(entry.age),
            Text(duration_text(entry.ttl), style="" if entry.fresh else "red"),
            size_text(entry.size),
            f"{entry.cost_ms:,.0f} ms",
        )
    out.print(table)
    if values:
        for entry in shown:
            text = repr(_value(entry))
            cut = text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}… ({len(text):,} letters)"
            out.print(Text(plain(f"{str(entry.key)[:15]}  {cut}"), overflow="fold"))
    if more:
        out.print(f"There are more than these {len(shown)}; see --limit.")


def _age(seconds: float) -> str:
    return duration_text(float(f"{max(0.0, seconds):.3g}")) if seconds < 60 else _rounded(seconds)


def _rounded(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f}".removesuffix(".0") + unit
    return f"{seconds:.0f}s"
