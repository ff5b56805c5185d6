"""The hands of an HTTP call: they send what its head asks for, in threads or in tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any

from memoleo._exchanges.answers import Sent
from memoleo.http_rules._messages import Answer

__all__ = ["AAside", "ASend", "Aside", "Asking", "Send", "adrive", "drive"]

Send = Callable[[Mapping[str, str]], Sent]
ASend = Callable[[Mapping[str, str]], Awaitable[Sent]]
Aside = Callable[[str], Answer]
AAside = Callable[[str], Awaitable[Answer]]
Asking = Generator["Mapping[str, str] | str", Any, Sent]
"""What a call is: headers to send it with, or URLs to get before; it is sent what came."""


def drive(asking: Asking, send: Send, aside: Aside | None) -> Sent:
    """Perform a call in this thread."""
    try:
        step = next(asking)
        while True:
            try:
                result: Any = _aside(aside)(step) if isinstance(step, str) else send(step)
            except BaseException as error:
                step = asking.throw(error)
            else:
                step = asking.send(result)
    except StopIteration as stop:
        found: Sent = stop.value
        return found


async def adrive(asking: Asking, send: ASend, aside: AAside | None) -> Sent:
    """Perform a call in this task."""
    try:
        step = next(asking)
        while True:
            try:
                result: Any = await (_aside(aside)(step) if isinstance(step, str) else send(step))
            except BaseException as error:
                step = asking.throw(error)
            else:
                step = asking.send(result)
    except StopIteration as stop:
        found: Sent = stop.value
        return found


def _aside(aside: Any) -> Any:
    if aside is None:
        raise LookupError("this library asks nothing else")
    return aside
