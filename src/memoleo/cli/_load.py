"""``memoleo load``."""

from __future__ import annotations

from pathlib import Path

import click

from memoleo._cache.cache import Cache
from memoleo._cache.default import default_url
from memoleo.cli._common import cache_option, json_option, print_json

__all__ = ["command"]


@click.command(
    "load",
    short_help="Store what was exported.",
    epilog="Example: memoleo load results.memoleo --merge keep",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--type", "type_", metavar="TYPE", help="Only entries of this type.")
@click.option("--tag", metavar="TAG", help="Only entries with this tag.")
@click.option("--merge", type=click.Choice(["newer", "keep", "replace"]), default="newer",
              show_default=True,
              help="Of two with one key: the newer one, the one here, or the file's.")  # fmt: skip
@click.option("--skip-damaged", is_flag=True, help="Load what is intact in a damaged file.")
@cache_option
@json_option
def command(
    file: Path,
    type_: str | None,
    tag: str | None,
    merge: str,
    skip_damaged: bool,
    url: str | None,
    as_json: bool,
) -> int:
    """Store the entries of a FILE that `memoleo export` wrote.

    Nothing is loaded from a file that was changed or cut off, unless damaged parts are to be
    skipped; then the status is 1 if there were any.
    """
    place = url or default_url()
    if place.startswith("memory:"):
        raise click.UsageError(f"{place} ends with this process: there is nothing to load into.")
    with Cache(place) as cache:
        loaded = cache.load(
            file,
            type=type_,
            tag=tag,
            merge=merge,
            damaged="skip" if skip_damaged else "refuse",
        )
    report = {
        "loaded": int(loaded),
        "kept": loaded.kept,
        "expired": loaded.expired,
        "damaged": loaded.damaged,
    }
    if as_json:
        print_json(report)
    else:
        click.echo(f"Loaded {loaded:,} {'entry' if loaded == 1 else 'entries'}.")
        for text, count in (
            ("gave way to what is there", loaded.kept),
            ("had expired", loaded.expired),
            (
                "damaged part was skipped" if loaded.damaged == 1 else "damaged parts were skipped",
                loaded.damaged,
            ),
        ):
            if count:
                click.echo(f"{count:,} {text}.")
    return int(loaded.damaged > 0)
