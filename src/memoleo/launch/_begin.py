"""What happens in a process that ``memoleo run`` started, before the program's first call."""

from __future__ import annotations

import os

from memoleo._events import extras, logger
from memoleo._switch import OBSERVED
from memoleo.hooks import listen
from memoleo.launch._observed import OUTCOMES, Recorder
from memoleo.patches._enable import enable
from memoleo.patches._imports import spare_imports

__all__ = ["begin"]


def begin() -> None:
    """Enable what the settings name; whatever goes wrong, the program runs as if without it."""
    spare_imports()
    try:
        folder = os.environ.get(OBSERVED)
        if folder:
            listen(Recorder(folder), kinds=OUTCOMES)
        enable()
    except Exception as error:
        logger.warning(
            "memoleo run: nothing is cached: %s", error, extra=extras("not_enabled", error=error)
        )
