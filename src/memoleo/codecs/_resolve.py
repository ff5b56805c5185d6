"""Codecs by name."""

from __future__ import annotations

from memoleo.codecs._auto import AutoCodec
from memoleo.codecs._pickle import PickleCodec
from memoleo.codecs._protocol import Codec
from memoleo.errors import ConfigError

__all__ = ["resolve_codec"]

_KNOWN: dict[str, type[AutoCodec] | type[PickleCodec]] = {"auto": AutoCodec, "pickle": PickleCodec}
_made: dict[str, Codec] = {}


def resolve_codec(codec: str | Codec) -> Codec:
    """Return the codec of that name, or `codec` itself.

    Raises
    ------
    ConfigError
        there is no codec of that name, or the object is not a codec
    """
    if isinstance(codec, str):
        if codec not in _KNOWN:
            names = ", ".join(map(repr, _KNOWN))
            raise ConfigError(
                f"codec={codec!r} is not known: give {names}, or an object that "
                "satisfies memoleo.codecs.Codec"
            )
        if codec not in _made:
            _made[codec] = _KNOWN[codec]()
        return _made[codec]
    if isinstance(codec, type) or not isinstance(codec, Codec):
        raise ConfigError(f"codec={codec!r} is not a codec: it needs name, encode() and decode()")
    return codec
