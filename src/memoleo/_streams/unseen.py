"""Asynchronous generators that no event loop knows.

A loop closes the asynchronous generators that were left behind: each in a task when it is dropped,
and when the loop ends all at once. Where one stands in front of another, both are closed from
two sides, and whoever comes second meets one that is "already running". So the loop knows the
program's own generator alone, as it would without us. What stands in front of it is dropped with
its consumer, without a word: there, nothing may rely on a `finally` but to close what is behind.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any

__all__ = ["unseen"]


def unseen(source: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    """Return an asynchronous generator that has not begun yet as one that no loop knows.

    It passes for a plain one, `inspect.isasyncgen` included.
    """
    return _Unseen(source)


class _Unseen(AsyncGenerator[Any, Any]):
    __slots__ = ("_begun", "_source")

    def __init__(self, source: AsyncGenerator[Any, Any]) -> None:
        self._source = source
        self._begun = False

    def __anext__(self) -> Any:
        return self._hidden(self._source.__anext__)

    def asend(self, value: Any) -> Any:
        return self._hidden(self._source.asend, value)

    def athrow(self, *error: Any) -> Any:
        return self._hidden(self._source.athrow, *error)

    def aclose(self) -> Any:
        return self._hidden(self._source.aclose)

    def _hidden(self, method: Callable[..., Any], *args: Any) -> Any:
        """Call a method of the generator; its first call of any would tell the loop of it."""
        if self._begun:
            return method(*args)
        self._begun = True
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, _drop)
        try:
            return method(*args)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __repr__(self) -> str:
        return repr(self._source)

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> Any:
            return AsyncGeneratorType


def _drop(_: Any) -> None:
    """Let a generator go as it is: without this, Python would try to close it on the spot."""
