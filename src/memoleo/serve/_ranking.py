"""The largest entries of a store, and those that were used last."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import Any, Literal

from memoleo._entry import Entry

__all__ = ["ranked"]

_LOOKED_AT = 5_000


def ranked(
    backend: Any, order: Literal["size", "used"], limit: int
) -> list[tuple[bytes, Entry, float]]:
    """Return keys and entries with the time of their last use, those in front first.

    A store that can rank its entries (`SQLiteBackend.leading`) is asked; of another one the most
    recent entries are looked at, and the time of their creation counts as that of their use.
    """
    store = getattr(backend, "tiers", (backend,))[-1]
    leading = getattr(store, "leading", None)
    if leading is not None:
        found: list[tuple[bytes, Entry, float]] = leading(order, limit)
        return found
    entries = islice(store.entries(), _LOOKED_AT)
    if order == "size":
        best = heapq.nlargest(limit, entries, key=lambda pair: pair[1].size)
    else:
        best = list(islice(entries, limit))
    return [(key, entry, entry.created) for key, entry in best]
