"""``memoleo verify``."""

from __future__ import annotations

import time

import click
import msgspec

from memoleo._plain import plain, plain_name
from memoleo._verifying.findings import Verified
from memoleo.cli._common import cache_option, console, json_option, open_cache, print_json
from memoleo.errors import ConfigError

__all__ = ["command"]


@click.command(
    "verify",
    short_help="How often hits turned out differently.",
    epilog="Example: memoleo verify --type emotion_scoring --json",
)
@click.option("--type", "type_", metavar="TYPE", help="Only this type.")
@click.option("--newer-than", metavar="AGE", help="Only programs that verified within this time.")
@cache_option
@json_option
def command(type_: str | None, newer_than: str | None, url: str | None, as_json: bool) -> int:
    """Show how often hits that were computed again turned out differently, and in what.

    Programs compute a sample of their hits again where it is switched on, by `memoleo.verify` or by
    the setting caching.verify. The status is 1 if a result differed.
    """
    with open_cache(url) as cache:
        try:
            found = cache.verified(newer_than=newer_than)
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
    if type_ is not None:
        found = {name: each for name, each in found.items() if name == type_}
    if as_json:
        print_json({name: _plain(each) for name, each in sorted(found.items())})
    else:
        _print(found)
    return int(any(each.differed for each in found.values()))


def _plain(found: Verified) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(found)
    return {**plain, "rate": found.rate}


def _print(found: dict[str, Verified]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not found:
        out.print(
            "No hit was computed again yet. Switch it on for a program with "
            "MEMOLEO_CACHING__VERIFY=0.01",
            soft_wrap=True,
        )
        return
    table = Table("type")
    for name in ("checked", "differed", "rate", "failed", "last"):
        table.add_column(name, justify="right")
    for name, each in sorted(found.items()):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.last))
        table.add_row(
            plain_name(name),
            f"{each.checked:,}",
            Text(f"{each.differed:,}", style="red" if each.differed else ""),
            f"{each.rate:.1f} %",
            f"{each.failed:,}",
            when,
        )
    out.print(table)
    for each in found.values():
        for finding in each.findings:
            out.print(Text(plain(f"{finding.key[:15]}  {finding}"), overflow="fold"))
