"""What a key is made of, part by part, for those who ask why two keys differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["Description", "Portrait", "decode_plain"]


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


class Description(msgspec.Struct, frozen=True, gc=False):
    """What one key is made of.

    Parameters
    ----------
    portrait
        what it has in common with others
    given
        what is keyed of the call, one for each of ``portrait.names``; empty if there are `blocks`
    blocks
        the same as plain bytes, if they were at hand
    """

    portrait: Portrait
    given: tuple[Any, ...]
    blocks: list[bytes] | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        """What is keyed of the call; equal to it, but not always the objects themselves."""
        return self.given if self.blocks is None else (*map(decode_plain, self.blocks),)


decode_plain = msgspec.msgpack.Decoder().decode
