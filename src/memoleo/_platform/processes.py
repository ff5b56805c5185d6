"""Other programs in the place of this one, and ends that tell why."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

__all__ = ["become", "end_by_signal", "end_like", "supervise"]

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_FROM_KEYS = ("SIGINT", "SIGQUIT")


def end_by_signal(number: int) -> None:
    """End this process as the signal would have ended it, so that its parent sees why.

    Windows has no signals between processes: there it exits with the status that shells use.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        os._exit(128 + number)
    with suppress(OSError):  # nobody can say what becomes of SIGKILL
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def become(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute a program in the place of this one, which keeps its process, and never return.

    Windows can't replace a process: there the program runs in a child, and this process ends as
    it does.

    Raises
    ------
    OSError
        it can't be started
    """
    if sys.platform == "win32":
        end_like(supervise(arguments, environment))
    os.execve(arguments[0], list(arguments), environment)


def supervise(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program in a child until it ends; signals to this process go on to it.

    Returns
    -------
    int
        its exit status; −n if signal n ended it

    Raises
    ------
    OSError
        it can't be started
    """
    import subprocess

    early: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: object) -> None:
        if signal.Signals(number).name in _FROM_KEYS and _has_the_keyboard():
            return
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    numbers = [getattr(signal, name) for name in (*_FORWARDED, *_FROM_KEYS) if name in dir(signal)]
    before = {
        number: signal.signal(number, forward)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        process = subprocess.Popen(arguments, env=environment)
        for number in early:
            process.send_signal(number)
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_the_keyboard() -> bool:
    """Whether a key such as Ctrl-C reaches this process's children without its doing."""
    if sys.platform == "win32":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def end_like(status: int) -> NoReturn:
    """End this process as a child ended that `supervise` returned this status of."""
    if status < 0:
        end_by_signal(-status)
    # Windows has statuses beyond what sys.exit() takes, such as that of Ctrl-C, 0xC000013A.
    sys.exit(status if status < 1 << 31 else status - (1 << 32))
