"""Why a call is answered from the cache, or isn't."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import msgspec

from memoleo import _switch
from memoleo._entry import Entry
from memoleo._events import extras, logger
from memoleo._explaining.differences import Difference, differences
from memoleo._flow.parts import Parts, read_parts
from memoleo._flow.store import Job, Store
from memoleo._stored import StoredEntry
from memoleo._switch import Mode
from memoleo.codecs._protocol import Codec
from memoleo.config import _settings
from memoleo.errors import CorruptEntry
from memoleo.keys._address import Key
from memoleo.keys._portrait import Description, Portrait

__all__ = ["Explanation", "Near", "explain", "explain_call", "explain_key", "record"]

_SEARCH_FOR = 1.0
_LOOKED_AT = 16
_SHOWN = 3


class Near(msgspec.Struct, frozen=True):
    """Another entry of the same function.

    Parameters
    ----------
    entry
        the entry
    differences
        in what its key differs; empty if that can't be told
    """

    entry: StoredEntry
    differences: tuple[Difference, ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    """Why a call is answered from the cache, or isn't.

    Parameters
    ----------
    outcome
        "hit", "stale" (served past its TTL), or "miss"
    reason
        in one word: "fresh", "stale", "expired", "differs", "first", "evicted", "swept" (removed
        after it had expired), "refused", "failed", "unsaved", "disabled", "never" (a TTL of 0),
        "future", "codec", "corrupt", "unreadable", or "unknown"
    message
        the same in a sentence
    key, label, type
        of the call; the label is the qualified name of the function
    entry
        what is stored for it
    nearest
        the entries of the same function that differ least, the nearest first
    """

    outcome: str
    reason: str
    message: str
    key: Key
    label: str = ""
    type: str = ""
    entry: StoredEntry | None = None
    nearest: tuple[Near, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.outcome}: {self.message}", f"  key       {self.key}"]
        if self.label or self.type:
            lines.append(f"  function  {self.label or '?'} (type {self.type!r})")
        for near in self.nearest:
            lines.append(f"  near      {near.entry.key}, {_about(near.entry.age)} old")
            lines += [f"              {each}" for each in near.differences]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the values of entries."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "message": self.message,
            "key": str(self.key),
            "label": self.label,
            "type": self.type,
            "entry": None if self.entry is None else self.entry.to_dict(),
            "nearest": [
                {
                    "entry": near.entry.to_dict(),
                    "differences": [msgspec.structs.asdict(each) for each in near.differences],
                }
                for near in self.nearest
            ],
        }


class _Explaining:
    """Records an explanation for every cached call in a block; see `explain`."""

    def __init__(self) -> None:
        self.found: list[Explanation] = []
        self._switch = _switch.Switch(Mode.INSPECT)

    def __enter__(self) -> list[Explanation]:
        self._switch.__enter__()
        _listener.set((self.found.append, _listener.get()))
        return self.found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        within = _listener.get()
        if within is not None:
            _listener.set(within[1])
        self._switch.__exit__(kind, error, traceback)


_Listening = tuple[Callable[[Explanation], None], "_Listening | None"]
_listener: ContextVar[_Listening | None] = ContextVar("memoleo_explain", default=None)


def explain() -> _Explaining:
    """Explain every cached call in this block: ``with memoleo.explain() as why:``.

    The calls run as usual. For each of them `why`, a list, gets an `Explanation` that was made
    just before the call. It holds for whatever is cached in the block: decorated functions,
    requests to a model, HTTP requests. Of a decorated function ``function.explain(…)`` says the
    same without a call, and `Cache.explain` says it of a key.
    """
    return _Explaining()


def record(store: Store, job: Job, codec_named: Callable[[str], Codec]) -> None:
    """Hand an explanation of a call to the block of `explain` around it, if there is one."""
    within = _listener.get()
    if within is not None:
        listener = within[0]
        try:
            listener(explain_call(store, job, codec_named))
        except Exception as error:
            listener(_Case(store, job.key, job.codec).told("miss", "unknown", f"{error!r}"))


def explain_call(store: Store, job: Job, codec_named: Callable[[str], Codec]) -> Explanation:
    """Return why a call would be answered from the cache, or not; nothing is run or counted."""
    case = _Case(store, job.key, job.codec, codec_named)
    case.label, case.type = job.policy.label, job.policy.type
    if not _switch.enabled():
        return case.told("miss", "disabled", "caching is switched off; see: memoleo config")
    if job.freshness.ttl <= 0:
        return case.told("miss", "never", "its TTL is 0, so it is never stored")
    case.describe(job)
    entry = case.load()
    if entry is None:
        return case.absent()
    if entry.codec != job.codec.name:
        text = f"the entry was written by the codec {entry.codec!r}, not by {job.codec.name!r}"
        return case.told("miss", "codec", text)
    return case.judged(entry, job)


def explain_key(store: Store, key: bytes, codec_named: Callable[[str], Codec]) -> Explanation:
    """Return what is known of a key."""
    case = _Case(store, key, None, codec_named)
    entry = case.load()
    if entry is None:
        return case.absent()
    case.label, case.type = entry.label, entry.type
    case.describe_entry(entry)
    return case.judged(entry, None)


class _Case:
    """What is known of one key while it is being explained."""

    def __init__(
        self,
        store: Store,
        key: bytes,
        codec: Codec | None,
        codec_named: Callable[[str], Codec] | None = None,
    ) -> None:
        self.store = store
        self.key = key
        self.codec = codec
        self.codec_named = codec_named
        self.now = store.clock()
        self.label = ""
        self.type = ""
        self.parts: Parts | None = None
        self.portrait: Portrait | None = None
        self.values: tuple[Any, ...] | None = None
        self.entry: Entry | None = None
        self.problem: tuple[str, str] | None = None
        self.searched: int | None = None

    def describe(self, job: Job) -> None:
        described = job.describe
        if described is not None:
            description = described if isinstance(described, Description) else described()
            previews = _settings.current().explain == "previews"
            self.parts = self.store.parts.parts(description, previews=previews)
            self.portrait = self.store.parts.sealed(description.portrait)
            self.values = description.values

    def describe_entry(self, entry: Entry) -> None:
        self.parts = read_parts(entry.parts)
        if self.parts is not None:
            self.portrait = self.store.parts.portraits().get(self.parts.portrait)

    def load(self) -> Entry | None:
        try:
            self.entry = self.store.backend.get(self.key)
        except CorruptEntry as error:
            self.problem = ("corrupt", f"what is stored is damaged: {error}")
        except Exception as error:
            self.problem = ("unreadable", f"the store can't be read: {error}")
        return self.entry

    def told(self, outcome: str, reason: str, message: str) -> Explanation:
        return self._told(outcome, reason, message, ())

    def judged(self, entry: Entry, job: Job | None) -> Explanation:
        """Explain a call for which there is an entry."""
        age = self.now - entry.created
        ttl = entry.ttl if job is None else job.freshness.ttl
        nearest = self.nearest() if job is None else ()
        old = _about(max(0.0, age))
        if age < 0 and ttl != float("inf"):
            text = "it was stored in the future: the clock was set back since"
            return self._told("miss", "future", text, nearest)
        if age < ttl:
            left = "never expires" if ttl == float("inf") else f"fresh for {_about(ttl - age)}"
            return self._told("hit", "fresh", f"stored {old} ago, {left}", nearest)
        past = f"expired {_about(age - ttl)} ago (TTL {_about(ttl)})"
        if job is None:
            kept = entry.keep
            more = ""
            if age < ttl + kept:
                more = "; kept longer, to be served stale or when the call fails"
            return self._told("miss", "expired", past + more, nearest)
        if job.freshness.revalidates(entry.created, self.now):
            text = f"{past}; served at once while one refresh runs"
            return self._told("stale", "stale", text, nearest)
        if job.freshness.excuses(entry.created, self.now):
            past += "; served only if the call fails"
        return self._told("miss", "expired", past, nearest)

    def absent(self) -> Explanation:
        """Explain a call for which there is no entry."""
        if self.problem is not None:
            return self.told("miss", *self.problem)
        nearest = self.nearest()
        lately = self.store.lately.get(self.key)
        if lately is not None:
            when, reason, text = lately
            ago = _about(max(0.0, self.now - when))
            return self._told("miss", reason, f"{text} ({ago} ago)", nearest)
        gone = self._gone()
        if gone is not None:
            ago = _about(max(0.0, time.time() - gone[0]))
            if gone[1] == "expired":
                return self._told(
                    "miss", "swept", f"it expired, and was removed {ago} ago", nearest
                )
            text = f"it was removed {ago} ago for lack of room"
            return self._told("miss", "evicted", text, nearest)
        if nearest and nearest[0].differences:
            what = ", ".join(each.part for each in nearest[0].differences)
            which = "the nearest one"
            if self.searched is not None:
                which = f"the nearest of the newest {self.searched:,}"
            text = f"there is no entry for it; {which} differs in {what}"
            return self._told("miss", "differs", text, nearest)
        if nearest:
            text = (
                "there is no entry for it; there are others of the function, and in what they "
                "differ can't be told (stored by another user, or without caching.explain)"
            )
            return self._told("miss", "differs", text, nearest)
        if self.label:
            text = f"there is no entry of {self.label}: none was stored yet, or all were removed"
            other = self._as_main()
            if other:
                text += (
                    f"; there are some of {other}, which is another function: the module of a "
                    "program that is run by its file is called __main__"
                )
            return self._told("miss", "first", text, ())
        text = "there is no entry: it was removed on request, or never stored"
        return self._told("miss", "unknown", text, ())

    def _as_main(self) -> str:
        """Return under what name a program stored what it defines itself; empty if it did not."""
        module, dot, name = self.label.partition(".")
        while dot and module != "__main__":
            other = f"__main__.{name}"
            try:
                if next(iter(self.store.backend.entries(label=other)), None) is not None:
                    return other
            except Exception:
                return ""
            _, dot, name = name.partition(".")
        return ""

    def nearest(self) -> tuple[Near, ...]:
        """Return the entries of the same function whose keys differ least."""
        if not self.label:
            return ()
        maker = self.store.parts
        portraits = maker.portraits()
        found = self._search(portraits, label=self.label)
        if not found and self.portrait is not None:
            # The same function under another name: a model's answers are named after the model.
            found = self._search(portraits, type=self.type)
        compared = [(self._compare(entry, portraits), key, entry) for key, entry in found]
        compared.sort(key=lambda row: (_distance(row[0]), -row[2].created))
        return tuple(Near(self._shown(key, entry), told) for told, key, entry in compared[:_SHOWN])

    def _search(
        self, portraits: dict[bytes, Portrait], **conditions: str
    ) -> list[tuple[bytes, Entry]]:
        """Return the few entries that are nearest by a rough look, for a close one."""
        best: list[tuple[int, float, int, bytes, Entry]] = []
        until = time.monotonic() + _SEARCH_FOR
        try:
            for number, (key, entry) in enumerate(self.store.backend.entries(**conditions)):
                if time.monotonic() > until:
                    self.searched = number
                    break
                if key == self.key:
                    continue
                if "label" not in conditions and not self._is_same(entry, portraits):
                    continue
                row = (-self._roughly(entry), entry.created, number, key, entry)
                if len(best) < _LOOKED_AT:
                    heapq.heappush(best, row)
                else:
                    heapq.heappushpop(best, row)
        except Exception as error:
            # What was found until then is of use.
            logger.info(
                "looking for near entries ended early: %r",
                error,
                extra=extras("not_explained", error=error),
            )
        return [(key, entry) for _, _, _, key, entry in best]

    def _roughly(self, entry: Entry) -> int:
        """Return in how many of its values an entry's key differs."""
        mine, theirs = self.parts, read_parts(entry.parts)
        if mine is None or theirs is None or theirs.maker != mine.maker:
            return 99
        size = max(len(mine.digests), len(theirs.digests)) // 8
        values = sum(mine.digest(place) != theirs.digest(place) for place in range(size))
        return values + (mine.portrait != theirs.portrait)

    def _is_same(self, entry: Entry, portraits: dict[bytes, Portrait]) -> bool:
        theirs = read_parts(entry.parts)
        other = None if theirs is None else portraits.get(theirs.portrait)
        return (
            other is not None and self.portrait is not None and other.label == self.portrait.label
        )

    def _compare(self, entry: Entry, portraits: dict[bytes, Portrait]) -> tuple[Difference, ...]:
        theirs = read_parts(entry.parts)
        mine, portrait = self.parts, self.portrait
        if mine is None or portrait is None or theirs is None or theirs.maker != mine.maker:
            return ()
        other = portraits.get(theirs.portrait)
        maker = self.store.parts
        return differences(mine, portrait, theirs, other, maker, self.values)

    def _gone(self) -> tuple[float, str] | None:
        try:
            gone = getattr(self.store.backend, "gone", None)
            return None if gone is None else gone(self.key)
        except Exception:
            return None

    def _told(
        self, outcome: str, reason: str, message: str, nearest: tuple[Near, ...]
    ) -> Explanation:
        shown = None if self.entry is None else self._shown(self.key, self.entry)
        return Explanation(
            outcome, reason, message, Key.of(self.key), self.label, self.type, shown, nearest
        )

    def _shown(self, key: bytes, entry: Entry) -> StoredEntry:
        codec = self.codec
        if codec is None or codec.name != entry.codec:
            assert self.codec_named is not None
            codec = self.codec_named(entry.codec)
        return StoredEntry.of(key, entry, self.now, codec)


def _distance(told: tuple[Difference, ...]) -> float:
    # An argument of which one item differs is nearer than another argument altogether.
    return sum(0.5 if "[" in each.part or "." in each.part else 1.0 for each in told) or 99.0


def _about(seconds: float) -> str:
    """Return a duration as people say it, roughly."""
    if seconds == float("inf"):
        return "forever"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
