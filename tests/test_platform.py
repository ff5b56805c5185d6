"""What differs between systems: locks, modes, forks, cores and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memoleo._platform import file_locks, files, processors

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")


def test_one_byte_has_one_holder(tmp_path: Path) -> None:
    """A byte is locked once in a process, freed by its own lock only, and then free again."""
    file = file_locks.open_lock_file(str(tmp_path / "x.lock"))
    same = file_locks.open_lock_file(str(tmp_path / "x.lock"))
    assert file is same
    offset = file_locks.SLOTS - 1
    lock = file.acquire(offset)
    assert lock is not None
    assert same.acquire(offset) is None
    lock.release()
    again = same.acquire(offset)
    assert again is not None
    lock.release()
    assert file.acquire(offset) is None
    del again
    last = file.acquire(offset)
    assert last is not None
    file.close()
    same.close()
    last.release()
    assert same.descriptor == -1


def another_gets(path: str, offset: int) -> bool:
    """Whether another process can lock a byte."""
    code = f"""
from memoleo._platform.file_locks import open_lock_file
print(open_lock_file({path!r}).acquire({offset}))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout != "None\n"


@posix
def test_another_process_sees_the_lock(tmp_path: Path) -> None:
    """The lock is the system's: others can take it once it is released or forgotten."""
    path = str(tmp_path / "x.lock")
    file = file_locks.open_lock_file(path)
    lock = file.acquire(5)
    assert lock is not None
    assert not another_gets(path, 5)
    lock.release()
    assert another_gets(path, 5)
    forgotten = file.acquire(5)
    assert not another_gets(path, 5)
    del forgotten
    assert another_gets(path, 5)
    file.close()


@posix
def test_a_lock_that_a_signal_handler_stopped_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that comes just after the byte was locked leaves it to others."""
    take = file_locks._lock

    def stopped(descriptor: int, mode: int, length: int, offset: int) -> None:
        take(descriptor, mode, length, offset)
        if mode == file_locks._EXCLUSIVE:
            raise KeyboardInterrupt

    path = str(tmp_path / "x.lock")
    file = file_locks.open_lock_file(path)
    monkeypatch.setattr(file_locks, "_lock", stopped)
    with pytest.raises(KeyboardInterrupt):
        file.acquire(5)
    monkeypatch.undo()
    assert another_gets(path, 5)
    assert file.acquire(5) is not None
    file.close()


@posix
def test_a_private_file_is_new_and_private(tmp_path: Path) -> None:
    """It is made once, with mode 0600 under any umask, and never through a link."""
    before = os.umask(0)
    try:
        assert files.create_private_file(str(tmp_path / "a")) is True
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert files.create_private_file(str(tmp_path / "a")) is False
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert files.create_private_file(str(tmp_path / "link")) is False
    assert not (tmp_path / "b").exists()


def test_cores() -> None:
    """There is at least one core, and never more of them than processors."""
    assert 1 <= processors.physical_cores() <= (os.cpu_count() or 1)


@posix
def test_the_end_by_a_signal_is_seen_by_the_parent() -> None:
    """The status is that of a process which the signal has ended."""
    code = """
import signal
from memoleo._platform.processes import end_by_signal
end_by_signal(signal.SIGTERM)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM


@posix
def test_a_watched_file_keeps_one_descriptor(tmp_path: Path) -> None:
    """All users of a file share a descriptor, which goes when the file has gone."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    first, second = (files.WatchedFile.open(str(path)) for _ in range(2))
    assert first is second
    assert first.length() == 10
    os.truncate(path, 3)
    assert first.length() == 3
    first.release()
    assert second.length() == 3
    path.unlink()
    second.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second.descriptor)


class Forgotten:
    """Uses a file until the collector finds it."""

    def __init__(self, path: Path) -> None:
        self.file = files.WatchedFile.open(str(path))

    def __del__(self) -> None:
        self.file.release()


@posix
@pytest.mark.parametrize("deleted", [False, True], ids=["kept", "deleted"])
@pytest.mark.parametrize("opens", [False, True], ids=["release", "open"])
def test_a_file_is_watched_though_others_are_forgotten_meanwhile(
    tmp_path: Path, opens: bool, deleted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finalizers may come at any line, and leave nobody with a descriptor that is closed."""
    monkeypatch.setattr(files.WatchedFile, "_PARKED", 0)
    watched = files.WatchedFile._watched
    known = set(watched)
    forgotten: list[Forgotten] = []
    left = 0

    def forget_after(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                forgotten.clear()
        return forget_after

    traced = sys.gettrace()
    for line in range(1, 100):
        path, other = tmp_path / f"{line}", tmp_path / f"{line} other"
        for one in (path, other):
            one.touch()
        mine = None if opens else files.WatchedFile.open(str(path))
        forgotten = [Forgotten(path), Forgotten(other)]
        if deleted:
            other.unlink()
        left = line
        sys.settrace(forget_after)
        try:
            if mine is None:
                mine = files.WatchedFile.open(str(path))
            else:
                mine.release()
                mine = None
        finally:
            sys.settrace(traced)
        if mine is not None:
            assert os.fstat(mine.descriptor).st_ino == path.stat().st_ino
            mine.release()
        forgotten.clear()
        assert set(watched) <= known
        if left > 0:
            break
    assert line > 5
