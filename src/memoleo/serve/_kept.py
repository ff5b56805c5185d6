"""An answer that is kept for a while, since it took long to find."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Kept"]

T = TypeVar("T")

_TIMES = 20
_LEAST = 0.5


class Kept(Generic[T]):
    """Asks anew only after twenty times as long as the last answer took, or half a second.

    So however many look, finding answers takes a twentieth of one core at most. Those who come
    while one is asking wait for its answer.

    Parameters
    ----------
    ask
        finds the answer
    clock
        returns seconds
    """

    def __init__(self, ask: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: tuple[T] | None = None
        self._until = 0.0

    def __call__(self) -> T:
        """Return the answer, at most that old; what asking raises is raised."""
        with self._lock:
            if self._answer is None or self._clock() >= self._until:
                begun = self._clock()
                self._answer = (self._ask(),)
                ended = self._clock()
                self._until = ended + max(_LEAST, _TIMES * (ended - begun))
            return self._answer[0]
