"""The last moment of a process that somebody asks to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

__all__ = ["end_at_once", "is_worker", "on_termination"]

_last_calls: list[Callable[[], None]] = []
_terminating = False
_hooked = False
_forking = threading.local()


def on_termination(call: Callable[[], None]) -> None:
    """Call `call` when somebody asks this process to end (SIGTERM), before it ends as ever.

    Nothing happens if the program handles the signal itself, now or later, or if this is not the
    main thread, which alone may say what becomes of signals. Windows has no such signal. Nothing
    happens in a child of `multiprocessing` either, see `end_at_once`.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return
    if is_worker():
        return
    if call not in _last_calls:
        _last_calls.append(call)
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
            _hook_forks()
    except ValueError:
        # In a subinterpreter no thread may.
        pass


def is_worker() -> bool:
    """Whether this process is a child of `multiprocessing`."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # A spawned child learns who its parent is only once it has imported the program.
    spawned = getattr(process.current_process(), "_inheriting", False)
    return spawned or process.parent_process() is not None


def end_at_once() -> None:
    """Give up what `on_termination` said in the process that this one was forked from.

    A pool that is left ends its workers by SIGTERM, and waits for them without end. A handler runs
    only when the main thread comes back from what it does: a worker that is about to wait for a
    lock of the pool's, and has just looked for signals, never does.
    """
    if sys.platform != "win32" and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _hook_forks() -> None:
    """Let no child miss a signal: Python forgets in it what came before the child began to run."""
    global _hooked
    if sys.platform == "win32" or _hooked:
        return
    _hooked = True

    def hold() -> None:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            _forking.holds = signal.SIGTERM not in before

    def let_go() -> None:
        if getattr(_forking, "holds", False):
            _forking.holds = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_go)


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
