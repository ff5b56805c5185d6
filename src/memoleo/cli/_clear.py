"""``memoleo clear``."""

from __future__ import annotations

import time

import click

from memoleo._cache.cache import Cache
from memoleo._units import parse_duration
from memoleo.cli._common import agreed, cache_option, json_option, open_cache, print_json
from memoleo.errors import ConfigError

__all__ = ["command"]


@click.command(
    "clear",
    short_help="Remove entries: all, or some.",
    epilog="Example: memoleo clear --type emotion_scoring --older-than 7d",
)
@click.option("--type", "type_", metavar="TYPE", help="Only entries of this type.")
@click.option("--tag", metavar="TAG", help="Only entries with this tag.")
@click.option("--older-than", metavar="AGE", help='Only entries of this age, such as "7d".')
@click.option("--expired", is_flag=True, help="Only entries that are past their time.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@cache_option
@json_option
def command(
    type_: str | None,
    tag: str | None,
    older_than: str | None,
    expired: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Remove entries: all of them, or those that match every option given."""
    if expired and (type_ or tag or older_than):
        raise click.UsageError("--expired stands alone: leave out --type, --tag and --older-than.")
    age = _age(older_than)
    with open_cache(url) as cache:
        matched = _count(cache, type_, tag, age, expired)
        if matched and not yes and not agreed(f"Remove {_entries(matched)}?"):
            if as_json:
                print_json({"matched": matched, "cleared": 0})
            else:
                click.echo("Nothing was cleared.")
            return 1
        if not matched:
            cleared = 0
        elif expired:
            cleared = cache.clear_expired()
        else:
            cleared = cache.clear(type_, tag, age)
    if as_json:
        print_json({"matched": matched, "cleared": cleared})
    else:
        click.echo(f"Cleared {_entries(cleared)}." if cleared else "There was nothing to clear.")
    return 0


def _age(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text, "--older-than")
    except ConfigError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint="--older-than") from None


def _count(
    cache: Cache, type_: str | None, tag: str | None, age: float | None, expired: bool
) -> int:
    if expired:
        now = time.time()
        return sum(entry.expires <= now for _, entry in cache.backend.entries())
    if tag is None and age is None:
        stats = cache.get_stats()
        count: int = stats["total_entries"] if type_ is None else stats["by_type"].get(type_, 0)
        return count
    return sum(age is None or entry.age > age for entry in cache.entries(type_, tag))


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"
