"""Names for objects that can't be keyed: good within this process, and nowhere else."""

from __future__ import annotations

import os
import weakref
from typing import Any

from memoleo._events import extras, logger

__all__ = ["token_of"]

_TOKENS: dict[int, tuple[Any, bytes]] = {}


def token_of(value: Any, name: str, function: str) -> bytes:
    """Return a random name for an object, and say so once.

    Entries made with it are found again only by this process, and only while the object lives.

    Parameters
    ----------
    value
        the object
    name, function
        the captured variable and the function, for the warning
    """
    known = _TOKENS.get(id(value))
    if known is not None and known[0]() is value:
        return known[1] + os.getpid().to_bytes(8, "little")
    mark = id(value)
    token = os.urandom(16)
    try:
        reference: Any = weakref.ref(value, lambda _: _TOKENS.pop(mark, None))
    except TypeError:
        # Nothing tells when it is gone, so its name ends with this examination.
        reference = None
    if reference is not None:
        _TOKENS[mark] = (reference, token)
    logger.warning(
        "%s captures %r, which can't be keyed (%s): its entries are found again only by this "
        "process. Way out: version=…",
        function,
        name,
        type(value).__name__,
        extra=extras("unkeyed_capture", label=str(function)),
    )
    return token + os.getpid().to_bytes(8, "little")
