"""Keys as text, for people and command lines."""

from __future__ import annotations

import hashlib
import re

__all__ = ["Key", "address"]

_TEXT = re.compile(r"m1-([0-9a-f]{64})")


class Key(str):
    """The key of one call, as text: "m1-" and 64 hexadecimal digits.

    It is an ordinary `str`, so it can be logged, stored, and given to `Cache.get`, to
    `Cache.delete` or to the command line.
    """

    __slots__ = ()

    @classmethod
    def of(cls, digest: bytes) -> Key:
        """Return the text of a key of 32 bytes."""
        return cls(f"m1-{digest.hex()}")


def address(key: str | bytes) -> bytes:
    """Return the 32 bytes under which a store knows `key`.

    The text of a `Key` stands for the call that it came from. Any other text, and all bytes, are
    keys of the caller's own: they are hashed under a domain of their own, text and bytes apart.

    Raises
    ------
    TypeError
        it is neither text nor bytes
    """
    if isinstance(key, str):
        match = _TEXT.fullmatch(key)
        if match:
            return bytes.fromhex(match[1])
        return hashlib.sha256(b"memoleo:own:s" + key.encode("utf-8", "surrogatepass")).digest()
    if isinstance(key, (bytes, bytearray, memoryview)):
        return hashlib.sha256(b"memoleo:own:b" + key).digest()
    raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
