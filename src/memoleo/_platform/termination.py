"""The last moment of a process that somebody asks to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

__all__ = ["on_termination"]

_last_calls: list[Callable[[], None]] = []
_terminating = False


def on_termination(call: Callable[[], None]) -> None:
    """Call `call` when somebody asks this process to end (SIGTERM), before it ends as ever.

    Nothing happens if the program handles the signal itself, now or later, or if this is not the
    main thread, which alone may say what becomes of signals. Windows has no such signal.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    if call not in _last_calls:
        _last_calls.append(call)
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
    except ValueError:
        # In a subinterpreter no thread may.
        pass


def _terminate(number: int, frame: object) -> None:
    global _terminating
    if not _terminating:
        _terminating = True
        for call in _last_calls:
            try:
                call()
            except Exception:
                continue
        _terminating = False
    # A handler that was set later, and calls the one before it, decides what happens then.
    if signal.getsignal(number) is _terminate:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
