r"""A cache as one file that can be carried to another machine.

::

    memoleo export 1\n
    a line of JSON: which memoleo wrote it, when, and what was chosen
    frames:  "ENT\0"  length (4 bytes, big-endian)  length of the key (2 bytes)  key  entry
    the end: "END\0"  number of entries (8 bytes)  SHA-256 of all that came before

Every entry carries its own checksum besides, so that what is intact in a damaged file can be told
from what isn't.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from memoleo._entry import Entry
from memoleo._version import version
from memoleo.errors import CorruptEntry

__all__ = ["check", "read_entries", "salvage", "write_entries"]

_MAGIC = b"memoleo export "
_FORMAT = 1
_LONGEST_HEADER = 65_536
_ENTRY, _END = b"ENT\0", b"END\0"
_LENGTH = struct.Struct(">I")
_KEY_LENGTH = struct.Struct(">H")
_COUNT = struct.Struct(">Q")
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_entries(
    path: Path, entries: Iterable[tuple[bytes, Entry]], about: dict[str, Any] | None = None
) -> int:
    """Write entries to a file for its owner only, whole or not at all; return how many.

    What is known of the parts of their keys stays behind: it is of use to its owner alone.

    Parameters
    ----------
    path
        the file; one that is there is replaced at the end
    entries
        their keys, and they
    about
        what was chosen, for people

    Raises
    ------
    OSError
        the file can't be written
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            count = _write(file, entries, about or {})
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # So that the file is there after a power cut; Windows can't open folders.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return count


def _write(file: BinaryIO, entries: Iterable[tuple[bytes, Entry]], about: dict[str, Any]) -> int:
    digest = hashlib.sha256()

    def put(part: bytes) -> None:
        file.write(part)
        digest.update(part)

    header = {"memoleo": version(), "created": time.time(), **about}
    put(_MAGIC + b"%d\n" % _FORMAT)
    put(json.dumps(header).encode() + b"\n")
    count = 0
    for key, entry in entries:
        if entry.parts:
            entry = msgspec.structs.replace(entry, parts=b"")
        block = _KEY_LENGTH.pack(len(key)) + key + entry.to_bytes(key)
        put(_ENTRY + _LENGTH.pack(len(block)))
        put(block)
        count += 1
    put(_END + _COUNT.pack(count))
    file.write(digest.digest())
    return count


def check(path: Path) -> int:
    """Read a whole file, and return how many entries it holds.

    Raises
    ------
    CorruptEntry
        it is no export, it was changed or cut off, or a later memoleo wrote it
    OSError
        it can't be read
    """
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        _head(path, file, digest.update)
        count = 0
        for key, block in _frames(path, file, digest.update):
            try:
                Entry.from_bytes(key, block)
            except CorruptEntry as error:
                raise CorruptEntry(f"{path} was changed: {error}") from error
            count += 1
        (promised,) = _COUNT.unpack(_exactly(path, file, _COUNT.size, digest.update))
        if file.read(64) != digest.digest() or promised != count:
            raise CorruptEntry(f"{path} was changed or cut off: its checksum does not match")
    return count


def read_entries(path: Path) -> Iterator[tuple[bytes, Entry]]:
    """Iterate over the entries of a file that `check` found to be whole."""
    with open(path, "rb") as file:
        _head(path, file, _ignore)
        for key, block in _frames(path, file, _ignore):
            yield key, Entry.from_bytes(key, block)


def salvage(path: Path) -> Iterator[tuple[bytes, Entry] | None]:
    """Iterate over what is intact in a damaged file; `None` stands for a part that is not.

    Raises
    ------
    CorruptEntry
        it is no export, or a later memoleo wrote it
    OSError
        it can't be read
    """
    with open(path, "rb") as file:
        _head(path, file, _ignore)
        begin = file.tell()
        if os.fstat(file.fileno()).st_size == begin:
            yield None
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from _intact(data, begin)


def _intact(data: mmap.mmap, at: int) -> Iterator[tuple[bytes, Entry] | None]:
    lost = False
    while True:
        start = data.find(_ENTRY, at)
        end = data.rfind(_END, at, at + len(_END))
        if start != at and end != at and not lost:
            # Something stands here that is neither an entry nor the end.
            lost = True
            yield None
        if end == at or start < 0:
            return
        found = _entry_at(data, start)
        if found is None:
            if not lost:
                lost = True
                yield None
            at = start + 1
            continue
        key, entry, at = found
        lost = False
        yield key, entry


def _entry_at(data: mmap.mmap, start: int) -> tuple[bytes, Entry, int] | None:
    begin = start + len(_ENTRY) + _LENGTH.size
    (length,) = _LENGTH.unpack(data[begin - _LENGTH.size : begin].ljust(_LENGTH.size, b"\0"))
    block = data[begin : begin + length]
    if len(block) < length:
        return None
    try:
        key, rest = _split(block)
        return key, Entry.from_bytes(key, rest), begin + length
    except CorruptEntry:
        return None


def _head(path: Path, file: BinaryIO, seen: Callable[[bytes], object]) -> dict[str, Any]:
    line = file.readline(len(_MAGIC) + 16)
    number = line.removeprefix(_MAGIC).strip()
    if not line.startswith(_MAGIC) or not number.isdigit():
        raise CorruptEntry(f"{path} is not a memoleo export")
    if int(number) > _FORMAT:
        raise CorruptEntry(f"{path} was written by a later memoleo: upgrade to read it")
    header = file.readline(_LONGEST_HEADER)
    seen(line + header)
    try:
        about: dict[str, Any] = json.loads(header)
    except ValueError:
        raise CorruptEntry(f"{path} was changed: its header can't be read") from None
    return about


def _frames(
    path: Path, file: BinaryIO, seen: Callable[[bytes], object]
) -> Iterator[tuple[bytes, bytes]]:
    while True:
        mark = _exactly(path, file, len(_ENTRY), seen)
        if mark == _END:
            return
        if mark != _ENTRY:
            raise CorruptEntry(f"{path} was changed: there is no entry where one should begin")
        (length,) = _LENGTH.unpack(_exactly(path, file, _LENGTH.size, seen))
        if length > os.fstat(file.fileno()).st_size - file.tell():
            # It would take the memory that it promises.
            raise CorruptEntry(f"{path} was changed or cut off")
        yield _split(_exactly(path, file, length, seen))


def _exactly(path: Path, file: BinaryIO, size: int, seen: Callable[[bytes], object]) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise CorruptEntry(f"{path} was changed or cut off")
    seen(data)
    return data


def _split(block: bytes) -> tuple[bytes, bytes]:
    if len(block) < _KEY_LENGTH.size:
        raise CorruptEntry("an entry is too short")
    (length,) = _KEY_LENGTH.unpack(block[: _KEY_LENGTH.size])
    begin = _KEY_LENGTH.size + length
    return block[_KEY_LENGTH.size : begin], block[begin:]


def _ignore(data: bytes) -> None:
    pass
