"""The parts of a key as they are kept with an entry, so that somebody can ask why two keys differ.

Arguments may be private, so an entry holds no argument but digests, a few bytes for each. Short
texts could be guessed from a plain digest: theirs are made with a secret of the user's own, which
is in no store. So they can be compared by this user alone, and mean nothing to anybody else.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec
import xxhash

from memoleo._events import extras, logger
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.interrupts import pass_on
from memoleo._platform.locks import Lock
from memoleo.backends._protocol import Backend, Notebook
from memoleo.backends.memory import MemoryBackend
from memoleo.codecs._secret import secret_from_file
from memoleo.config import _settings
from memoleo.errors import CodecError
from memoleo.keys._canonical import Unkeyable, canonical
from memoleo.keys._plain import encode_plain, is_plain
from memoleo.keys._portrait import Description, Portrait, decode_plain

__all__ = ["FUNCTIONS", "Inner", "Parts", "PartsMaker", "notebook", "read_parts"]

FUNCTIONS = "functions"
"""Where a store's `Notebook` keeps the portraits of functions."""

_WHOLE, _ITEM = 8, 4  # bytes of a digest
_MOST_ITEMS = 16
_LONG = 1 << 16
_SHORT = 128
"""Bytes of a value that is digested as quickly as its digest is found again."""

_SCALARS = frozenset(range(256)) - {*range(0x80, 0xA0), 0xC1, *range(0xDC, 0xE0)}
"""What the bytes of a value without items begin with, in MessagePack."""

_MOST_KNOWN = 4096
_AGAIN = 60.0
"""Seconds after which a portrait is written down once more: others may have cleared the store."""


class Inner(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The items of one value, as digests of 4 bytes.

    Parameters
    ----------
    names
        of the names of a mapping; empty for a sequence
    items
        of what is under them
    """

    names: bytes
    items: bytes

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return the digests of name and item, one pair for each item."""
        items = [self.items[at : at + _ITEM] for at in range(0, len(self.items), _ITEM)]
        if not self.names:
            return [(number.to_bytes(_ITEM, "big"), item) for number, item in enumerate(items)]
        return [(self.names[at * _ITEM : (at + 1) * _ITEM], item) for at, item in enumerate(items)]


class Parts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the key of an entry was made of.

    Parameters
    ----------
    maker
        tells the secret that the digests were made with
    portrait
        the name of the function's portrait in the store's `Notebook`
    digests
        8 bytes for each value
    inner
        of short lists and dictionaries the items, by the number of the value
    previews
        the beginnings of the values, where the user switched that on
    """

    maker: bytes
    portrait: bytes
    digests: bytes
    inner: dict[int, Inner] = {}
    previews: tuple[str, ...] = ()

    def digest(self, place: int) -> bytes:
        """Return the digest of a value."""
        return self.digests[place * _WHOLE : (place + 1) * _WHOLE]


_xxh3 = xxhash.xxh3_128_digest
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Parts).decode


def read_parts(block: bytes) -> Parts | None:
    """Return the parts that an entry carries; `None` if it carries none that can be read."""
    if not block:
        return None
    try:
        return _decode(block)
    except msgspec.MsgspecError:
        return None


def notebook(backend: Backend) -> Notebook | None:
    """Return a backend as one that keeps notes; `None` if it can't."""
    try:
        return backend if isinstance(backend, Notebook) else None
    except Exception:
        return None


class PartsMaker:
    """Makes the parts that one store's entries carry.

    Parameters
    ----------
    backend
        the store
    """

    def __init__(self, backend: Backend) -> None:
        self._notes = notebook(backend)
        # What never leaves the process needs no secret that outlives it.
        self._private = isinstance(backend, MemoryBackend)
        self._secret = b""
        self._begun = hashlib.blake2s(digest_size=_WHOLE)
        self._seed = 0
        self.maker = b""
        self._failed = False
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._portraits: dict[int, _Named] = {}
        self._known: dict[bytes, tuple[bytes, Inner | None]] = {}
        self._names: dict[tuple[Any, ...], bytes] = {}

    def make(self, describe: Description | Callable[[], Description]) -> bytes:
        """Return the parts of a key for its entry; empty if they are switched off, or fail."""
        try:
            level = (_settings.in_force or _settings.current()).explain
            if level == "off":
                return b""
            description = describe if isinstance(describe, Description) else describe()
            portrait = description.portrait
            named = self._portraits.get(id(portrait))
            if named is None or named.portrait is not portrait:
                named = self._name(portrait)
            block = _encode(self._parts(description, named, level == "previews"))
        except Exception as error:
            pass_on(error)
            # An entry without parts is as good as one with them.
            self._blame(error)
            return b""
        if named.due <= time.monotonic():
            try:
                self._note(named)
            except Exception as error:
                self._blame(error)
        return block

    def _blame(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            logger.info(
                "the parts of keys can't be kept: %r", error, extra=extras("no_parts", error=error)
            )

    def parts(self, description: Description, *, previews: bool = False) -> Parts:
        """Return the parts of a key."""
        return self._parts(description, self._name(description.portrait), previews)

    def _parts(self, description: Description, named: _Named, previews: bool) -> Parts:
        given, blocks = description.given, description.blocks
        encode: Callable[[Any], bytes] = encode_plain
        if blocks is None:
            encode, blocks = _encoded(given)
        begin = self._begun.copy
        digests = []
        inner: dict[int, Inner] = {}
        for place, block in enumerate(blocks):
            if len(block) < _SHORT and block[0] in _SCALARS:
                whole = begin()
                whole.update(block)
                digests.append(whole.digest())
            else:
                # Settings come again with every call, and so do the names of their items.
                mark = _xxh3(block, self._seed)
                found = self._known.get(mark)
                if found is None:
                    value = given[place] if given else decode_plain(block)
                    found = self._learn(value, block, mark, encode)
                digest, items = found
                digests.append(digest)
                if items is not None:
                    inner[place] = items
        shown = tuple(map(preview, description.values)) if previews else ()
        return Parts(self.maker, named.name, b"".join(digests), inner, shown)

    def _learn(
        self, value: Any, block: bytes, mark: bytes, encode: Callable[[Any], bytes]
    ) -> tuple[bytes, Inner | None]:
        items = None
        kind = type(value)
        if kind is dict and 0 < len(value) <= _MOST_ITEMS:
            items = Inner(self._shape(value, encode), self._items(value.values(), encode))
        elif (kind is list or kind is tuple) and 0 < len(value) <= _MOST_ITEMS:
            items = Inner(b"", self._items(value, encode))
        found = (self._digest(block), items)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[mark] = found
        return found

    def _shape(self, names: Iterable[Any], encode: Callable[[Any], bytes]) -> bytes:
        if encode is not encode_plain:
            return self._items(names, encode)
        # All of them are text, so that those which are equal are the same.
        mark = tuple(names)
        shape = self._names.get(mark)
        if shape is None:
            if len(self._names) >= _MOST_KNOWN:
                self._names.clear()
            shape = self._names[mark] = self._items(mark, encode)
        return shape

    def _items(self, values: Iterable[Any], encode: Callable[[Any], bytes]) -> bytes:
        return b"".join([self._digest(encode(value))[:_ITEM] for value in values])

    def _digest(self, block: bytes) -> bytes:
        if len(block) > _LONG:
            block = _LONG_MARK + xxhash.xxh3_128_digest(block, self._seed)
        whole = self._begun.copy()
        whole.update(block)
        return whole.digest()

    def name_digest(self, name: Any) -> bytes:
        """Return the digest that `Inner` has for a name of a mapping."""
        self._take_secret()
        return self._digest(_encode_any(name))[:_ITEM]

    def sealed(self, portrait: Portrait) -> Portrait:
        """Return a portrait as it is written down: nobody else can guess what it shows."""
        self._take_secret()
        facts = {
            name: hashlib.sha256(self._secret + digest).digest()[:_WHOLE]
            for name, digest in portrait.facts.items()
        }
        return Portrait(portrait.label, portrait.names, facts)

    def portraits(self) -> dict[bytes, Portrait]:
        """Return every portrait that is written down in the store, by its name."""
        found: dict[bytes, Portrait] = {}
        if self._notes is not None:
            for name, block in self._notes.notes(FUNCTIONS):
                try:
                    found[name] = _decode_portrait(block)
                except msgspec.MsgspecError:
                    continue
        return found

    def _take_secret(self) -> None:
        if self._secret:
            return
        with self._lock:
            if not self._secret:
                self._take()

    def _take(self) -> None:
        secret = os.urandom(32)
        if not self._private:
            try:
                secret = secret_from_file(name="parts.secret")
            except CodecError as error:
                logger.info(
                    "keys are told apart within this process only: %s",
                    error,
                    extra=extras("no_secret", error=error),
                )
        # Built into Python, which begins and ends it in half the time that OpenSSL's SHA-256 takes.
        self._begun = hashlib.blake2s(key=secret, digest_size=_WHOLE)
        self.maker = hashlib.sha256(b"maker" + secret).digest()[:_ITEM]
        self._seed = int.from_bytes(hashlib.sha256(b"seed" + secret).digest()[:8], "big")
        # Last of all: others take it as the sign that the rest is there.
        self._secret = secret

    def _name(self, portrait: Portrait) -> _Named:
        name = hashlib.sha256(_encode(self.sealed(portrait))).digest()[:_WHOLE]
        # What keeps no notes is never asked to.
        due = float("inf") if self._notes is None else float("-inf")
        with self._lock:
            named = self._portraits.get(id(portrait))
            if named is None or named.portrait is not portrait:
                if len(self._portraits) >= _MOST_KNOWN:
                    self._portraits.clear()
                named = self._portraits[id(portrait)] = _Named(portrait, name, due)
        return named

    def _note(self, named: _Named) -> None:
        # Noted first: a store that fails is not asked again with every entry.
        named.due = time.monotonic() + _AGAIN
        assert self._notes is not None
        self._notes.note(FUNCTIONS, named.name, _encode(self.sealed(named.portrait)))


class _Named(msgspec.Struct, gc=False):
    """A portrait and its name, and when it is to be written down (`time.monotonic`)."""

    portrait: Portrait
    name: bytes
    due: float


_decode_portrait = msgspec.msgpack.Decoder(Portrait).decode


# MessagePack never uses this byte, so what begins with it is no plain data.
_TAGGED = b"\xc1"
_LONG_MARK = b"\xc1long"
_UNKNOWN = b"\xc1unknown"


def _encoded(values: tuple[Any, ...]) -> tuple[Callable[[Any], bytes], list[bytes]]:
    """Return what encodes some values, and their bytes."""
    if is_plain(values):
        with suppress(UnicodeEncodeError, OverflowError):
            return encode_plain, [encode_plain(value) for value in values]
    return _encode_any, [_encode_any(value) for value in values]


def _encode_any(value: Any) -> bytes:
    try:
        if is_plain((value,)):
            return encode_plain(value)
    except (UnicodeEncodeError, OverflowError):
        pass
    try:
        return _TAGGED + canonical(value)
    except Unkeyable:
        return _UNKNOWN


def preview(value: Any) -> str:
    """Return the beginning of a value; of an object with a class of its own the class's name."""
    text: str = _short().repr(value)
    return text


_made: list[Any] = []


def _short() -> Any:
    # `reprlib` takes a while to import, and few ask for previews.
    if not _made:
        from reprlib import Repr

        class Short(Repr):
            def repr_instance(self, x: Any, level: int) -> str:
                return repr(x) if type(x) in (float, bool, type(None)) else type(x).__qualname__

        short = Short()
        short.maxstring = short.maxother = short.maxlong = 60
        short.maxlist = short.maxtuple = short.maxdict = short.maxset = 4
        short.maxlevel = 3
        _made.append(short)
    return _made[0]
