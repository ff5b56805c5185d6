"""``memoleo config``."""

from __future__ import annotations

from typing import Any

import click

from memoleo._cache.default import default_url
from memoleo._units import duration_text
from memoleo.backends._urls import shown_url
from memoleo.cli._common import cache_option, console, json_option, print_json
from memoleo.config._load import load_settings

__all__ = ["command"]


@click.command(
    "config",
    short_help="Every setting, and where it comes from.",
    epilog="Example: MEMOLEO_CACHING__TTL=12h memoleo config",
)
@cache_option
@json_option
def command(url: str | None, as_json: bool) -> None:
    """Show every setting and where it comes from; a password in a URL is left out."""
    settings = load_settings()
    rows = []
    for key, value, origin in settings.items():
        if key == "caching.url" and url is not None:
            value, origin = url, "--cache"
        if key == "caching.url":
            # A password belongs on no screen.
            value = shown_url(value or default_url())
        rows.append((key, value, origin))
    if as_json:
        print_json(
            {
                "file": settings.file,
                "settings": {
                    key: {"value": value, "origin": origin} for key, value, origin in rows
                },
            }
        )
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table("setting", "value", "from")
    for key, value, origin in rows:
        table.add_row(
            Text(key),
            Text(_shown(key, value), overflow="fold"),
            Text(origin, style="dim" if origin == "default" else "", overflow="fold"),
        )
    out.print(table)
    if settings.file is None:
        out.print("There is no settings file; a memoleo.toml in the project folder would be found.")


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(f"{item:g}" for item in value)
    if key.endswith((".ttl", ".keep_alive")):
        return duration_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
