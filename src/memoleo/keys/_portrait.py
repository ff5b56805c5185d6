"""What a key is made of, part by part, for those who ask why two keys differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

__all__ = ["Description", "Portrait"]


class Portrait(msgspec.Struct, frozen=True, gc=False):
    """What all calls of a function with one code have in common.

    Parameters
    ----------
    label
        the function, as ``module:qualname``
    names
        the names of what is keyed of a call, in order
    facts
        everything else that is in the key: a name such as "code of m.helper", and a digest
    """

    label: str
    names: tuple[str, ...]
    facts: Mapping[str, bytes]


class Description(NamedTuple):
    """What one key is made of.

    Parameters
    ----------
    portrait
        what it has in common with others
    values
        what is keyed of the call, one for each of ``portrait.names``
    """

    portrait: Portrait
    values: tuple[Any, ...]
