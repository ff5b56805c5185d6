"""Several stores behind one another, the nearest first."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from memoleo._entry import Entry
from memoleo.backends._protocol import Backend, BackendStats, Lease, Notebook, place_of
from memoleo.backends.memory import MemoryBackend
from memoleo.errors import BackendError, ConfigError, CorruptEntry

__all__ = ["TieredBackend"]

T = TypeVar("T")

_SYNC_EVERY = 0.25
_TOUCH_EVERY = 30.0
_STRIPES = 256
_EPOCH = "epoch"


class TieredBackend:
    """Asks the nearest store first, and copies what a farther one knew into the nearer ones.

    The farthest store is the truth: entries are written there first and removed there first, so
    that a crash in between never leaves a nearer store with something that it lacks. If it can
    tell that another process removed or replaced entries (an ``epoch()``, as `SQLiteBackend`
    has), memory in front of it is emptied within a quarter of a second after that.

    Parameters
    ----------
    nearest, farther
        the stores, in the order in which they are asked
    clock
        the time in seconds since the epoch

    Attributes
    ----------
    memory
        the nearest store if it is a `MemoryBackend`; it may be read directly while
        ``last_sync <= now < next_sync``, and after `sync` else
    """

    def __init__(
        self, nearest: Backend, *farther: Backend, clock: Callable[[], float] = time.time
    ) -> None:
        if not farther:
            raise ConfigError("TieredBackend needs at least two stores, nearest first")
        self.tiers: tuple[Backend, ...] = (nearest, *farther)
        self.memory: MemoryBackend | None = nearest if isinstance(nearest, MemoryBackend) else None
        self.last_sync = 0.0
        self.next_sync = 0.0
        self._next_touch = 0.0
        self._clock = clock
        self._far = farther[-1]
        self._notebook = self._far if isinstance(self._far, Notebook) else None
        self._epoch: Callable[[], int] | None = getattr(self._far, "epoch", None)
        self._known_epoch: int | None = None
        self._place = (place_of(self._far) or "").encode()
        self._noted_bumps = 0
        # A copy into a near store must not survive a removal that happened at the same time:
        # every change leaves a stamp of its own for its keys, and who copies looks for a new one.
        self._stamp = itertools.count(1)
        self._changes = [0] * _STRIPES
        self._sweeps = 0

    @property
    def remote(self) -> bool:
        """Whether one of the stores is remote."""
        return any(tier.remote for tier in self.tiers)

    def get(self, key: bytes) -> Entry | None:
        """See `Backend.get`. A store that fails is passed over if a farther one knows."""
        now = self._clock()
        if not self.last_sync <= now < self.next_sync:
            self.sync(now)
        mark = self._mark(key)
        failure: BackendError | None = None
        outdated: Entry | None = None
        for position, tier in enumerate(self.tiers):
            try:
                entry = tier.get(key)
            except BackendError as error:
                if failure is None or isinstance(error, CorruptEntry):
                    failure = error
                continue
            if entry is None:
                continue
            if entry.created + entry.ttl <= now:
                # Another process may have stored a fresh one farther away.
                if outdated is None or outdated.created < entry.created:
                    outdated = entry
                continue
            self._copy(key, entry, position, mark)
            return entry
        if outdated is not None:
            return outdated
        if failure is not None:
            raise failure
        return None

    def set(self, key: bytes, entry: Entry) -> None:
        """See `Backend.set`. All stores are tried before a failure is raised."""
        mark = self._change(key)
        self._try_all(lambda tier: tier.set(key, entry))
        if self._mark(key) != mark:
            self._forget(key)

    def delete(self, key: bytes) -> bool:
        """See `Backend.delete`."""
        self._change(key)

        def remove(tier: Backend) -> bool:
            found = tier.delete(key)
            self._change(key)
            return found

        return any(self._try_all(remove))

    def clear(
        self,
        *,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
    ) -> int:
        """See `Backend.clear`."""

        def remove(tier: Backend) -> int:
            count = tier.clear(type=type, tag=tag, label=label, before=before)
            self._sweeps = next(self._stamp)
            return count

        return max(self._try_all(remove))

    def clear_expired(self, now: float) -> int:
        """See `Backend.clear_expired`."""
        return max(self._try_all(lambda tier: tier.clear_expired(now)))

    def entries(
        self, *, type: str | None = None, tag: str | None = None, label: str | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """See `Backend.entries`: those of the farthest store that answers."""
        for position in range(len(self.tiers) - 1, -1, -1):
            begun = False
            try:
                for pair in self.tiers[position].entries(type=type, tag=tag, label=label):
                    begun = True
                    yield pair
                return
            except BackendError:
                if begun or position == 0:
                    raise

    def stats(self) -> BackendStats:
        """See `Backend.stats`: those of the farthest store that answers."""
        return self._ask_farthest(lambda tier: tier.stats())

    def lease(self, key: bytes) -> Lease | None:
        """See `Backend.lease`: the farthest store that answers grants it."""
        return self._ask_farthest(lambda tier: tier.lease(key))

    def close(self) -> None:
        """See `Backend.close`."""
        self._pass_on_use()
        self._try_all(lambda tier: tier.close())
        self.next_sync = 0.0

    def note(self, room: str, name: bytes, block: bytes) -> None:
        """See `Notebook.note`: the farthest store keeps it, if it can."""
        if self._notebook is not None:
            self._notebook.note(room, name, block)

    def notes(self, room: str) -> list[tuple[bytes, bytes]]:
        """See `Notebook.notes`."""
        return [] if self._notebook is None else self._notebook.notes(room)

    def gone(self, key: bytes) -> tuple[float, str] | None:
        """See `Notebook.gone`: what the farthest store gave up is gone."""
        return None if self._notebook is None else self._notebook.gone(key)

    def sync(self, now: float) -> None:
        """Empty the nearer stores if somebody else removed or replaced something in the farthest.

        Parameters
        ----------
        now
            the time in seconds since the epoch
        """
        if self._epoch is not None:
            # Memory goes on answering while the farther store can't say.
            with contextlib.suppress(BackendError):
                epoch = self._epoch()
                bumps: int = getattr(self._far, "own_bumps", 0)
                if epoch != self._known_epoch or bumps != self._noted_bumps:
                    self._catch_up(epoch, bumps)
        if now >= self._next_touch or now < self.last_sync:
            self._next_touch = now + _TOUCH_EVERY
            self._pass_on_use()
        self.last_sync = now
        self.next_sync = now + _SYNC_EVERY

    def _catch_up(self, epoch: int, bumps: int) -> None:
        """Empty the nearer stores after a change in the farthest that somebody else made.

        What this object changed is added to what is written down: the next process doesn't know it.
        """
        known, self._known_epoch = self._known_epoch, epoch
        self._noted_bumps = bumps
        mark = b"%d" % (epoch + bumps)
        if epoch != known:
            self._sweeps = next(self._stamp)
        for tier in self.tiers[:-1]:
            if epoch != known and (
                tier is self.memory or known is not None or not self._is_caught_up(tier, mark)
            ):
                tier.clear()
            if tier is not self.memory and isinstance(tier, Notebook):
                tier.note(_EPOCH, self._place, mark)

    def _is_caught_up(self, tier: Backend, mark: bytes) -> bool:
        """Whether a store that outlives its process holds nothing that was removed meanwhile."""
        if not isinstance(tier, Notebook):
            return False
        return dict(tier.notes(_EPOCH)).get(self._place) == mark

    def _pass_on_use(self) -> None:
        touch = getattr(self._far, "touch", None)
        if touch is not None and self.memory is not None:
            touch(self.memory.take_recent())

    def _change(self, key: bytes) -> tuple[int, int]:
        self._changes[hash(key) % _STRIPES] = next(self._stamp)
        return self._mark(key)

    def _mark(self, key: bytes) -> tuple[int, int]:
        return self._changes[hash(key) % _STRIPES], self._sweeps

    def _copy(self, key: bytes, entry: Entry, position: int, mark: tuple[int, int]) -> None:
        for tier in reversed(self.tiers[:position]):
            try:
                tier.set(key, entry)
            except BackendError:
                continue
        if position and self._mark(key) != mark:
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        for tier in self.tiers[:-1]:
            try:
                tier.delete(key)
            except BackendError:
                continue

    def _try_all(self, action: Callable[[Backend], T]) -> list[T]:
        """Do it in every store, the farthest first, and raise the first failure in the end."""
        results: list[T] = []
        failure: BackendError | None = None
        for tier in reversed(self.tiers):
            try:
                results.append(action(tier))
            except BackendError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return results

    def _ask_farthest(self, question: Callable[[Backend], T]) -> T:
        for tier in reversed(self.tiers[1:]):
            try:
                return question(tier)
            except BackendError:
                continue
        return question(self.tiers[0])
