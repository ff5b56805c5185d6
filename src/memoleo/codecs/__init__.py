"""Values to bytes and back."""

from memoleo.codecs._auto import AutoCodec
from memoleo.codecs._pickle import PickleCodec
from memoleo.codecs._protocol import Codec
from memoleo.codecs._register import register
from memoleo.codecs._resolve import resolve_codec

__all__ = ["AutoCodec", "Codec", "PickleCodec", "register", "resolve_codec"]
