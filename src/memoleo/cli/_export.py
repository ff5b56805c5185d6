"""``memoleo export``."""

from __future__ import annotations

from pathlib import Path

import click

from memoleo.cli._common import cache_option, json_option, open_cache, print_json

__all__ = ["command"]


@click.command(
    "export",
    short_help="Write what is stored to a file.",
    epilog="Example: memoleo export results.memoleo --type emotion_scoring",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--type", "type_", metavar="TYPE", help="Only entries of this type.")
@click.option("--tag", metavar="TAG", help="Only entries with this tag.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@cache_option
@json_option
def command(
    file: Path, type_: str | None, tag: str | None, force: bool, url: str | None, as_json: bool
) -> None:
    """Write what is stored to a checksummed FILE that another machine can load."""
    if file.exists() and not force:
        raise click.ClickException(f"{file} is there already; --force replaces it.")
    if not file.parent.is_dir():
        raise click.ClickException(f"There is no folder {file.parent}.")
    with open_cache(url) as cache:
        count = cache.export(file, type=type_, tag=tag)
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "exported": count, "bytes": size})
    else:
        click.echo(f"Wrote {count:,} {'entry' if count == 1 else 'entries'} to {file}.")
