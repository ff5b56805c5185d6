"""``memoleo stats``."""

from __future__ import annotations

import click

from memoleo._plain import plain_name
from memoleo._units import size_text
from memoleo.cli._common import (
    cache_option,
    console,
    json_option,
    open_cache,
    print_json,
)

__all__ = ["command"]


@click.command(
    "stats",
    short_help="How many results are stored, and their size.",
    epilog="Example: memoleo stats --cache sqlite:///leo-cache.db --json",
)
@cache_option
@json_option
def command(url: str | None, as_json: bool) -> None:
    """Show how many results are stored, and how much room they take."""
    with open_cache(url) as cache:
        stats = cache.get_stats()
    if as_json:
        print_json(stats)
        return
    from rich.table import Table

    out = console()
    total = stats["total_entries"]
    table = Table("type", show_footer=True)
    table.columns[0].footer = "all"
    table.add_column("entries", justify="right", footer=f"{total:,}")
    for name, count in sorted(stats["by_type"].items(), key=lambda item: (-item[1], item[0])):
        table.add_row(plain_name(name), f"{count:,}")
    out.print(table)
    out.print(f"{size_text(stats['total_bytes'])} of results")
    if stats.get("path"):
        out.print(f"in {stats['path']}", markup=False, soft_wrap=True)
    if not stats["enabled"]:
        out.print("Caching is switched off by the settings; see: memoleo config")
