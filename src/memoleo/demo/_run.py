"""``memoleo demo``: the diary cold, then warm in a fresh process, and what the difference is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from memoleo.demo import diary
from memoleo.demo._report import Run, as_data, as_table, verdict
from memoleo.demo._server import Counted, counted_server
from memoleo.demo.worker import STAGES
from memoleo.errors import MemoleoError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run_demo"]


def run_demo(
    *, entries: int | None, model: str | None, cache: str | None, as_json: bool, console: Console
) -> int:
    """Run the demo and print its table.

    Parameters
    ----------
    entries
        how many diary entries; ``None``: all
    model
        the model to ask; ``None``: the smallest that is there
    cache
        the cache's URL; ``None``: a file in a temporary folder
    as_json
        print JSON to stdout instead of a table
    console
        where progress and table go

    Returns
    -------
    int
        0; 1 if the warm run asked the model or had other answers; 2 if the demo couldn't run
    """
    count = len(diary.ENTRIES) if entries is None else entries
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoleo-demo-")))
            url = cache or f"sqlite:///{(folder / 'demo.db').as_posix()}"
            server = stack.enter_context(counted_server(model))
            console.print(
                f"{count} diary entries, {len(STAGES)} calls each, "
                f"to {server.model} of {server.name}.",
                markup=False,
            )
            cold, warm = (
                _run(name, server, count, url, folder, console) for name in ("cold", "warm")
            )
    except MemoleoError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    fine, sentence = verdict(cold, warm)
    if as_json:
        told = {"model": server.model, "entries": count, "ok": fine, **as_data(cold, warm)}
        print(json.dumps(told, indent=2))
    else:
        console.print(as_table(cold, warm))
    console.print(sentence, style="green" if fine else "red", markup=False)
    return 0 if fine else 1


def _run(
    name: str, server: Counted, entries: int, cache: str, folder: Path, console: Console
) -> Run:
    """Let a fresh process enrich the diary, and show how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    command = [sys.executable, "-m", "memoleo.demo.worker", f"--host={server.url}"]
    command += [f"--model={server.model}", f"--entries={entries}", f"--cache={cache}"]
    run = Run(name)
    before = server.calls()
    started = time.perf_counter()
    columns = (
        TextColumn(f"{name} run"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with (
        (folder / f"{name}.log").open("w+", encoding="utf-8") as log,
        Progress(*columns, console=console) as progress,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            env=_environment(folder),
        ) as process,
    ):
        task = progress.add_task("", total=entries * len(STAGES))
        try:
            assert process.stdout is not None
            for line in process.stdout:
                run.calls.append(json.loads(line))
                progress.update(task, advance=1, description=run.calls[-1]["stage"])
        except BaseException:
            process.kill()
            raise
        if process.wait():
            log.seek(0)
            raise MemoleoError(f"The {name} run failed:\n{log.read().strip()}")
    run.wall_s = time.perf_counter() - started
    run.model_calls = server.calls() - before
    return run


def _environment(folder: Path) -> dict[str, str]:
    # The user's settings, a TTL of 0 say, are not what the demo shows.
    settings = folder / "memoleo.toml"
    settings.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMOLEO_")}
    path = os.pathsep.join(filter(None, sys.path))
    return {**kept, "MEMOLEO_CONFIG": str(settings), "PYTHONPATH": path, "PYTHONUTF8": "1"}
