"""What a value is keyed as, where that is not the value itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["normal_text"]


def normal_text(value: Any) -> Any:
    """Return `value` with every text in it in NFC, case folded, and white space collapsed.

    It reaches into lists, tuples, sets, and the values (not the keys) of dicts; anything else
    stays as it is. Folding can undo NFC, so NFC comes last as well (Unicode Standard, section
    3.13, D145).
    """
    kind = type(value)
    if kind is str:
        if value.isascii():
            return " ".join(value.lower().split())
        # Only text beyond ASCII needs the tables.
        from unicodedata import normalize

        folded = normalize("NFC", value).casefold()
        return " ".join(normalize("NFC", folded).split())
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return kind(map(normal_text, value))
    if kind is dict:
        return {name: normal_text(item) for name, item in value.items()}
    return value


Normalizer = Callable[[Any], Any]
