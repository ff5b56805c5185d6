"""The first thing that runs, before anything else is imported."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]

INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status.

    0: done. 1: it failed, or found problems. 2: wrong use or wrong settings. 130: interrupted.

    Parameters
    ----------
    args
        the arguments; left out, those of the process
    """
    try:
        # Importing takes a tenth of a second, in which Ctrl-C may come as well.
        from memoleo.cli._main import status_of

        status = status_of(args)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        status = INTERRUPTED
    sys.exit(status)
