"""Who computes a key, among machines: a token that has to be renewed."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.backends._protocol import Lease
from memoleo.backends._redis_commands import Command
from memoleo.errors import BackendError

__all__ = ["Leases"]

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"
_RENEW = (
    "if redis.call('get', KEYS[1]) == ARGV[1] "
    "then return redis.call('pexpire', KEYS[1], ARGV[2]) end"
)


class Leases:
    """The leases that this process holds on one server.

    A lease ends by itself if it isn't renewed, so it is gone soon after its process. A thread
    renews those that are held; it ends when none is.

    Parameters
    ----------
    run
        carries out a command
    life
        seconds after which a lease ends that isn't renewed
    """

    def __init__(self, run: Callable[[Command], object], life: float) -> None:
        self._run = run
        self._life = life
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # The parent's leases are renewed, and released, by the parent.
        self._lock = Lock()
        self._held: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        # A finalizer may give a lease back at any moment: setting an event, it could meet itself.
        self._changed: SimpleQueue[None] = SimpleQueue()

    def take(self, name: str) -> Lease | None:
        """Try to get a lease; `None` if another holds it."""
        token = secrets.token_hex(16)
        if self._run(("SET", name, token, "NX", "PX", int(self._life * 1000))) is None:
            return None
        with self._lock:
            self._held[name] = token
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._renew, name="memoleo-leases", daemon=True
                )
                # No thread can be started any more while the interpreter shuts down.
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None
        return _Held(self, name, token)

    def release(self, name: str, token: str) -> None:
        """Give a lease back that is still held."""
        with self._lock:
            if self._held.get(name) != token:
                return
            del self._held[name]
            self._changed.put(None)
        # It ends by itself if the server can't be told.
        with suppress(BackendError):
            self._run(("EVAL", _RELEASE, 1, name, token))

    def forget(self, name: str, token: str) -> None:
        """Renew a lease no more, without a word to the server: it ends soon."""
        with self._lock:
            if self._held.get(name) == token:
                del self._held[name]
                self._changed.put(None)

    def _renew(self) -> None:
        changed = self._changed
        due = time.monotonic() + self._life / 3
        while True:
            with suppress(Empty):
                changed.get(timeout=max(0.0, due - time.monotonic()))
                while True:
                    changed.get_nowait()
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
                held = list(self._held.items())
            if time.monotonic() < due:
                continue
            due = time.monotonic() + self._life / 3
            for name, token in held:
                with suppress(BackendError):
                    self._run(("EVAL", _RENEW, 1, name, token, int(self._life * 1000)))


class _Held:
    def __init__(self, leases: Leases, name: str, token: str) -> None:
        self._leases = leases
        self._name = name
        self._token = token

    def release(self) -> None:
        self._leases.release(self._name, self._token)

    def __del__(self) -> None:
        # Dropped without a release, by an exception of a signal handler.
        self._leases.forget(self._name, self._token)
