"""Entries in Redis or Valkey, which machines may share. Needs ``memoleo[redis]``."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from memoleo._breaker import BreakerPolicy, Breakers
from memoleo._entry import Entry
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo._units import parse_duration
from memoleo.backends._protocol import BackendStats, Lease
from memoleo.backends._redis_commands import (
    Command,
    Found,
    Names,
    block_of,
    found_in,
    store_commands,
)
from memoleo.backends._redis_leases import Leases
from memoleo.errors import BackendError, ConfigError, CorruptEntry

__all__ = ["RedisBackend", "Server"]

_LARGEST = 128 * 1024**2
_STEP = 500
_PAGE = 64
_MOST_NOTES = 512
_OPEN_FOR = 5.0


class Server(Protocol):
    """What carries commands to a server.

    Attributes
    ----------
    place
        where it is, without credentials
    text
        whether it carries text only
    """

    place: str
    text: bool

    def run(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        """Carry out commands, in one go or none, and return their answers: bytes and numbers."""
        ...

    def close(self) -> None:
        """Let go of connections; a later use opens new ones."""
        ...


class RedisBackend:
    """Keeps entries in a Redis or Valkey server.

    A server that can't be reached costs at most two calls the timeout; then it is left alone for
    5 seconds, and asked again. Entries expire by themselves. What is to go for lack of room is the
    server's own affair: ``maxmemory-policy allkeys-lru``.

    Parameters
    ----------
    url
        ``redis://host:6379/0``, or ``rediss://`` for TLS; with user and password if need be
    prefix
        what the names of its keys begin with, to tell caches on one server apart
    timeout
        how long to wait for an answer, in seconds or as text such as "250ms"

    Raises
    ------
    ConfigError
        the library is not installed, or an argument is wrong

    Attributes
    ----------
    own_bumps
        how often this object removed or replaced something, and changed the epoch of others
    """

    remote = True
    epoch_holds = 1.0
    """Seconds after which the server is asked for its epoch again."""

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "memoleo",
        timeout: float | str = 0.5,
    ) -> None:
        from memoleo.backends._redis_server import RedisServer

        self._begin(RedisServer(url, parse_duration(timeout, "timeout")), prefix, lease=10.0)

    def _begin(self, server: Server, prefix: str, *, lease: float) -> None:
        if not isinstance(prefix, str) or not prefix:
            raise ConfigError(f"prefix={prefix!r} is not text")
        self._server = server
        self._names = Names(prefix)
        self._breakers = Breakers(BreakerPolicy(failures=2, open_for=_OPEN_FOR))
        self._leases = Leases(self._one, lease)
        self.own_bumps = 0
        self._known_epoch = 0
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._epoch_until = 0.0
        self._bumping = Lock()

    @property
    def place(self) -> str:
        """Where it keeps entries: the server, without credentials, and the prefix."""
        return f"{self._server.place} {self._names.prefix}"

    def get(self, key: bytes) -> Entry | None:
        """See `Backend.get`."""
        name = self._names.entry(key)
        row = self._one(("HMGET", name, "b", "t"))
        try:
            block = block_of(row)
            return None if block is None else Entry.from_bytes(key, block)
        except (CorruptEntry, ValueError) as error:
            with suppress(BackendError):
                self._one(("DEL", name))
            if isinstance(error, CorruptEntry):
                raise
            raise CorruptEntry(f"unreadable block under {key.hex()}: {error}") from None

    def set(self, key: bytes, entry: Entry) -> None:
        """See `Backend.set`."""
        if entry.size > _LARGEST:
            self.delete(key)
            return
        name = self._names.entry(key)
        now = time.time()
        commands = store_commands(name, key, entry, now, text=self._server.text)
        old = found_in(b"", self._run(commands, atomic=True)[0][0])
        if old is not None and old.expires > now and old.created < entry.created:
            # Whoever has the old one in memory must drop it.
            self._bump()

    def delete(self, key: bytes) -> bool:
        """See `Backend.delete`."""
        gone = bool(self._one(("DEL", self._names.entry(key)), insist=True))
        if gone:
            self._bump(insist=True)
        return gone

    def clear(
        self,
        *,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
    ) -> int:
        """See `Backend.clear`. It goes through all entries, in steps."""
        return self._remove(lambda found: found.matches(type, tag, label, before), tell=True)

    def clear_expired(self, now: float) -> int:
        """See `Backend.clear_expired`. Entries expire without it as well."""
        return self._remove(lambda found: found.matches(expired=now), tell=False)

    def entries(
        self, *, type: str | None = None, tag: str | None = None, label: str | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """See `Backend.entries`."""
        chosen = [found for found in self._all() if found.matches(type, tag, label)]
        chosen = heapq.nlargest(len(chosen), chosen, key=lambda found: found.created)
        for start in range(0, len(chosen), _PAGE):
            page = chosen[start : start + _PAGE]
            rows = self._run([("HMGET", found.name, "b", "t") for found in page], insist=True)
            for found, row in zip(page, rows, strict=True):
                key = self._names.key(found.name)
                try:
                    block = block_of(row)
                    if block is not None:
                        yield key, Entry.from_bytes(key, block)
                except (CorruptEntry, ValueError):
                    continue

    def stats(self) -> BackendStats:
        """See `Backend.stats`. It goes through all entries, in steps."""
        by_type: dict[str, int] = {}
        size = 0
        for found in self._all():
            by_type[found.type] = by_type.get(found.type, 0) + 1
            size += found.size
        return BackendStats(
            entries=sum(by_type.values()),
            bytes=size,
            by_type=by_type,
            details={"place": self._server.place, "prefix": self._names.prefix},
        )

    def lease(self, key: bytes) -> Lease | None:
        """See `Backend.lease`. It dies within seconds after its process."""
        return self._leases.take(self._names.lease(key))

    def close(self) -> None:
        """See `Backend.close`."""
        self._server.close()

    def epoch(self) -> int:
        """Return a number that changes when somebody else removed or replaced an entry.

        See `SQLiteBackend.epoch`. The server is asked once a second at most.
        """
        now = time.monotonic()
        if now >= self._epoch_until:
            self._epoch_until = now + self.epoch_holds
            with self._bumping:
                epoch = int(self._one(("GET", self._names.epoch)) or 0)
                self._known_epoch = epoch - self.own_bumps
        return self._known_epoch

    def note(self, room: str, name: bytes, block: bytes) -> None:
        """See `Notebook.note`."""
        place = self._names.room(room)
        row = f"{time.time():.3f} {block.hex()}"
        _, count = self._run([("HSET", place, name.hex(), row), ("HLEN", place)])
        if int(count) > 2 * _MOST_NOTES:
            names = [each for _, each, _ in self._notes(place)[_MOST_NOTES:]]
            self._one(("HDEL", place, *names))

    def notes(self, room: str) -> list[tuple[bytes, bytes]]:
        """See `Notebook.notes`."""
        rows = self._notes(self._names.room(room))[:_MOST_NOTES]
        return [(bytes.fromhex(name), block) for _, name, block in rows]

    def gone(self, key: bytes) -> tuple[float, str] | None:
        """See `Notebook.gone`: the server doesn't tell."""
        return None

    def _notes(self, place: str) -> list[tuple[float, str, bytes]]:
        flat = self._one(("HGETALL", place))
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        found = []
        for name, row in pairs:
            with suppress(ValueError):
                when, _, block = row.decode().partition(" ")
                found.append((float(when), name.decode(), bytes.fromhex(block)))
        return sorted(found, reverse=True)

    def _all(self) -> Iterator[Found]:
        seen: set[bytes] = set()
        cursor: Any = 0
        while True:
            command = ("SCAN", cursor, "MATCH", self._names.pattern, "COUNT", _STEP)
            cursor, names = self._one(command, insist=True)
            # A name may come twice.
            new = [name for name in names if name not in seen]
            seen.update(new)
            if new:
                rows = self._run([("HMGET", name, "m") for name in new], insist=True)
                for name, row in zip(new, rows, strict=True):
                    found = found_in(name, row[0])
                    if found is not None:
                        yield found
            if int(cursor) == 0:
                return

    def _remove(self, chosen: Callable[[Found], bool], *, tell: bool) -> int:
        removed = 0
        for batch in _batches(found.name for found in self._all() if chosen(found)):
            gone = int(self._one(("DEL", *batch), insist=True))
            removed += gone
            if gone and tell:
                self._bump(insist=True)
        return removed

    def _bump(self, *, insist: bool = False) -> None:
        with self._bumping:
            self._one(("INCR", self._names.epoch), insist=insist)
            self.own_bumps += 1

    def _one(self, command: Command, *, insist: bool = False) -> Any:
        return self._run([command], insist=insist)[0]

    def _run(
        self, commands: Sequence[Command], *, atomic: bool = False, insist: bool = False
    ) -> list[Any]:
        """Carry out commands.

        Parameters
        ----------
        commands
            what to do
        atomic
            whether nothing may come between them
        insist
            ask even a server that is left alone: somebody waits for this very answer
        """
        place = self._server.place
        permit = self._breakers.enter(place, time.monotonic())
        if not permit.allowed and not insist:
            raise BackendError(f"{place} failed a moment ago, and is left alone")
        failed: bool | None = None
        try:
            answers = self._server.run(commands, atomic=atomic)
            failed = False
            return answers
        except BackendError:
            failed = True
            raise
        finally:
            self._breakers.leave(permit, time.monotonic(), failed=failed)


def _batches(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for name in names:
        batch.append(name)
        if len(batch) == _STEP:
            yield batch
            batch = []
    if batch:
        yield batch
