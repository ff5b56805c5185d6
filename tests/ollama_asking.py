"""Clients of both kinds behind one function, and what makes two of their answers the same."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ollama
from pydantic import BaseModel

__all__ = ["asking", "exact", "opened"]


@contextmanager
def opened(url: str, **kwargs: Any) -> Iterator[ollama.Client]:
    """Make a client, closed at the end of the block: old ones are no context managers."""
    kwargs.setdefault("verify", False)
    client = ollama.Client(url, **kwargs)
    try:
        yield client
    finally:
        client._client.close()


@contextmanager
def asking(kind: str, url: str, **kwargs: Any) -> Iterator[Callable[..., Any]]:
    """Call methods by name on a client, "sync" or "async"; streams come as lists of their parts."""
    if kind == "sync":
        with opened(url, **kwargs) as client:

            def call(name: str, *args: Any, **kwargs: Any) -> Any:
                answer = getattr(client, name)(*args, **kwargs)
                return list(answer) if inspect.isgenerator(answer) else answer

            yield call
        return
    loop = asyncio.new_event_loop()
    aclient = ollama.AsyncClient(url, **{"verify": False, **kwargs})

    async def acall(name: str, *args: Any, **kwargs: Any) -> Any:
        answer = await getattr(aclient, name)(*args, **kwargs)
        return [part async for part in answer] if inspect.isasyncgen(answer) else answer

    yield lambda *args, **kwargs: loop.run_until_complete(acall(*args, **kwargs))
    loop.run_until_complete(aclient._client.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def exact(value: Any) -> Any:
    """Return a value with the types and the set fields of everything inside it."""
    if isinstance(value, BaseModel):
        fields = {name: exact(each) for name, each in value.__dict__.items()}
        return type(value), fields, sorted(value.model_fields_set), value.model_extra
    if isinstance(value, dict):
        return dict, [(name, exact(each)) for name, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [exact(each) for each in value]
    return type(value), value
