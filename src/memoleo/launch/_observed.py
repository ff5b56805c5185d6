"""What ``memoleo run --observe`` saw: written down by every process, summed up at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from memoleo._events import Event

__all__ = ["OUTCOMES", "Recorder", "Saving", "Sighting", "read_sightings", "sum_up"]

OUTCOMES = ("would_hit", "would_miss")
"""The events that are written down."""


class Sighting(msgspec.Struct, frozen=True, array_like=True):
    """One call that was observed.

    Parameters
    ----------
    at
        when it ended, in seconds since the epoch
    type, key
        its category and its key
    known
        whether its process would have had the answer
    ms
        what it took
    """

    at: float
    type: str
    key: bytes
    known: bool
    ms: float


class Saving(msgspec.Struct):
    """What enabling would have saved for one type.

    Parameters
    ----------
    calls, hits
        how many calls there were, and for how many of them an answer would have been there
    total_ms, saved_ms
        what the calls took together, and those that would have been hits
    """

    calls: int = 0
    hits: int = 0
    total_ms: float = 0.0
    saved_ms: float = 0.0


class Recorder:
    """A hook that appends every observed call to a file of its process.

    Each line is written at once: a process that is killed has told what it saw.

    Parameters
    ----------
    folder
        where the files are
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process = 0
        self._file = -1

    def __call__(self, event: Event) -> None:
        with suppress(OSError):  # whoever collects may have gone
            self._write(event)

    def _write(self, event: Event) -> None:
        if self._process != os.getpid():
            path = os.path.join(self._folder, f"{os.getpid()}.jsonl")
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._process = os.getpid()
        known = event.outcome == "would_hit"
        seen = Sighting(time.time(), event.type, event.key, known, event.ms)
        os.write(self._file, msgspec.json.encode(seen) + b"\n")


def read_sightings(folder: str) -> list[Sighting]:
    """Return what all processes saw, in the order of time; a line cut short is left out."""
    found = []
    for path in Path(folder).glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                found.append(msgspec.json.decode(line, type=Sighting))
            except msgspec.MsgspecError:
                continue
    return sorted(found, key=lambda each: each.at)


def sum_up(sightings: Iterable[Sighting], ttl_for: Callable[[str], float]) -> dict[str, Saving]:
    """Return the savings per type.

    A call that another process had made before would have been answered by the cache that they
    share, so it counts as a hit although its own process didn't know it.

    Parameters
    ----------
    sightings
        in the order of time
    ttl_for
        returns how many seconds entries of a type are fresh
    """
    savings: dict[str, Saving] = {}
    computed: dict[bytes, float] = {}
    for each in sightings:
        saving = savings.setdefault(each.type, Saving())
        saving.calls += 1
        saving.total_ms += each.ms
        before = computed.get(each.key)
        if each.known or (before is not None and each.at - before < ttl_for(each.type)):
            saving.hits += 1
            saving.saved_ms += each.ms
        else:
            computed[each.key] = each.at
    return savings
