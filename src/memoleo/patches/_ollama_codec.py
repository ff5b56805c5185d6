"""Answers of the official client's classes to bytes and back.

What is stored is what went over the wire, see `memoleo.patches._ollama_parts`: the classes drop
fields that they don't know, and another version of the client, or another library, does know them.
Where that can't be had, because somebody else's patch stands in between or has changed the answer,
the fields that the classes kept are stored instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any

from memoleo._streams.stream import Recorded
from memoleo.codecs._readers import show_with
from memoleo.errors import CodecError
from memoleo.patches import _ollama_parts as wire
from memoleo.patches._ollama_parts import NAME, Part, Stored, auto

__all__ = ["AnswerCodec", "FieldsCodec", "PartsCodec", "complete", "tokens"]

Noted = Callable[[Any], "Part | None"]
"""Returns what the server sent for an answer that a class was just made from; `None` if unknown."""


def complete(answer: Any, *, limited: bool) -> bool:
    """Whether an answer, or the last part of one, says that nothing of it is missing."""
    return wire.complete(_fields(answer), limited=limited)


def tokens(answer: Any) -> tuple[int, int]:
    """Return how many tokens were read and written for an answer."""
    return wire.tokens(_fields(answer))


def _fields(answer: Any) -> Part:
    """Return the fields of an answer, or of the last part of a recorded stream."""
    if type(answer) is tuple:
        return _opened(answer[0][-1])[1] if answer[0] else {}
    if type(answer) is Stored:
        return answer.parts[-1]
    fields: Part = getattr(answer, "__dict__", {})
    return fields


def _opened(part: bytes) -> tuple[str, Part]:
    kept_by, fields = auto.decode(part)
    return kept_by, fields


class _Classes:
    """What the codecs of both kinds of call share.

    Parameters
    ----------
    answer
        the class of the answer
    asked
        the model's name as this caller spells it
    noted
        knows what the server sent
    """

    __slots__ = ("_make", "_noted", "answer", "asked")

    name = NAME

    def __init__(self, answer: Any, asked: str, noted: Noted) -> None:
        self.answer: Any = answer
        self.asked = asked
        self._noted = noted
        # What calling the class does, without a frame of Python and a second dict.
        self._make = answer.__pydantic_validator__.validate_python

    def dump(self, answer: Any) -> tuple[str, Part]:
        """Return the data of an answer, and before it `Stored.kept_by`.

        Raises
        ------
        CodecError
            it can't be made again from its data: it was changed, or is of another class
        """
        name = self.answer.__qualname__
        if type(answer) is not self.answer:
            raise CodecError(f"expected {name}, got {type(answer).__qualname__}")
        try:
            kept = _kept(answer)
            sent = self._noted(answer)
            if sent is not None and self._makes(sent, answer, kept):
                return "", sent
            if self._makes(kept, answer, kept):
                return self._shape(), kept
        except Exception as error:
            raise CodecError(f"{name} can't be made from its data: {error!r}") from error
        raise CodecError(f"{name} is not what its data make")

    def _shape(self) -> str:
        return _shape(self.answer)

    def _makes(self, fields: Part, answer: Any, kept: Part) -> bool:
        again = self._make(copy.deepcopy(fields))
        return bool(again == answer and _kept(again) == kept and repr(again) == repr(answer))


def unpack(payload: bytes, asked: str, answer: type) -> Stored:
    """Return what is stored, for a caller of a class.

    Raises
    ------
    CodecError
        it is no answer, or one of which the class may know more than is there
    """
    stored = Stored.unpack(payload, asked)
    if stored.kept_by and stored.kept_by != _shape(answer):
        raise CodecError("an answer of which another version of the client kept a part")
    return stored


def _kept(answer: Any) -> Part:
    """Return the fields that were set in an answer, as data to make it from."""
    fields: Part = answer.model_dump(exclude_unset=True, by_alias=True, warnings=False)
    return fields


@lru_cache(maxsize=64)
def _shape(answer: Any) -> str:
    """Return a digest of the names of all that an answer can hold."""
    seen: set[type] = set()
    names: list[str] = []

    def visit(kind: Any) -> None:
        for part in getattr(kind, "__args__", ()):
            visit(part)
        fields = getattr(kind, "model_fields", None)
        if isinstance(kind, type) and isinstance(fields, dict) and kind not in seen:
            seen.add(kind)
            names.append(kind.__qualname__)
            for name in sorted(fields):
                names.append(name)
                visit(fields[name].annotation)

    visit(answer)
    return sha256(" ".join(names).encode()).hexdigest()[:16]


class AnswerCodec(_Classes):
    """Encodes an answer that came in one piece."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        return self.stored(value).pack()

    def stored(self, value: Any) -> Stored:
        """Return what is stored of an answer; raises what `dump` raises."""
        kept_by, fields = self.dump(value)
        return Stored([fields], streamed=False, asked=self.asked, kept_by=kept_by)

    def decode(self, payload: bytes) -> Any:
        """See `Codec.decode`."""
        return self._make(unpack(payload, self.asked, self.answer).whole())


class PartsCodec(_Classes):
    """Encodes an answer that came in parts; see `StreamCodec`."""

    __slots__ = ()

    @property
    def item(self) -> _PartCodec:
        """The codec of a single part."""
        return _PartCodec(self)

    def ends(self, part: Any) -> bool:
        """Whether a part says that it is the last one."""
        return wire.ends(_fields(part))

    def encode(self, value: tuple[list[bytes], bytes]) -> bytes:
        """Return the payload of parts that are encoded already."""
        parts = [_opened(part) for part in value[0]]
        return Stored(
            [fields for _, fields in parts],
            streamed=True,
            asked=self.asked,
            kept_by=max(kept_by for kept_by, _ in parts),
        ).pack()

    def decode(self, payload: bytes) -> Recorded:
        """Return the parts, made anew."""
        return Recorded([*map(self._make, unpack(payload, self.asked, self.answer).pieces())])


class _PartCodec:
    name = f"{NAME}-part"

    def __init__(self, parts: PartsCodec) -> None:
        self._parts = parts

    def encode(self, value: Any) -> bytes:
        if value is None:  # what the stream returned, which is nothing
            return b""
        return auto.encode(list(self._parts.dump(value)))

    def decode(self, payload: bytes) -> Any:
        return self._parts._make(_opened(payload)[1])


class FieldsCodec:
    """Encodes `Stored` as it is; parameters as for `AnswerCodec`."""

    __slots__ = ("answer", "asked")

    name = NAME

    def __init__(self, answer: Any, asked: str) -> None:
        self.answer = answer
        self.asked = asked

    def encode(self, value: Stored) -> bytes:
        """See `Codec.encode`."""
        return value.pack()

    def decode(self, payload: bytes) -> Stored:
        """See `Codec.decode`."""
        return unpack(payload, self.asked, self.answer)


def _shown(payload: bytes) -> dict[str, Any]:
    """Return an answer as people may read it, without the name that each caller gives."""
    whole: dict[str, Any] = Stored.unpack(payload, "").whole()
    return {name: value for name, value in whole.items() if name != "model" or value}


show_with(NAME, _shown)
