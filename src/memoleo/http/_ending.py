"""The end of a task whose caller was cancelled."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import anyio

__all__ = ["ended"]

T = TypeVar("T")

_TURNS = 5


async def ended(task: asyncio.Task[T], *, cancel: bool = True) -> T | None:
    """Wait until a task has ended, however often the caller is cancelled meanwhile.

    Parameters
    ----------
    task
        what the caller waited for
    cancel
        cancel it, if it has not ended within some turns of the loop: what it already has in hand
        would be lost

    Returns
    -------
    object
        its result; `None` if it has none
    """
    with anyio.CancelScope(shield=True):
        turn = 0
        while not task.done():
            turn += 1
            if cancel and turn == _TURNS:
                task.cancel()
            try:
                if cancel and turn < _TURNS:
                    await asyncio.sleep(0)
                else:
                    await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
    if task.cancelled() or task.exception() is not None:
        return None
    return task.result()
