"""`memoleo warm`: a function over the lines of a file, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memoleo import Cache

JOBS = """
import asyncio, os, time
from memoleo import content_cached

def note(what):
    with open("calls.txt", "a") as file:
        file.write(f"{what}\\n")

@content_cached(type="jobs")
def job(n, factor=1):
    note(n)
    if n == 13:
        raise ValueError("thirteen")
    return n * factor

@content_cached(type="async jobs")
async def ajob(n):
    await asyncio.sleep(0)
    note(n)
    return n

@content_cached(type="slow jobs")
def slow(n):
    note(n)
    print("begun", flush=True)
    while os.path.exists("wait") and n > 2:
        time.sleep(0.01)
    return n

def plain(n):
    note(n)
    return n
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a module of jobs."""
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "memoleo", "warm", *args],
        cwd=folder,
        env={**os.environ, "MEMOLEO_CACHE": "sqlite:///cache.db"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def warm(folder: Path, *args: str) -> tuple[int, dict[str, Any]]:
    """Run it with --json; the status and the report."""
    child = start(folder, *args, "--json")
    out, err = child.communicate(timeout=120)
    assert "Traceback" not in err, err
    return child.returncode, json.loads(out[out.index("{") :])


def write(folder: Path, *lines: object) -> str:
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "in.jsonl").write_text(text)
    return "in.jsonl"


def calls(folder: Path) -> list[str]:
    path = folder / "calls.txt"
    return sorted(path.read_text().split()) if path.exists() else []


def test_each_form_of_a_line(folder: Path) -> None:
    """Keywords, arguments and the one argument; equal calls once; all are hits afterwards."""
    file = write(folder, {"n": 1}, [2, 10], 3, {"n": 1}, [2, 10])
    status, report = warm(folder, "jobs:job", file)
    assert (status, report["lines"], report["computed"], report["failed"]) == (0, 5, 3, 0)
    assert calls(folder) == ["1", "2", "3"]
    with Cache(f"sqlite:///{(folder / 'cache.db').as_posix()}") as cache:
        assert sorted(entry.value for entry in cache.entries()) == [1, 3, 20]
    status, report = warm(folder, "jobs:job", file, "--concurrency", "1")
    assert (status, report["answered"], report["computed"]) == (0, 3, 0)


def test_coroutines_are_awaited(folder: Path) -> None:
    """A coroutine function runs in tasks."""
    status, report = warm(folder, "jobs:ajob", write(folder, *range(20)), "--concurrency", "3")
    assert (status, report["computed"]) == (0, 20)
    assert len(calls(folder)) == 20


def test_failures_are_summed_up_and_kept(folder: Path) -> None:
    """A line that can't be read, or whose call fails, is named; the others are done."""
    path = folder / "in.jsonl"
    path.write_bytes(b'1\n\n{"n": 13}\n{nonsense\n\xff\xfe\n2\n{"no": 1}')
    status, report = warm(folder, "jobs:job", "in.jsonl", "--failures", "again.jsonl")
    assert (status, report["lines"], report["computed"] >= 2) == (1, 6, True)
    assert [each["line"] for each in report["failures"]] == [3, 4, 5, 7]
    assert report["failures"][0]["error"] == "ValueError: thirteen"
    assert (folder / "again.jsonl").read_bytes() == (b'{"n": 13}\n{nonsense\n\xff\xfe\n{"no": 1}\n')
    child = start(folder, "jobs:job", "in.jsonl")
    out, err = child.communicate(timeout=120)
    assert "4 failed" in out
    assert "line 3: ValueError: thirteen" in err


def test_a_plain_function_is_kept_by_type(folder: Path) -> None:
    """A function that keeps nothing is said to, and `--type` keeps its results."""
    file = write(folder, 1, 2)
    child = start(folder, "jobs:plain", file)
    _, err = child.communicate(timeout=120)
    assert "keeps nothing by itself" in err
    for _ in range(2):
        assert warm(folder, "jobs:plain", file, "--type", "made", "--ttl", "1h")[0] == 0
    assert calls(folder) == ["1", "1", "2", "2"]


@pytest.fixture
def halfway(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has done lines 0 to 2 and hangs in line 3."""
    (folder / "wait").touch()
    child = start(folder, "jobs:slow", write(folder, *range(6)), "--concurrency", "1")
    assert child.stdout is not None
    assert [child.stdout.readline() for _ in range(4)] == ["begun\n"] * 4
    yield child
    (folder / "wait").unlink(missing_ok=True)
    if child.poll() is None:
        child.kill()
    child.communicate()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_interrupted_and_run_again(folder: Path, halfway: subprocess.Popen[str]) -> None:
    """Ctrl-C ends it with status 130, and the next run computes only what is left."""
    halfway.send_signal(signal.SIGINT)
    (folder / "wait").unlink()
    _, err = halfway.communicate(timeout=60)
    assert halfway.returncode == 130
    assert "run it again to go on" in err
    assert "Traceback" not in err
    done = len(calls(folder))
    status, report = warm(folder, "jobs:slow", "in.jsonl")
    assert (status, report["answered"] + report["computed"]) == (0, 6)
    assert report["answered"] >= 3
    assert len(calls(folder)) == done + report["computed"]


def test_killed_and_run_again(folder: Path, halfway: subprocess.Popen[str]) -> None:
    """After a crash, what was done is there."""
    halfway.kill()
    halfway.communicate()
    (folder / "wait").unlink()
    status, report = warm(folder, "jobs:slow", "in.jsonl")
    assert (status, report["answered"], report["computed"]) == (0, 3, 3)


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["jobs:job", "no.jsonl"], 2, "no.jsonl"),
        (["jobs", "in.jsonl"], 2, "package.module:function"),
        (["nowhere:job", "in.jsonl"], 1, "can't be imported"),
        (["jobs:nothing", "in.jsonl"], 1, "has no nothing"),
        (["jobs:JOB.x", "in.jsonl"], 1, "has no JOB.x"),
        (["jobs:os", "in.jsonl"], 1, "can't be called"),
        (["broken:job", "in.jsonl"], 1, "broken fails: ZeroDivisionError"),
        (["jobs:job", "in.jsonl", "--type", "x"], 2, "cached already"),
        (["jobs:plain", "in.jsonl", "--ttl", "1h"], 2, "--ttl goes with --type"),
        (["jobs:plain", "in.jsonl", "--type", "x", "--ttl", "soon"], 2, "soon"),
        (["jobs:job", "in.jsonl", "--cache", "memory://"], 2, "nothing to warm"),
        (["jobs:job", "in.jsonl", "--cache", "mongodb://x"], 2, "a cache URL begins with"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, args: list[str], status: int, says: str) -> None:
    """A wrong name, a missing file, a contradiction: one line, no traceback."""
    (folder / "broken.py").write_text("1 / 0\n")
    write(folder, 1)
    child = start(folder, *args)
    _, err = child.communicate(timeout=120)
    assert child.returncode == status
    assert says in err
    assert "Traceback" not in err
