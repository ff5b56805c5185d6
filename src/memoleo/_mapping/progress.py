"""A bar on the terminal that shows how far something is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memoleo.errors import ConfigError

__all__ = ["Progress", "showing"]

Progress = bool | str | Callable[[int, "int | None"], None] | None
"""True or a text for a bar on standard error, or what is called with (done, total)."""


@contextmanager
def showing(progress: Progress, text: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a bar while the block runs; where there is no terminal, nothing.

    Parameters
    ----------
    progress
        what the user asked for
    text
        what stands before the bar unless the user gave a text

    Yields
    ------
    callable or None
        to be told how many are done, and how many there are

    Raises
    ------
    ConfigError
        `progress` is none of the things it may be
    """
    if progress is None or progress is False:
        yield None
        return
    if callable(progress):
        yield progress
        return
    if progress is not True and not isinstance(progress, str):
        raise ConfigError(f"progress={progress!r}: give True, a text, or f(done, total)")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(progress if isinstance(progress, str) else text, total=None)

        def told(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield told
