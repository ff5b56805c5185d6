"""Whether a store is in order, and what to do if not."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from memoleo._platform.files import is_open_to_others
from memoleo._units import size_text

__all__ = [
    "NOT_KEPT",
    "Finding",
    "damage",
    "look_at",
    "put_aside",
    "room",
    "scrutinize",
    "why_unreadable",
]

LITTLE_ROOM = 512 * 1024**2

_NOBODY = bytes(32)


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


NOT_KEPT = Finding(
    "metrics",
    "warning",
    "metrics are kept beside caches in files only: here they end with each program",
    "Show them from the program itself: memoleo.get_metrics(), or memoleo.serve.asgi_app().",
)
"""What there is to say where there is no file for metrics."""


def look_at(backend: Any) -> Iterator[Finding]:
    """Look at what can be seen at a glance, without reading the entries."""
    for store in _stores(backend):
        place = getattr(store, "path", None)
        path = None if place is None else Path(place)
        if path is not None and not path.exists():
            yield Finding("store", "ok", f"{path} will be created when a first result is stored")
            continue
        failure = why_unreadable(store)
        if failure is not None:
            yield Finding("store", "problem", f"it can't be read: {failure}", "See memoleo doctor.")
            continue
        if path is None:
            continue
        yield room(path)
        if is_open_to_others(path.stat().st_mode):
            yield Finding("store", "problem", f"{path}: other users can read it", _closed(path))
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            yield Finding(
                "store",
                "problem",
                f"{path} can't be written: results are served, and none is stored",
                "Give yourself the right to write the file and its folder.",
            )
        aside = put_aside(path)
        yield from damage(aside, aside)


def why_unreadable(store: Any) -> str | None:
    """Read one entry that isn't there, and return what went wrong; `None` if nothing did."""
    try:
        store.get(_NOBODY)
    except Exception as error:
        return str(error) or repr(error)
    return None


def scrutinize(backend: Any) -> Iterator[Finding]:
    """Examine every page of a store, which takes as long as reading its file."""
    for store in _stores(backend):
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


def room(path: Path) -> Finding:
    """Say how large a file is and how much room is beside it."""
    free = shutil.disk_usage(path.parent).free
    text = f"{path}, {size_text(path.stat().st_size)}, {size_text(free)} free beside it"
    if free < LITTLE_ROOM:
        return Finding("store", "warning", text, "Make room, or remove entries: memoleo clear.")
    return Finding("store", "ok", text)


def put_aside(path: Path) -> set[str]:
    """Return the names of damaged files that were put aside for a new one."""
    return {other.name for other in path.parent.glob(f"{glob.escape(path.name)}.corrupt-*")}


def damage(before: set[str], after: set[str]) -> Iterator[Finding]:
    """Tell of files that were put aside while one looked, and of those from earlier."""
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


def _stores(backend: Any) -> tuple[Any, ...]:
    stores: tuple[Any, ...] = getattr(backend, "tiers", (backend,))
    return stores


def _closed(path: Path) -> str:
    return f"chmod 600 {path}"
