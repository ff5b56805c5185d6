"""Warnings about a program that goes on all the same."""

from __future__ import annotations

import warnings
from typing import Any

from memoleo._events import logger

__all__ = ["tell"]


def tell(said: str, extra: dict[str, Any]) -> None:
    """Warn; where warnings are errors, log: no call and no import must fail of it.

    Parameters
    ----------
    said
        the warning
    extra
        what the log record carries, see `memoleo._events.extras`
    """
    try:
        warnings.warn(f"memoleo: {said}", RuntimeWarning, stacklevel=4)
    except RuntimeWarning:
        logger.warning("%s", said, extra=extra)
