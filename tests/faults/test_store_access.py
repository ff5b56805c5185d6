"""Files that can't be read, written, found or locked: right answers, or an error at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memoleo._entry import Entry
from memoleo.backends.sqlite import SQLiteBackend
from memoleo.errors import BackendError

posix = pytest.mark.skipif(os.name != "posix", reason="file modes and mounts of POSIX")


def entry(key: bytes, size: int = 100) -> Entry:
    return Entry(key[:1] * size, "test", time.time(), 3600.0)


KEY, OTHER = b"k" * 32, b"o" * 32


@contextlib.contextmanager
def holding(path: Path, statement: str) -> Iterator[None]:
    """Let another process hold a lock of SQLite on the file."""
    code = (
        "import sqlite3, sys\n"
        f"connection = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
        f"connection.executescript({statement!r})\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.kill()


@pytest.mark.parametrize(
    "statement",
    ["BEGIN IMMEDIATE", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; SELECT 1 FROM entries"],
    ids=["writing", "exclusive"],
)
@pytest.mark.parametrize("opened", [True, False], ids=["open", "not-yet-open"])
def test_a_lock_held_by_another_process(tmp_path: Path, statement: str, opened: bool) -> None:
    """A foreign lock delays a look, a store and a look together by less than 100 ms."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    if not opened or "EXCLUSIVE" in statement:
        backend.close()
    waits = []
    with holding(path, statement):
        for _ in range(5):
            begun = time.process_time(), time.monotonic()
            failures = 0
            for step in (
                lambda: backend.get(KEY),
                lambda: backend.set(OTHER, entry(OTHER)),
                lambda: backend.get(KEY),
            ):
                try:
                    found = step()
                except BackendError:
                    failures += 1
                else:
                    assert found is None or found.payload == entry(KEY).payload
            assert failures >= 1
            waits.append(time.monotonic() - begun[1] - 5 * (time.process_time() - begun[0]))
        # A busy machine may hold up one or two of them itself.
        assert sorted(waits)[2] < 0.1
        if "EXCLUSIVE" not in statement:
            assert backend.get(KEY) is not None
    deadline = time.monotonic() + 10
    while True:
        try:
            backend.set(OTHER, entry(OTHER))
            break
        except BackendError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert backend.get(OTHER) is not None
    assert backend.get(KEY) is not None
    backend.close()


def look_soon(*backends: SQLiteBackend) -> None:
    """Let the second pass after which a store sees whether its file is still there."""
    for backend in backends:
        backend._runner.next_look = 0.0


def test_a_deleted_file_is_noticed_by_a_writer(tmp_path: Path) -> None:
    """No store into a deleted file fails, and within a second there is a new file."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    path.unlink()
    deadline = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < deadline
        backend.set(OTHER, entry(OTHER))
        time.sleep(0.02)
    assert backend.get(KEY) is None
    backend.set(KEY, entry(KEY))
    backend.close()
    assert len(list(SQLiteBackend(path).entries())) >= 1


def test_the_file_is_deleted_while_open(tmp_path: Path) -> None:
    """Storing notices within a second and starts a new file; the old entries are gone."""
    path = tmp_path / "deep" / "store.db"
    backend, idle = SQLiteBackend(path), SQLiteBackend(path)
    for _ in range(3):
        backend.set(KEY, entry(KEY))
        assert idle.get(KEY) is not None
        before = backend.epoch()
        path.unlink()
        look_soon(backend, idle)
        backend.set(OTHER, entry(OTHER))
        assert path.exists()
        assert backend.get(KEY) is None
        assert backend.get(OTHER) is not None
        assert backend.epoch() != before
        idle.set(KEY, entry(KEY))
        assert backend.get(KEY) is not None
        idle.delete(KEY)
    shutil.rmtree(path.parent)
    look_soon(backend)
    backend.set(KEY, entry(KEY))
    assert path.exists()
    assert [key for key, _ in backend.entries()] == [KEY]
    backend.close()
    idle.close()


def test_a_deleted_file_is_noticed_by_a_reader(tmp_path: Path) -> None:
    """Who only reads notices within a second that there is another file."""
    path = tmp_path / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    path.unlink()
    deadline = time.monotonic() + 5
    while backend.get(KEY) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    backend.close()


@posix
def test_files_are_private(tmp_path: Path) -> None:
    """Whatever the umask, only the owner can read the files, and enter a folder made for them."""
    path = tmp_path / "new" / "store.db"
    before = os.umask(0)
    try:
        backend = SQLiteBackend(path)
        backend.set(KEY, entry(KEY))
        lease = backend.lease(KEY)
    finally:
        os.umask(before)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [
        "store.db",
        "store.db-shm",
        "store.db-wal",
        "store.db.lock",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert lease is not None
    backend.close()


@posix
@pytest.mark.parametrize("dangling", [True, False])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, dangling: bool) -> None:
    """A link in a shared folder makes the cache neither create nor change a file elsewhere."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    target, path = tmp_path / "victim", shared / "store.db"
    if not dangling:
        SQLiteBackend(target).set(KEY, entry(KEY))
        SQLiteBackend(target).close()
    before = target.read_bytes() if target.exists() else None
    path.symlink_to(target)
    backend = SQLiteBackend(path)
    for action in (lambda: backend.get(KEY), lambda: backend.set(OTHER, entry(OTHER))):
        with pytest.raises(BackendError, match="symbolic link"):
            action()
    lease = backend.lease(KEY)
    assert lease is not None
    lease.release()
    backend.close()
    assert (target.read_bytes() if target.exists() else None) == before
    assert path.is_symlink()


@posix
def test_a_link_in_place_of_the_locks_is_not_followed(tmp_path: Path) -> None:
    """A link in place of the file of locks creates nothing elsewhere, and holds nobody up."""
    path = tmp_path / "store.db"
    (tmp_path / "store.db.lock").symlink_to(tmp_path / "victim")
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    lease = backend.lease(KEY)
    assert lease is not None
    lease.release()
    backend.close()
    assert not (tmp_path / "victim").exists()


@posix
def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    """A pipe, which would block whoever opens it, and a folder are refused."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        backend = SQLiteBackend(tmp_path / name)
        with pytest.raises(BackendError, match="not a regular file"):
            backend.set(KEY, entry(KEY))
        backend.close()


def run_unprivileged(code: str) -> None:
    """Run code as a user to whom file modes apply, which they don't for root."""
    prologue = (
        # The interpreter's own library may be out of reach afterwards.
        "import logging, os, sqlite3, time, urllib.parse\n"
        "from memoleo._entry import Entry\n"
        "from memoleo.backends.sqlite import SQLiteBackend\n"
        "from memoleo.errors import BackendError\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "KEY, OTHER = b'k' * 32, b'o' * 32\n"
        "def entry(key):\n"
        "    return Entry(key[:1] * 100, 'test', time.time(), 3600.0)\n"
        "def refused(action):\n"
        "    try:\n"
        "        action()\n"
        "    except BackendError as error:\n"
        "        return str(error)\n"
        "    raise AssertionError('it was not refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", prologue + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can reach, which pytest's own are not."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@posix
@pytest.mark.parametrize("logged", [False, True], ids=["closed", "log-left-behind"])
@pytest.mark.parametrize("folder_mode", [0o555, 0o777], ids=["folder", "file"])
def test_read_only(open_folder: Path, folder_mode: int, logged: bool) -> None:
    """In a read-only folder, or with a read-only file, hits are served and storing is refused."""
    path = open_folder / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    if logged:
        for name in ("", "-wal"):
            shutil.copy(f"{path}{name}", open_folder / f"copy.db{name}")
        backend.close()
        for file in open_folder.glob("store*"):
            file.unlink()
        path = open_folder / "copy.db"
    else:
        backend.close()
        (open_folder / "store.db.lock").unlink(missing_ok=True)
    for file in open_folder.iterdir():
        file.chmod(0o444)
    open_folder.chmod(folder_mode)
    can_be_read = not (logged and folder_mode == 0o555)
    run_unprivileged(
        f"backend = SQLiteBackend({str(path)!r})\n"
        f"for _ in range(3 if {can_be_read} else 0):\n"
        "    assert backend.get(KEY).payload == entry(KEY).payload\n"
        "    assert backend.get(OTHER) is None\n"
        "    assert len(list(backend.entries())) == backend.stats().entries == 1\n"
        "    refused(lambda: backend.set(OTHER, entry(OTHER)))\n"
        "    refused(lambda: backend.delete(KEY))\n"
        "    lease = backend.lease(KEY)\n"
        "    lease.release()\n"
        f"if not {can_be_read}:\n"
        "    refused(lambda: backend.get(KEY))\n"
        "assert backend.check()['problems']\n"
        "backend.close()\n"
    )


@posix
def test_a_folder_without_any_right(open_folder: Path) -> None:
    """Where nothing can be created, the error names the file."""
    open_folder.chmod(0o555)
    path = open_folder / "sub" / "store.db"
    run_unprivileged(
        f"backend = SQLiteBackend({str(path)!r})\n"
        f"assert {str(path)!r} in refused(lambda: backend.get(KEY))\n"
        f"assert {str(path)!r} in refused(lambda: backend.set(KEY, entry(KEY)))\n"
    )


@posix
def test_a_file_of_somebody_else_in_a_shared_folder(open_folder: Path) -> None:
    """A file that another user put into a folder for everybody is not trusted."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = open_folder / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    backend.close()
    os.chown(path, 12345, 12345)
    path.chmod(0o666)
    open_folder.chmod(0o1777)
    run_unprivileged(
        f"backend = SQLiteBackend({str(path)!r})\n"
        "assert 'another user' in refused(lambda: backend.get(KEY))\n"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> None:
    """Fill a disk to the last byte."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65_536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_disk_that_was_full_before(small_disk: Path) -> None:
    """On a full disk nothing is found and nothing stored; when there is room again, it works."""
    fill(small_disk)
    backend = SQLiteBackend(small_disk / "store.db")
    for _ in range(3):
        with pytest.raises(BackendError):
            backend.set(KEY, entry(KEY))
        with pytest.raises(BackendError):
            backend.get(KEY)
    (small_disk / "ballast").unlink()
    deadline = time.monotonic() + 5
    while True:
        try:
            backend.set(KEY, entry(KEY))
            break
        except BackendError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert backend.get(KEY) is not None
    backend.close()


def test_an_older_file_on_a_full_disk(small_disk: Path) -> None:
    """It is not begun to be rewritten where there is no room, and read once there is."""
    path = small_disk / "store.db"
    shutil.copy(Path(__file__).parent.parent / "data" / "format2.sqlite", path)
    fill(small_disk)
    ballast = small_disk / "ballast"
    os.truncate(ballast, ballast.stat().st_size - 65_536)
    key = (7).to_bytes(32, "big")
    backend = SQLiteBackend(path)
    with pytest.raises(BackendError, match="no room to rewrite"):
        backend.get(key)
    ballast.unlink()
    deadline = time.monotonic() + 5
    while True:
        try:
            assert backend.get(key) is not None
            break
        except BackendError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    backend.close()


@pytest.mark.parametrize("reopened", [False, True], ids=["open", "reopened"])
def test_a_disk_that_fills_up(small_disk: Path, reopened: bool) -> None:
    """When the disk fills up, what is stored stays readable; with room again, storing works."""
    path = small_disk / "store.db"
    backend = SQLiteBackend(path)
    backend.set(KEY, entry(KEY))
    if reopened:
        backend.close()
    fill(small_disk)
    failures = 0
    for number in range(200):
        key = number.to_bytes(32, "big")
        try:
            backend.set(key, entry(key, 20_000))
        except BackendError:
            failures += 1
        found = backend.get(KEY)
        assert found is not None
        assert found.payload == entry(KEY).payload
    assert failures >= 150
    (small_disk / "ballast").unlink()
    deadline = time.monotonic() + 5
    while True:
        try:
            backend.set(OTHER, entry(OTHER))
            break
        except BackendError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert backend.get(OTHER) is not None
    assert backend.check()["intact"]
    backend.close()


def test_real_sqlite_full_without_a_mount(tmp_path: Path) -> None:
    """A store that SQLite itself calls full refuses to grow, and stays readable."""
    backend = SQLiteBackend(tmp_path / "store.db")
    backend.set(KEY, entry(KEY))
    backend._runner.run(lambda link: link.execute("PRAGMA max_page_count = 20").fetchall())
    with pytest.raises(BackendError, match="no room"):
        backend.set(OTHER, entry(OTHER, 500_000))
    assert backend.get(OTHER) is None
    assert backend.get(KEY) is not None
    backend.set(OTHER, entry(OTHER, 10))
    assert backend.get(OTHER) is not None
    backend.close()


def test_a_store_too_old_to_read_is_not_locked_out(tmp_path: Path) -> None:
    """An empty file, as a process leaves that dies while creating it, becomes a store."""
    path = tmp_path / "store.db"
    path.touch(0o600)
    backend = SQLiteBackend(path)
    assert backend.get(KEY) is None
    backend.set(KEY, entry(KEY))
    backend.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM entries").fetchone() == (1,)
    connection.close()
