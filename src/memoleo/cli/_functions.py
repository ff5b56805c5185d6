"""Functions that a command is given by name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

__all__ = ["find_function"]


def find_function(place: str) -> Callable[..., Any]:
    """Return what ``package.module:name`` names; the module is found as ``python -m`` finds it.

    Raises
    ------
    click.ClickException
        there is no such thing, or its module can't be imported
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise click.UsageError(f"{place!r}: name a function as package.module:function.")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise click.ClickException(f"{module} can't be imported: {error}") from None
    except Exception as error:
        raise click.ClickException(f"{module} fails: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise click.ClickException(f"{module} has no {name}.") from None
    if not callable(found):
        raise click.ClickException(f"{place} can't be called.")
    called: Callable[..., Any] = found
    return called
