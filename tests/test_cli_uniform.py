"""What holds for every command alike, whatever it does."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from children import started

from memoleo import Cache
from memoleo.cli._main import commands

COMMANDS = commands.list_commands(click.Context(commands))

# The arguments without which a command is wrong use. A test says so if one is missing here.
ARGUMENTS = {
    "run": ["program.py"],
    "warm": ["program:work", "in.jsonl"],
    "explain": ["a key of mine"],
    "export": ["out.memoleo"],
    "load": ["in.memoleo"],
    "clear": ["--yes"],
    "top": ["--count", "1"],
    "serve": ["--port", "0"],
}
# These work on a cache that isn't there yet, or on none.
NEED_NO_CACHE = {"config", "demo", "doctor", "init", "load", "run", "warm"}
# These end only when they are told to, or take their time.
LONG = {"demo", "serve"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a program, a file of inputs, and a cache with an entry."""
    (tmp_path / "program.py").write_text("def work(n):\n    return n\n")
    (tmp_path / "in.jsonl").write_text("1\n")
    with Cache(f"sqlite:///{(tmp_path / 'cache.db').as_posix()}") as cache:
        cache.set("a", [1, 2], type="emotion")
        cache.export(tmp_path / "in.memoleo")
    return tmp_path


def memoleo(folder: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in os.environ if not name.startswith("MEMOLEO_")}
    done = subprocess.run(
        [sys.executable, "-m", "memoleo", command, *options, *ARGUMENTS.get(command, [])],
        cwd=folder,
        env={**kept, "OLLAMA_HOST": "http://127.0.0.1:9", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "\x1b" not in done.stderr + done.stdout, "colour without a terminal"
    return done


def test_help_is_printed(folder: Path) -> None:
    """`--help` is status 0, for the whole and for a command."""
    done = memoleo(folder, "stats", "--help")
    assert done.returncode == 0
    assert "Example: memoleo stats" in done.stdout


def test_the_list_of_commands_is_readable(folder: Path) -> None:
    """Each command's line is whole on a usual terminal, and the statuses stand there."""
    lines = memoleo(folder, "--help").stdout.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert not line.endswith("...")
    assert any("Exit status: 0 done" in line for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command explains itself, and its example is one that it would take."""
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))
    assert "--json" in text
    assert "--cache URL" in text
    example = " ".join((command.epilog or "").split())
    before, found, after = example.partition(f"memoleo {name}")
    assert before.startswith("Example: ")
    assert found
    arguments = shlex.split(after)
    monkeypatch.chdir(tmp_path)
    for word in arguments:
        if word.endswith((".jsonl", ".memoleo")):
            Path(word).touch()
    command.make_context(name, arguments).close()


@pytest.mark.parametrize("name", COMMANDS)
def test_empty_url_is_not_the_default_cache(name: str) -> None:
    """An unset variable in a shell doesn't stand for the user's own cache."""
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    with pytest.raises(click.BadParameter, match="it is empty"):
        command.make_context(name, ["--cache", "", *ARGUMENTS.get(name, [])])


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {"config", "doctor"}))
def test_wrong_url_is_wrong_use(folder: Path, name: str) -> None:
    """A URL that can't be one is status 2, and a sentence that shows it and what is meant."""
    ran = memoleo(folder, name, "--cache", "sqlite:///a.db?max_byte=1")
    assert ran.returncode == 2, ran.stderr
    assert "a.db?max_byte=1" in ran.stderr
    assert "did you mean 'max_bytes'" in ran.stderr
    assert not (folder / "a.db").exists()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in NEED_NO_CACHE])
def test_missing_cache_is_said_and_not_made(folder: Path, name: str) -> None:
    """Who looks at a cache that isn't there is told so; nothing is created."""
    before = sorted(folder.iterdir())
    ran = memoleo(folder, name, "--cache", "sqlite:///no/such.db")
    assert ran.returncode == 1, ran.stderr
    assert "There is no cache at" in ran.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in NEED_NO_CACHE])
def test_another_kind_of_file_is_left_alone(folder: Path, name: str) -> None:
    """A letter is no cache, and stays a letter."""
    letter = folder / "letter.txt"
    letter.write_text("Dear reader, " * 1000)
    ran = memoleo(folder, name, "--cache", "sqlite:///letter.txt")
    assert ran.returncode == 1
    assert "is no cache" in ran.stderr
    assert letter.read_text() == "Dear reader, " * 1000


@pytest.fixture
def held(folder: Path) -> Iterator[None]:
    """While it stands, another program holds the cache's file for itself."""
    holder = sqlite3.connect(folder / "cache.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    yield
    holder.close()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in LONG])
def test_a_locked_store_is_no_hang_and_no_traceback(folder: Path, held: None, name: str) -> None:
    """Each command answers, or says in a sentence that it can't."""
    ran = memoleo(folder, name, "--cache", "sqlite:///cache.db")
    assert ran.returncode in (0, 1)
    assert ran.returncode == 0 or ran.stderr or ran.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in {*LONG, "run"}])
def test_json_is_json(folder: Path, name: str) -> None:
    """With --json, what is printed is JSON and nothing else."""
    ran = memoleo(folder, name, "--json", "--cache", "sqlite:///cache.db")
    assert ran.returncode == 0, ran.stderr
    json.loads(ran.stdout)


@pytest.mark.parametrize("name", ["stats", "metrics", "entries", "config", "doctor"])
def test_a_closed_pipe_is_no_complaint(folder: Path, name: str) -> None:
    """A reader that has gone, as `head` does, ends the command quietly."""
    kept = {name: os.environ[name] for name in os.environ if not name.startswith("MEMOLEO_")}
    arguments = ["--cache", "sqlite:///cache.db"]
    with started(
        [sys.executable, "-m", "memoleo", name, *arguments],
        cwd=folder,
        env={**kept, "OLLAMA_HOST": "http://127.0.0.1:9"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        said = child.stderr.read()
        child.wait(timeout=60)
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
