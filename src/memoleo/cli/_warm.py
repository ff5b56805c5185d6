"""``memoleo warm``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from memoleo._cache.default import configure
from memoleo._decorators.cached import content_cached
from memoleo._mapping.map import amap
from memoleo._mapping.map import map as map_threads
from memoleo._plain import plain
from memoleo.cli._common import cache_option, json_option, print_json
from memoleo.cli._functions import find_function
from memoleo.metrics._metrics import get_metrics
from memoleo.metrics._totals import RESERVED

__all__ = ["command"]

_SHOWN = 10


class Line(msgspec.Struct, frozen=True):
    """One line of the file, and its number, from 1."""

    number: int
    text: str


class Failure(msgspec.Struct, frozen=True):
    """A line that came to nothing, and why."""

    line: int
    error: str


@click.command(
    "warm",
    short_help="Call a function for each line of a file.",
    epilog="Example: memoleo warm app.scoring:score inputs.jsonl --concurrency 4",
)
@click.argument("function")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Calls at once.",
)
@click.option(
    "--type", "type_", metavar="TYPE", help="Keep the results of a function that doesn't."
)
@click.option("--ttl", metavar="DURATION", help='With --type: how long they are fresh, as "30d".')
@click.option(
    "--failures",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the lines that failed to this file.",
)
@cache_option
@json_option
def command(
    function: str,
    file: Path,
    concurrency: int,
    type_: str | None,
    ttl: str | None,
    failures: Path | None,
    url: str | None,
    as_json: bool,
) -> int:
    """Call FUNCTION, as package.module:name, for each line of a JSON-lines FILE.

    A line is an object of keywords, a list of arguments, or the one argument. Results are kept as
    soon as they are there: run it again to go on where it was stopped. The status is 1 if a line
    failed.
    """
    if ttl is not None and type_ is None:
        raise click.UsageError("--ttl goes with --type.")
    if url is not None:
        if url.startswith("memory:"):
            raise click.UsageError(f"{url} ends with this process: there is nothing to warm.")
        configure(url)
    called = find_function(function)
    if type_ is not None:
        if hasattr(called, "cache_key"):
            raise click.UsageError(f"{function} is cached already: leave out --type.")
        called = content_cached(type=type_, ttl=ttl)(called)
    elif not hasattr(called, "cache_key"):
        click.echo(
            f"{function} keeps nothing by itself. With --type its results are kept.", err=True
        )
    lines = _Lines(file)
    begun, before = time.perf_counter(), _counted()
    try:
        failed = _run(called, lines, concurrency, function)
    except KeyboardInterrupt:
        click.echo("\nWhat is done is kept: run it again to go on.", err=True)
        raise
    after = _counted()
    report = {
        "lines": len(lines),
        "answered": after[0] - before[0],
        "computed": after[1] - before[1],
        "failed": len(failed),
        "seconds": round(time.perf_counter() - begun, 3),
        "failures": [msgspec.to_builtins(each) for each in failed],
    }
    if failures is not None:
        _write(failures, lines, {each.line for each in failed})
    if as_json:
        print_json(report)
    else:
        _print(report, failed, failures)
    return 1 if failed else 0


class _Lines:
    """The lines of a file that have something in them; they can be counted and gone through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = sum(1 for _ in self._read())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Line]:
        # What was written to it since it was counted is for the next time.
        return islice(self._read(), self._count)

    def _read(self) -> Iterator[Line]:
        # What is no UTF-8 is for the parser to refuse, in its own line.
        with self._path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, text in enumerate(file, start=1):
                if not text.isspace():
                    yield Line(number, text)


def _run(called: Callable[..., Any], lines: _Lines, concurrency: int, title: str) -> list[Failure]:
    if inspect.iscoroutinefunction(inspect.unwrap(called)):

        async def awaited(line: Line) -> None:
            await _with(called, line)

        outcomes = asyncio.run(
            amap(
                awaited,
                lines,
                concurrency=concurrency,
                key=_key,
                errors="return",
                progress=title,
            )
        )
    else:

        def plain(line: Line) -> None:
            _with(called, line)

        outcomes = map_threads(
            plain, lines, concurrency=concurrency, key=_key, errors="return", progress=title
        )
    return [
        Failure(line.number, _said(outcome))
        for line, outcome in zip(lines, outcomes, strict=False)
        if isinstance(outcome, Exception)
    ]


def _with(called: Callable[..., Any], line: Line) -> Any:
    given = json.loads(line.text)
    if isinstance(given, dict):
        return called(**given)
    return called(*given) if isinstance(given, list) else called(given)


def _key(line: Line) -> str:
    return line.text.strip()


def _counted() -> tuple[int, int]:
    """Return how many lookups were answered, and how many computed, by this process."""
    rows = get_metrics().get_stats()[RESERVED].values()
    answered = sum(row["hits"] + row["stale"] + row["shared"] for row in rows)
    return answered, sum(row["misses"] for row in rows)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _write(path: Path, lines: _Lines, failed: set[int]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line in lines:
            if line.number in failed:
                file.write(line.text if line.text.endswith("\n") else f"{line.text}\n")


def _print(report: dict[str, Any], failed: list[Failure], kept: Path | None) -> None:
    click.echo(
        f"{report['lines']:,} lines: {report['answered']:,} answered, "
        f"{report['computed']:,} computed, {report['failed']:,} failed, "
        f"in {report['seconds']:.1f} s."
    )
    for each in failed[:_SHOWN]:
        click.echo(f"  line {each.line}: {plain(each.error)}", err=True)
    if len(failed) > _SHOWN:
        click.echo(f"  and {len(failed) - _SHOWN:,} more", err=True)
    if failed and kept is not None:
        with contextlib.suppress(OSError):
            click.echo(f"The lines that failed are in {kept.resolve()}.", err=True)
