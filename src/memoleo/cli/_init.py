"""``memoleo init``."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Literal

import click
import msgspec

from memoleo.backends._urls import open_backend
from memoleo.cli._common import cache_option, json_option, print_json
from memoleo.cli._tasks_file import NotSafe, add_tasks
from memoleo.config._files import find_file

__all__ = ["command"]

_URL = '# url = "sqlite:///.memoleo/cache.db?max_bytes=2GiB"'


class Step(msgspec.Struct, frozen=True):
    """What became of one file.

    Parameters
    ----------
    path
        the file
    done
        "created", "extended", "kept" (nothing was missing) or "skipped" (it is left to the user)
    reason
        why
    add
        what the user may add
    """

    path: str
    done: Literal["created", "extended", "kept", "skipped"]
    reason: str = ""
    add: str = ""


@click.command(
    "init",
    short_help="Settings and editor tasks for a project.",
    epilog="Example: memoleo init --cache sqlite:///.memoleo/cache.db",
)
@click.argument("folder", required=False, default=".", type=click.Path(path_type=Path))
@cache_option
@json_option
def command(folder: Path, url: str | None, as_json: bool) -> int:
    """Write a commented memoleo.toml and the editor's tasks into a project's FOLDER.

    Nothing that is there is overwritten: tasks are added to a .vscode/tasks.json only if that
    leaves everything in it as it is; else they are printed, for you to add. With --cache, the
    settings name that cache.
    """
    if not folder.is_dir():
        raise click.ClickException(f"There is no folder {folder}.")
    if url is not None:
        open_backend(url)
    steps = [_settings(folder, url), _tasks(folder)]
    if as_json:
        print_json({"files": [msgspec.to_builtins(step) for step in steps]})
    else:
        for step in steps:
            reason = f": {step.reason}" if step.reason else ""
            click.echo(f"{step.done:<9}{step.path}{reason}")
            if step.add:
                click.echo(step.add)
    return 1 if any(step.add for step in steps) else 0


def _settings(folder: Path, url: str | None) -> Step:
    path = folder / "memoleo.toml"
    text = _template("memoleo.toml")
    if url is not None:
        text = text.replace(_URL, f"url = {json.dumps(url, ensure_ascii=False)}")
    found = None
    if not os.path.lexists(path):
        found = find_file(os.fspath(folder.resolve()))
    if found is not None and Path(found[0]).is_relative_to(folder.resolve()):
        return Step(str(path), "skipped", f"the settings are in {found[0]}")
    return _created(path, text) or Step(str(path), "kept", "it is there already")


def _tasks(folder: Path) -> Step:
    path = folder / ".vscode" / "tasks.json"
    text = _template("tasks.json")
    if not os.path.lexists(path):
        path.parent.mkdir(exist_ok=True)
        created = _created(path, text)
        if created is not None:
            return created
    tasks = json.loads(text)["tasks"]
    try:
        before = path.read_bytes().decode("utf-8")
        after = add_tasks(before, tasks)
    except (NotSafe, UnicodeDecodeError, OSError) as error:
        add = ",\n".join(json.dumps(task) for task in tasks)
        return Step(str(path), "skipped", f"{error}. Add what you need of this", add)
    if after == before:
        return Step(str(path), "kept", "it has these tasks")
    _replace(path, after)
    return Step(str(path), "extended")


def _template(name: str) -> str:
    place = resources.files("memoleo.cli") / "templates" / name
    return place.read_text(encoding="utf-8")


def _created(path: Path, text: str) -> Step | None:
    try:
        file = path.open("x", encoding="utf-8", newline="\n")
    except FileExistsError:
        return None
    try:
        with file:
            file.write(text)
    except BaseException:
        # Half a file would be taken for the user's own the next time.
        path.unlink(missing_ok=True)
        raise
    return Step(str(path), "created")


def _replace(path: Path, text: str) -> None:
    """Write a file that exists, so that a crash leaves either the old or the new one."""
    target = path.resolve()  # a link to a shared file stays one
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(text.encode("utf-8"))
        beside.chmod(target.stat().st_mode & 0o777)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
