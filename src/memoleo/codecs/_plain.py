"""The fast lane: exact plain data, which MessagePack keeps as it is.

No fast encoder is exact to the type: MessagePack merges lists with tuples, and subclasses with
their bases. So a value takes this lane only if every part of it has one of a few exact types.
"""

from __future__ import annotations

from operator import countOf
from typing import Any

import msgspec

from memoleo.errors import CodecError

__all__ = ["SCALARS", "decode_plain", "encode_plain", "is_plain"]

SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None), bytes})
"""The types of which MessagePack keeps every value, but for huge integers and lone surrogates."""

_PLAIN = SCALARS | {list, dict}
_ONLY_STR = {str}


def _no_extension(code: int, data: memoryview) -> None:
    raise CodecError(f"extension {code} is no plain data")


encode_plain = msgspec.msgpack.Encoder().encode
decode_plain = msgspec.msgpack.Decoder(ext_hook=_no_extension).decode


def is_plain(value: Any, depth: int = 64) -> bool:
    """Whether `value` has only scalars, lists, and dicts with keys of `str` in it.

    Parameters
    ----------
    depth
        how many levels to look into; what is deeper counts as not plain, so that a value which
        contains itself ends here
    """
    kind = type(value)
    if kind is dict:
        if value and {*map(type, value)} != _ONLY_STR:
            return False
        value = value.values()
    elif kind is not list:
        return kind in SCALARS
    elif len(value) > 32:
        # Long lists are mostly of one type, and counting is quicker than collecting.
        first = type(value[0])
        if first in SCALARS and countOf(map(type, value), first) == len(value):
            return True
    kinds = {*map(type, value)}
    if kinds <= SCALARS:
        return True
    if not depth or not kinds <= _PLAIN:
        return False
    depth -= 1
    for item in value:
        kind = type(item)
        if (kind is list or kind is dict) and not is_plain(item, depth):
            return False
    return True
