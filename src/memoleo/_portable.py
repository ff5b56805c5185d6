"""A cache as one file that can be carried to another machine.

The file begins with a magic line. Then follow blocks, each a length of 4 bytes (big-endian), a
key of 32 bytes and an entry, which carries its own checksum; at the end stands a length of zero
and the SHA-256 of all that came before.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from memoleo._entry import Entry
from memoleo.errors import CorruptEntry

__all__ = ["read_entries", "write_entries"]

_MAGIC = b"memoleo export 1\n"
_LENGTH = struct.Struct(">I")


def write_entries(path: Path, entries: Iterable[tuple[bytes, Entry]]) -> int:
    """Write entries to a file, whole or not at all; return how many.

    Raises
    ------
    OSError
        the file can't be written
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    digest = hashlib.sha256(_MAGIC)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_MAGIC)
            for key, entry in entries:
                block = key + entry.to_bytes(key)
                for part in (_LENGTH.pack(len(block)), block):
                    file.write(part)
                    digest.update(part)
                count += 1
            file.write(_LENGTH.pack(0))
            digest.update(_LENGTH.pack(0))
            file.write(digest.digest())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_entries(path: Path) -> Iterator[tuple[bytes, Entry]]:
    """Iterate over the entries of a file, after the checksum of the whole was verified.

    Raises
    ------
    CorruptEntry
        the file is not an export, or it was changed or cut off
    OSError
        the file can't be read
    """
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CorruptEntry(f"{path} is not a memoleo export")
        digest = hashlib.sha256(_MAGIC)
        for part in _parts(path, file):
            digest.update(part)
        if file.read() != digest.digest():
            raise CorruptEntry(f"{path} was changed or cut off: its checksum does not match")
        file.seek(len(_MAGIC))
        for part in _parts(path, file):
            if len(part) > _LENGTH.size:
                yield part[:32], Entry.from_bytes(part[:32], part[32:])


def _parts(path: Path, file: object) -> Iterator[bytes]:
    read = file.read  # type: ignore[attr-defined]
    while True:
        prefix = read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            raise CorruptEntry(f"{path} was cut off")
        yield prefix
        (length,) = _LENGTH.unpack(prefix)
        if not length:
            return
        block = read(length)
        if len(block) < length:
            raise CorruptEntry(f"{path} was cut off")
        yield block
