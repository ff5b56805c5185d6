"""What an HTTP call comes to, and how a cache keeps it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from memoleo.codecs._compress import compress, decompress
from memoleo.codecs._readers import show_with
from memoleo.errors import CodecError
from memoleo.http_rules._judge import public
from memoleo.http_rules._key import secrets_of
from memoleo.http_rules._messages import Answer, Request

__all__ = ["Sent", "answer_codec"]


class Sent(msgspec.Struct, frozen=True):
    """What a call came to.

    Parameters
    ----------
    answer
        what the server said; `None` while it is not read yet
    response
        the library's own object; `None` if the answer is from the cache
    request
        what was asked; `None` if the answer is from the cache
    """

    answer: Answer | None
    response: Any = None
    request: Request | None = None


class AnswerCodec:
    """Encodes the answer of a `Sent`."""

    name = "http"

    def encode(self, value: Sent) -> bytes:
        """See `Codec.encode`."""
        if value.answer is None or value.request is None:
            raise CodecError("an answer that was not read")
        payload = _encode(public(value.answer))
        if any(secret in payload for secret in secrets_of(value.request)):
            raise CodecError("an answer that repeats a credential")
        packed = compress(payload)
        return b"\0" + payload if packed is None else b"\1" + packed

    def decode(self, payload: bytes) -> Sent:
        """See `Codec.decode`."""
        try:
            packed = memoryview(payload)[1:]
            return Sent(_decode(decompress(packed) if payload[0] else packed))
        except (msgspec.MsgspecError, IndexError) as error:
            raise CodecError(f"not the answer of a server: {error}") from None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode
answer_codec = AnswerCodec()


def _shown(payload: bytes) -> dict[str, Any]:
    """Return an answer as people may read it."""
    answer = answer_codec.decode(payload).answer
    assert answer is not None
    body: Any = answer.body
    with suppress(UnicodeDecodeError):
        body = answer.body.decode()
    return {"status": answer.status, "headers": dict(answer.headers), "body": body}


show_with(AnswerCodec.name, _shown)
