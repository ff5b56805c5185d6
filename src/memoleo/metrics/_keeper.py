"""When numbers are written down: now and then, and when the process ends, however it ends.

One thread for the whole process, which starts when something is counted for the first time. It
is a daemon and holds nothing that a fork could leave half done: it is stopped before each fork,
and started again in the child at once, in the parent when something is next counted.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import sys
import threading
from typing import Protocol

from memoleo._events import extras, logger
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo._platform.termination import end_at_once, is_worker, on_termination
from memoleo.config import _settings

__all__ = ["Keeper", "Target", "keeper"]

_AT_EXIT = 2.0
"""Seconds that the end of a process waits for others that are writing."""

_STOPPING = 1.0
_LEAST_INTERVAL = 0.05
_SPREAD = 0.2


class Target(Protocol):
    """Something that counts."""

    def flush(self, patience: float) -> bool:
        """Write down what is new, waiting for others so many seconds; whether more may come."""
        ...

    def collect(self) -> None:
        """Hand over what is new, without writing."""
        ...


class Keeper:
    """Calls what has something to write down."""

    def __init__(self) -> None:
        self._targets: list[Target] = []
        self._awake = False
        self._counting = False
        self._registered = False
        self._told = False
        self._lock = Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        renew_after_fork(self)

    def add(self, target: Target) -> None:
        """Let `target` write in every round from now on, until it says that it is done."""
        with self._lock:
            if target not in self._targets:
                self._targets.append(target)
        if not self._registered:
            self._registered = True
            atexit.register(self.flush, _AT_EXIT)
            self._finalize_child()
        self._tell_multiprocessing()
        on_termination(self._terminated)
        if self._counting:
            self.wake()

    def expect(self) -> None:
        """Say that something will count, perhaps in other threads only.

        What becomes of a signal only the main thread may say, which is often done with memoleo
        once it has applied the decorators.
        """
        on_termination(self._terminated)

    def wake(self) -> None:
        """Say that something is being counted. Cheap, so that it can be said often."""
        if self._awake:
            return
        self._counting = True
        if self._targets:
            self._awake = True
            on_termination(self._terminated)
            self._start()

    def collect(self) -> None:
        """Have everything handed over that was counted in this process."""
        for target in list(self._targets):
            target.collect()

    def flush(self, patience: float = 0.0) -> None:
        """Do a round now.

        Parameters
        ----------
        patience
            seconds to wait for others that are writing
        """
        for target in list(self._targets):
            try:
                keep = target.flush(patience)
            except Exception:
                keep = True
                logger.debug("keeping metrics failed", exc_info=True, extra=extras("failing"))
            if not keep:
                with contextlib.suppress(ValueError):
                    self._targets.remove(target)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(self._stop,), name="memoleo-metrics", daemon=True
            )
            # Threads can't be started any more while the interpreter shuts down.
            with contextlib.suppress(RuntimeError):
                thread.start()
                # Not before: another thread may fork now, and waits only for what has begun.
                self._thread = thread

    def _run(self, stop: threading.Event) -> None:
        # Processes that were started together don't all write at the same moment.
        spread = 1.0 - _SPREAD * (os.getpid() * 0.618034 % 1.0)
        while not stop.wait(self._interval() * spread):
            self.flush()

    def _interval(self) -> float:
        try:
            interval = _settings.current().metrics.interval
        except Exception:
            # Who asks for the settings to be used is told what is wrong with them.
            interval = 5.0
        return min(max(interval, _LEAST_INTERVAL), threading.TIMEOUT_MAX)

    def _terminated(self) -> None:
        # In a thread of its own, since this one may have been interrupted anywhere, with locks
        # held; `threading` has such locks too.
        done = _thread.allocate_lock()
        done.acquire()

        def last_round() -> None:
            try:
                self.flush(_AT_EXIT)
            finally:
                done.release()

        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(last_round, ())
            done.acquire(timeout=1.5 * _AT_EXIT)

    def _finalize_child(self) -> None:
        """Flush at the end of a child of `multiprocessing`, which ends without `atexit`."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and is_worker():
            util.Finalize(None, self.flush, args=(_AT_EXIT,), exitpriority=0)

    def _begin_child(self) -> None:
        end_at_once()
        self._finalize_child()

    def _tell_multiprocessing(self) -> None:
        # It forgets the parent's finalizers in a new child, and then calls who asked for it.
        util = sys.modules.get("multiprocessing.util")
        if util is not None and not self._told:
            self._told = True
            util.register_after_fork(self, Keeper._begin_child)

    def _before_fork(self) -> None:
        thread, self._thread = self._thread, None
        self._awake = False
        if thread is not None and thread is not threading.current_thread():
            self._stop.set()
            thread.join(_STOPPING)
        self._tell_multiprocessing()

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._thread = None
        if self._counting and self._targets:
            self._awake = True
            self._start()


keeper = Keeper()
"""The one of this process."""
