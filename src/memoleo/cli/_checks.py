"""What ``memoleo doctor`` looks at."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from memoleo._default import default_url
from memoleo._urls import open_backend
from memoleo.cli._common import is_store, size_text, store_path
from memoleo.cli._version import version
from memoleo.config import Settings, load_settings
from memoleo.errors import ConfigError

__all__ = ["Finding", "examine"]

LITTLE_ROOM = 512 * 1024**2


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Parameters
    ----------
    check
        what was looked at
    status
        "ok", "warning" (worth knowing) or "problem" (something doesn't work)
    message
        what was found
    advice
        what to do about it
    """

    check: str
    status: Literal["ok", "warning", "problem"]
    message: str
    advice: str = ""


def examine(url: str | None) -> Iterator[Finding]:
    """Look at everything that the default cache, or the one at `url`, depends on."""
    yield _python()
    place = url
    try:
        settings = load_settings()
        place = url or settings.cache_url or default_url()
    except ConfigError as error:
        yield Finding("settings", "problem", str(error), "Correct it, or remove the setting.")
        settings = Settings()
    else:
        yield _settings(settings)
    if place is not None:
        yield from _store(place)
    yield _ollama(settings.ollama.base_url)


def _python() -> Finding:
    text = f"memoleo {version()}, Python {platform.python_version()}, {platform.platform()}"
    if sys.implementation.name != "cpython":
        return Finding(
            "python", "warning", text, "memoleo is tested on CPython; others are on their own."
        )
    return Finding("python", "ok", text)


def _settings(settings: Settings) -> Finding:
    place = settings.file or "no file, the defaults"
    if not settings.enabled:
        return Finding(
            "settings",
            "warning",
            f"{place}: caching is switched off",
            f"Switch it on in {settings.origins['caching.enabled']}.",
        )
    return Finding("settings", "ok", place)


def _store(url: str) -> Iterator[Finding]:
    try:
        backend = open_backend(url)
    except ConfigError as error:
        yield Finding("store", "problem", str(error), "Correct the URL of the cache.")
        return
    path = store_path(url)
    if path is None:
        yield Finding("store", "ok", f"{url} lives inside each process")
    elif not path.exists():
        yield _folder(path)
    elif not is_store(path):
        yield Finding(
            "store",
            "problem",
            f"{path} is no cache, or its beginning is overwritten",
            "Name another file with MEMOLEO_CACHE; or remove this one, if nobody needs it.",
        )
    else:
        yield _room(path)
        before = _put_aside(path)
        try:
            yield from _contents(backend)
        finally:
            backend.close()
        yield from _damage(before, _put_aside(path))


def _folder(path: Path) -> Finding:
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(
            "store",
            "problem",
            f"{path} can't be created: {folder} can't be written",
            "Give yourself the right to write there, or choose another place with MEMOLEO_CACHE.",
        )
    return Finding("store", "ok", f"{path} will be created when a first result is stored")


def _room(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    text = f"{path}, {size_text(path.stat().st_size)}, {size_text(free)} free beside it"
    if free < LITTLE_ROOM:
        return Finding("store", "warning", text, "Make room, or remove entries: memoleo clear.")
    return Finding("store", "ok", text)


def _contents(backend: object) -> Iterator[Finding]:
    for store in getattr(backend, "tiers", (backend,)):
        check = getattr(store, "check", None)
        if check is None:
            continue
        report = check()
        for problem in report["problems"]:
            yield Finding(
                "contents",
                "problem",
                problem,
                "" if "chmod" in problem else "If it stays, remove the file: results come again.",
            )
        if not report["problems"]:
            entries = report.get("entries", 0)
            yield Finding("contents", "ok", f"{entries:,} entries, every page is in order")


def _put_aside(path: Path) -> set[str]:
    return {other.name for other in path.parent.glob(f"{glob.escape(path.name)}.corrupt-*")}


def _damage(before: set[str], after: set[str]) -> Iterator[Finding]:
    for name in sorted(after - before):
        yield Finding(
            "contents",
            "problem",
            f"the file was damaged: it was put aside as {name}, and a new one has begun",
            "Look after the disk if it happens again; results are computed anew.",
        )
    for name in sorted(after & before):
        yield Finding(
            "contents",
            "warning",
            f"a damaged file was put aside earlier: {name}",
            "Remove it when nobody wants to look at it any more.",
        )


def _ollama(host: str | None) -> Finding:
    import ollama

    place = host or os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
    try:
        models = ollama.Client(host=host, timeout=2.0).list().models
    except Exception as error:
        reason = str(error).split(". ")[0] or type(error).__name__
        return Finding(
            "ollama",
            "warning",
            f"no answer at {place}: {reason}",
            "Needed only by programs that ask it: start it with ollama serve, or set OLLAMA_HOST.",
        )
    return Finding("ollama", "ok", f"{place}, {len(models)} models")
