"""The fast lane: plain data, recognised by exact type and encoded by msgspec.

msgspec alone is not type-exact (it writes a tuple as a list, and an Enum as its value), so it
gets only what it keeps apart: exactly `str`, `int`, `float`, `bool`, `None`, `bytes`, `list`,
and `dict` with `str` keys. Whether data is plain depends on its content alone, so equal calls
always take the same lane.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["HUGE", "encode_plain", "is_plain"]

_SCALARS = frozenset({str, int, bool, bytes, type(None)})

# Deeper data goes to the tagged lane, which can name a path inside it.
_DEEPEST = 16
HUGE = 1 << 22
"""Characters of a text that is hashed without being copied before."""

# Raises UnicodeEncodeError for lone surrogates and OverflowError for integers beyond 64 bits:
# such calls belong to the tagged lane.
encode_plain = msgspec.msgpack.Encoder(order="deterministic").encode


def is_plain(values: Iterable[Any], depth: int = 0) -> bool:
    """Return whether msgspec keeps `values` apart from all other data.

    Parameters
    ----------
    values
        the items of a list, the values of a dict, or the arguments of a call
    depth
        how many containers hold `values`. Too many is not plain, so cyclic data ends as well
    """
    for value in values:
        kind = type(value)
        if kind is str or kind in _SCALARS:
            # msgspec's buffer grows ahead of what it holds: a huge text goes where it is hashed
            # without being copied again.
            if kind is str and len(value) > HUGE:
                return False
            continue
        # Containers of scalars are done in place: a call for each would double the cost.
        deeper: list[Any] | None = None
        if kind is list:
            for item in value:
                kind = type(item)
                if kind is str or kind in _SCALARS or (kind is float and item == item):
                    continue
                if kind is not list and kind is not dict:
                    return False
                if deeper is None:
                    deeper = []
                deeper.append(item)
        elif kind is dict:
            for name, item in value.items():
                if type(name) is not str:
                    return False
                kind = type(item)
                if kind is str or kind in _SCALARS or (kind is float and item == item):
                    continue
                if kind is not list and kind is not dict:
                    return False
                if deeper is None:
                    deeper = []
                deeper.append(item)
        # The bits of a nan say nothing; the tagged lane writes one nan for all.
        elif kind is not float or value != value:
            return False
        if deeper is not None and (depth == _DEEPEST or not is_plain(deeper, depth + 1)):
            return False
    return True
