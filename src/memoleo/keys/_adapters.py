"""Users' own words on what the content of their types is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from memoleo.errors import ConfigError
from memoleo.keys._canonical import (
    Put,
    Unkeyable,
    Writer,
    class_name,
    finder,
    forget,
    frame,
    write,
)

__all__ = ["register"]

T = TypeVar("T")

_ADAPTERS: dict[type, Callable[[Any], Any]] = {}

# The fast lane encodes these without asking anybody.
_FIXED = (str, int, float, bool, bytes, list, dict, type(None))


def register(cls: type[T], to_content: Callable[[T], Any]) -> None:
    """Say what of an instance of `cls` belongs in a key.

    It holds for `cls` and its subclasses; of several adapters the one for the nearest class is
    used, and registering a class again replaces its adapter. The name of the instance's own
    class goes into the key beside the content, so instances of two classes never share an entry.

    A class of your own can have a method ``__memoleo_key__(self)`` instead, which returns the
    content.

    Parameters
    ----------
    cls
        the type
    to_content
        takes an instance and returns what tells it from others: anything that can be keyed

    Raises
    ------
    ConfigError
        `cls` is not a class, or it is one of the plain types, which are keyed exactly as they are

    Examples
    --------
    >>> from memoleo.keys import register
    >>> class Client:
    ...     def __init__(self, url): self.url = url
    >>> register(Client, lambda client: client.url)
    """
    if not isinstance(cls, type):
        raise ConfigError(f"register() takes a class, not {cls!r}.")
    if cls in _FIXED or cls is object:
        raise ConfigError(
            f"{cls.__name__} can't have an adapter. "
            "To change what is keyed of one parameter, use normalize={…}."
        )
    if not callable(to_content):
        raise ConfigError(f"The adapter for {cls.__name__} must be callable.")
    _ADAPTERS[cls] = to_content
    forget()


@finder(0)
def _adapted(cls: type) -> Writer | None:
    for layer in cls.__mro__:
        adapter = _ADAPTERS.get(layer)
        if adapter is None and "__memoleo_key__" in vars(layer):
            adapter = vars(layer)["__memoleo_key__"]
        if adapter is not None:
            break
    else:
        return None
    to_content = adapter
    head = b"X" + frame("adapted") + frame(class_name(cls))

    def writer(value: Any, put: Put, active: set[int]) -> None:
        put(head)
        try:
            content = to_content(value)
        except RecursionError:
            raise Unkeyable(value, "its adapter calls itself without end") from None
        except Unkeyable:
            raise
        except Exception as error:
            raise Unkeyable(value, f"its adapter raised {error!r}") from error
        write(content, put, active)

    return writer
