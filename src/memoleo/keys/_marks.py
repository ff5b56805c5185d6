"""Marks of values: exact to the type, quick, and good only inside this process.

A mark leads to the key that was made for equal values before. It may be another one for equal
values (a dict in another order), which costs making the key once more, but never the same one for
different values. Pickle's encoder in C is that exact as long as nothing but builtin types reaches
it, and looks at types in a third of the time that Python takes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import xxhash

from memoleo._platform.interrupts import pass_on

__all__ = ["mark_of"]

_SEED = int.from_bytes(os.urandom(8), "big")
_digest = xxhash.xxh3_128_digest


class _Foreign(Exception):
    """A value is of no builtin type."""


def _refuse(value: Any) -> NoReturn:
    raise _Foreign


def _make_mark_of() -> Callable[[tuple[Any, ...]], bytes | None]:
    from _pickle import Pickler

    class Exact(Pickler):
        # Asked for everything whose type is not exactly one of the builtin ones. A bytearray and
        # a PickleBuffer, which look like bytes, are refused by the protocol below 5.
        reducer_override: Any = staticmethod(_refuse)

    class Encoder(threading.local):
        """A thread's own. What interrupts it leaves what it finds in the pieces."""

        def __init__(self) -> None:
            pieces: list[bytes] = []
            self.write = pieces.append
            pickler = Exact(self, 4)
            pickler.fast = True  # no memo: whether two items are one object doesn't count
            self.tools = pieces, pickler.dump

    encoder = Encoder()

    def mark_of(values: tuple[Any, ...]) -> bytes | None:
        pieces, dump = encoder.tools
        start = len(pieces)
        try:
            dump(values)
        except _Foreign:
            # The way of every call with a value that is not plain: it has to be short.
            del pieces[start:]
            return None
        except Exception as error:
            del pieces[start:]
            pass_on(error)
            return None
        body = pieces.pop()
        if len(pieces) == start:
            return _digest(body, _SEED)
        # Long texts come in pieces of their own.
        rest = pieces[start:]
        del pieces[start:]
        whole = xxhash.xxh3_128(seed=_SEED)
        for piece in (*rest, body):
            whole.update(piece)
        return whole.digest()

    return mark_of


def _no_mark(values: tuple[Any, ...]) -> None:
    return None


try:
    mark_of: Callable[[tuple[Any, ...]], bytes | None] = _make_mark_of()
except (ImportError, AttributeError, TypeError):  # another interpreter than CPython
    mark_of = _no_mark
"""Return the mark of some values, or `None` if they have none: then only the key itself will do."""
