"""Answers of an Ollama server to bytes and back.

An answer is stored as the list of its parts, an unstreamed one as a single part. So one entry
serves both kinds of call: the parts of a stream are joined the way the server joins them, and an
unstreamed answer is cut into the parts that a hasty server would send.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec

from memoleo._stream import Recorded
from memoleo.codecs._auto import AutoCodec
from memoleo.errors import CodecError

__all__ = ["AnswerCodec", "PartsCodec", "complete", "plain", "tokens"]

NAME = "ollama"
_FORMAT = 1
_END = ("stop", "length")
_EMPTY: tuple[Any, ...] = ("", None, [], ())

_auto = AutoCodec()
_encode_part = msgspec.msgpack.Encoder().encode
_decode_part = msgspec.msgpack.Decoder(dict[str, Any]).decode


def complete(answer: Any) -> bool:
    """Whether an answer, or the last part of one, says that nothing of it is missing.

    Embeddings come whole or not at all. Everything else says `done`, and why: a reason other than
    these is no answer ("load", "unload"), or one that a later server broke off.
    """
    fields = _fields(answer)
    if "embeddings" in fields:
        return bool(fields["embeddings"])
    if "embedding" in fields:
        return bool(fields["embedding"])
    return _ends(fields)


def plain(answer: Any) -> dict[str, Any]:
    """Return the fields that were set in an answer, as data to make it from."""
    fields: dict[str, Any] = answer.model_dump(exclude_unset=True, by_alias=True, warnings=False)
    return fields


def _fields(answer: Any) -> dict[str, Any]:
    """Return the fields of an answer, or of the last part of a recorded stream."""
    if type(answer) is tuple:
        return _decode_part(answer[0][-1]) if answer[0] else {}
    fields: dict[str, Any] = getattr(answer, "__dict__", {})
    return fields


def _ends(fields: dict[str, Any]) -> bool:
    return fields.get("done") is True and fields.get("done_reason") in _END


def tokens(answer: Any) -> int:
    """Return how many tokens an answer cost: those read and those written."""
    fields = _fields(answer)
    return (fields.get("prompt_eval_count") or 0) + (fields.get("eval_count") or 0)


class _Answers:
    """What the codecs of both kinds of call share.

    Parameters
    ----------
    answer
        the class of the answer
    asked
        the model's name as this caller spells it: the server repeats it in the answer
    """

    __slots__ = ("_make", "answer", "asked")

    name = NAME

    def __init__(self, answer: Any, asked: str) -> None:
        self.answer = answer
        self.asked = asked
        # What calling the class does, without a frame of Python and a second dict.
        self._make = answer.__pydantic_validator__.validate_python

    def dump(self, answer: Any) -> dict[str, Any]:
        """Return an answer as plain data from which `build` makes an equal one.

        Raises
        ------
        CodecError
            it can't be made again from its data: it was changed, or is of another class
        """
        name = self.answer.__qualname__
        if type(answer) is not self.answer:
            raise CodecError(f"expected {name}, got {type(answer).__qualname__}")
        try:
            fields = plain(answer)
            again = self._make(copy.deepcopy(fields))
            same = again == answer and plain(again) == fields and repr(again) == repr(answer)
        except Exception as error:
            raise CodecError(f"{name} can't be made from its data: {error!r}") from error
        if not same or fields.get("model", "") is None:
            raise CodecError(f"{name} is not what its data make")
        if fields.get("model") == self.asked:
            fields["model"] = None
        return fields

    def build(self, fields: dict[str, Any]) -> Any:
        """Return a new answer."""
        if fields.get("model", "") is None:
            fields["model"] = self.asked
        return self._make(fields)


def _parts(payload: bytes) -> tuple[bool, list[dict[str, Any]]]:
    stored = _auto.decode(payload)
    if type(stored) is not list or len(stored) != 3 or stored[0] != _FORMAT:
        raise CodecError("not an answer, or one that another version stored")
    return stored[1], stored[2]


class AnswerCodec(_Answers):
    """Encodes an answer that came in one piece."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        return _auto.encode([_FORMAT, False, [self.dump(value)]])

    def decode(self, payload: bytes) -> Any:
        """See `Codec.decode`."""
        streamed, parts = _parts(payload)
        return self.build(_joined(parts) if streamed else parts[0])


class PartsCodec(_Answers):
    """Encodes an answer that came in parts; see `StreamCodec`."""

    __slots__ = ()

    @property
    def item(self) -> _PartCodec:
        """The codec of a single part."""
        return _PartCodec(self)

    def ends(self, part: Any) -> bool:
        """Whether a part says that it is the last one."""
        return _ends(_fields(part))

    def encode(self, value: tuple[list[bytes], bytes]) -> bytes:
        """Return the payload of parts that are encoded already."""
        return _auto.encode([_FORMAT, True, [_decode_part(part) for part in value[0]]])

    def decode(self, payload: bytes) -> Recorded:
        """Return the parts, made anew."""
        streamed, parts = _parts(payload)
        return Recorded([self.build(part) for part in (parts if streamed else _cut(parts[0]))])


class _PartCodec:
    name = f"{NAME}-part"

    def __init__(self, parts: PartsCodec) -> None:
        self._parts = parts

    def encode(self, value: Any) -> bytes:
        if value is None:  # what the stream returned, which is nothing
            return b""
        return _encode_part(self._parts.dump(value))

    def decode(self, payload: bytes) -> Any:
        return self._parts.build(_decode_part(payload))


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole answer that the server would have sent instead of these parts.

    As `ChatHandler` and `GenerateHandler` do it (ollama, server/routes.go): the last part, with
    the text, the thinking, the tool calls and the probabilities of all.
    """
    whole = parts[-1]
    for place in ((), ("message",)):
        inside = [_at(part, place) for part in parts]
        for name in ("response", "content", "thinking"):
            texts = [fields[name] for fields in inside if isinstance(fields.get(name), str)]
            if texts and ("".join(texts) or name in inside[-1]):
                inside[-1][name] = "".join(texts)
        for name in ("tool_calls", "logprobs"):
            lists = [fields[name] for fields in inside if fields.get(name)]
            if lists:
                inside[-1][name] = [item for each in lists for item in each]
    return whole


def _at(part: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for name in place:
        part = part.get(name) or {}
    return part


def _cut(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of an answer that came in one piece.

    Thinking, text and tool calls come in parts of their own, in this order, and the last part has
    everything else and no text, as the parts of a real stream do. The probabilities go with the
    text that they belong to.
    """
    message = whole.get("message")
    holder = whole if message is None else message
    names = [
        name
        for name in ("thinking", "response", "content", "tool_calls")
        if holder.get(name) not in _EMPTY
    ]
    main = next((name for name in ("response", "content") if name in holder), None)
    probabilities = whole.pop("logprobs", None)
    common: dict[str, Any] = {
        name: value for name, value in whole.items() if name in ("model", "created_at")
    }
    for name in names:
        fields = {main: "", name: holder[name]} if main is not None else {name: holder[name]}
        part: dict[str, Any] = dict(common)
        if message is None:
            part.update(fields)
        else:
            part["message"] = {"role": message["role"], **fields}
        part["done"] = False
        if probabilities is not None and (name == main or main not in names):
            part["logprobs"] = probabilities
            probabilities = None
        yield part
        if name == main:
            holder[name] = ""
        else:
            del holder[name]
    if probabilities is not None:
        whole["logprobs"] = probabilities
    yield whole
