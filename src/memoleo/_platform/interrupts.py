"""Exceptions of the program's own that come up in the middle of memoleo's work."""

from __future__ import annotations

import signal
import threading
from types import CodeType
from typing import Any

__all__ = ["interruption", "pass_on"]


def interruption(error: BaseException | None) -> BaseException | None:
    """Return what a signal handler of the program raised, if that is `error` or its cause.

    A time limit by ``SIGALRM`` raises in the code that runs at that moment, which may be ours. It
    is no failure of ours then: whoever set the limit waits for it, so it must be passed on.
    Handlers run in the main thread only (`signal`, "Signals and threads").
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    suspects = []
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            # What only our own code took part in is common, and asking for handlers takes long.
            if not str(trace.tb_frame.f_globals.get("__name__")).startswith("memoleo."):
                suspects.append((trace.tb_frame.f_code, error))
            trace = trace.tb_next
        error = error.__cause__
    if not suspects:
        return None
    try:
        codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    except AttributeError:
        # The program has a module of that name, and no use for signals then.
        return None
    return next((found for code, found in suspects if code in codes), None)


def pass_on(error: BaseException) -> None:
    """Raise what a signal handler of the program raised, if that is behind `error`."""
    found = interruption(error)
    if found is not None:
        try:
            raise found
        finally:
            # Its traceback refers to this frame: in a circle, all that it holds would live on.
            del found, error


def _code_of(handler: Any) -> CodeType | None:
    while hasattr(handler, "func"):  # functools.partial
        handler = handler.func
    for candidate in (handler, type(handler).__call__):
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
