"""What commands share: their options, the cache they look at, and how they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import click

from memoleo._cache.cache import Cache
from memoleo._cache.default import default_url
from memoleo._health import NOT_KEPT
from memoleo.backends._urls import open_backend
from memoleo.backends.memory import MemoryBackend
from memoleo.metrics._ledger import farthest

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "agreed",
    "cache_option",
    "console",
    "is_store",
    "json_option",
    "keeps_numbers",
    "open_cache",
    "print_json",
    "say_what_is_not_kept",
    "store_path",
]

# https://www.sqlite.org/fileformat.html
_MAGIC = b"SQLite format 3\0"

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Give a command ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def cache_option(function: F) -> F:
    """Give a command ``--cache URL``."""
    return click.option(
        "--cache",
        "url",
        metavar="URL",
        callback=_not_empty,
        help="The cache to use, such as sqlite:///cache.db.",
    )(function)


def _not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    # An unset variable in a shell must not stand for the default cache.
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty; leave the option out for the default cache")
    return value


def open_cache(url: str | None) -> Cache:
    """Return the cache at `url`, or the default one, without creating a file.

    Raises
    ------
    click.ClickException
        there is nothing that a command could look at
    """
    place = url or default_url()
    if place.startswith("memory:"):
        raise click.ClickException(
            f"{place} lives inside each process: there is nothing to see from another one. "
            "Name a cache in a file with --cache sqlite:///file.db."
        )
    # Memory in front would answer for a file that can't be read, and it knows nothing here.
    cache = Cache(backend=farthest(open_backend(place)))
    path = store_path(place)
    if path is None or is_store(path):
        return cache
    if path.is_dir():
        raise click.ClickException(f"{path} is a folder, and a cache is a file.")
    if path.exists():
        raise click.ClickException(f"{path} is no cache, or its beginning is overwritten.")
    if url is not None:
        raise click.ClickException(
            f"There is no cache at {path}. It is created when a first result is stored."
        )
    return Cache("memory://")


def say_what_is_not_kept(cache: Cache) -> None:
    """Say on standard error that the numbers of other programs can't be seen, if they can't."""
    if not keeps_numbers(cache):
        click.echo(f"{NOT_KEPT.message}.", err=True)


def keeps_numbers(cache: Cache) -> bool:
    """Whether the numbers of other programs are kept beside a cache, or would be."""
    return cache.calls.ledger.path is not None or isinstance(cache.backend, MemoryBackend)


def store_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; `None` for other stores."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        return None
    return Path(unquote(parts.path)[1:]).expanduser()


def is_store(path: Path) -> bool:
    """Whether a file begins as a store does; an empty one is a store to be."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except (FileNotFoundError, IsADirectoryError):
        return False
    return start in (b"", _MAGIC)


def console(*, stderr: bool = False) -> Console:
    """Return a console that has colour only on a terminal, and wide tables where there is none."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = 160
    return made


def print_json(data: Any, *, err: bool = False) -> None:
    """Print data as JSON, with infinity as "forever"; to stderr if a program has the stdout."""
    import json

    click.echo(json.dumps(_plain(data), indent=2, ensure_ascii=False), err=err)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(name): _plain(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, float) and isinf(data):
        return "forever"
    return data


def agreed(question: str) -> bool:
    """Ask whether something is to be removed; whether the answer is yes.

    Raises
    ------
    click.UsageError
        there is nobody to ask
    """
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer:
        click.echo(err=True)
        raise click.UsageError("There is nobody to ask: add --yes to clear.")
    return answer.strip().lower() in ("y", "yes")
