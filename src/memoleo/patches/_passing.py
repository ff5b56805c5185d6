"""Which calls of an HTTP library are passed on as they are, because one above answers them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from memoleo.patches._ollama_sending import BELOW

__all__ = ["is_answered_above", "is_passing", "passing"]

_passing: ContextVar[bool] = ContextVar("memoleo_passing", default=False)


def is_passing() -> bool:
    """Whether the current context is making a call that is being answered already.

    A redirect is followed by further calls of the same library.
    """
    return _passing.get()


def is_answered_above(agent: str) -> bool:
    """Whether a request comes from the official ollama client, and that is enabled itself.

    It makes its calls with `httpx`, those of a stream at a time when nobody is above any more.

    Parameters
    ----------
    agent
        the header ``User-Agent``
    """
    if not agent.startswith("ollama-python"):
        return False
    client = getattr(sys.modules.get("ollama"), "Client", None)
    return hasattr(getattr(client, "_request", None), BELOW)


@contextmanager
def passing() -> Iterator[None]:
    """Pass on whatever this block calls."""
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)
