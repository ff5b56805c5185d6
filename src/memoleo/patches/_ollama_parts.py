"""Answers of an Ollama server as plain data: the parts that went over the wire.

Nothing here knows a client library. What is stored is a `Stored`: the JSON objects of an answer
with all their fields, those that a client would drop included. From it every client can be
answered: the official one builds its classes from `whole` or `pieces`, and an HTTP library gets
the `body` of a response::

    stored = Stored(parts_of(response_body), streamed=True, asked="llama3.2")
    if complete(stored.parts[-1], limited=question.limited):
        payload = stored.pack()                  # into the cache
    Stored.unpack(payload, "llama3.2").body(streamed=True)   # and out of it, for any caller

An unstreamed answer is stored as a single part. One entry serves both kinds of call: the parts of
a stream are joined the way the server joins them, and an answer in one piece is cut into the parts
that a hasty server would send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from memoleo.codecs._auto import AutoCodec
from memoleo.errors import CodecError

__all__ = [
    "NAME",
    "Part",
    "Stored",
    "auto",
    "complete",
    "cut",
    "ends",
    "join_batch",
    "joined",
    "parts_of",
    "split_batch",
    "tokens",
]

NAME = "ollama"
"""The name of the codec of such entries, see `Codec.name`."""

_FORMAT = 2
_END = ("stop", "length")
_EMPTY: tuple[Any, ...] = ("", None, [], ())
_SUMS = ("total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration",
         "prompt_eval_duration")  # fmt: skip

auto = AutoCodec()

Part = dict[str, Any]


def complete(part: Part, *, limited: bool) -> bool:
    """Whether an answer, or the last part of one, says that nothing of it is missing.

    Embeddings and judgements come whole or not at all. Everything else says `done`, and why: a
    reason other than "stop" or "length" is no answer ("load", "unload"), or one that a later
    server broke off. Older servers, and many that only speak like Ollama, are done without
    giving a reason. An `error` is no answer, whatever stands beside it.

    Parameters
    ----------
    part
        what the server sent last
    limited
        whether the request limits the length of its answer, see `Question`: an answer that is
        cut off without that has met the end of the context, and lacks what didn't fit
    """
    if part.get("error"):
        return False
    for name in ("embeddings", "embedding", "answers"):
        if name in part:
            return bool(part[name])
    return ends(part) and (limited or part.get("done_reason") != "length")


def ends(part: Part) -> bool:
    """Whether a part of a stream says that it is the last one, and that all went well."""
    return part.get("done") is True and part.get("done_reason", _END[0]) in _END


def tokens(part: Part) -> tuple[int, int]:
    """Return how many tokens were read and written for an answer, by its last part."""
    usage = part.get("usage")
    if usage is not None:
        counts = (usage.get("input_tokens"), usage.get("output_tokens"))
    else:
        counts = (part.get("prompt_eval_count"), part.get("eval_count"))
    read, written = (count if type(count) is int else 0 for count in counts)
    return read, written


def parts_of(body: bytes) -> list[Part]:
    """Return the parts of a response's body: one JSON object, or one a line.

    Raises
    ------
    CodecError
        it is something else
    """
    try:
        parts = [json.loads(line) for line in body.split(b"\n") if line.strip()]
    except ValueError:
        try:
            parts = [json.loads(body)]
        except ValueError as error:
            raise CodecError(f"not what an Ollama server answers: {error}") from None
    if not parts or not all(type(part) is dict for part in parts):
        raise CodecError("not what an Ollama server answers: no JSON objects")
    return parts


class Stored:
    """The parts of one answer.

    Parameters
    ----------
    parts
        the objects that the server sent, in their order
    streamed
        whether they came as a stream
    asked
        the model's name as the caller spells it: the server repeats it, so it is filled in anew
        for each caller
    kept_by
        empty if the parts are all that went over the wire. Otherwise they are what classes of a
        client kept of it, and this names what those classes know: other fields are missing
    wire
        the very response, for whoever asks as it was asked for first; empty if nobody has it
    """

    __slots__ = ("asked", "kept_by", "parts", "streamed", "wire")

    def __init__(
        self,
        parts: list[Part],
        *,
        streamed: bool,
        asked: str,
        kept_by: str = "",
        wire: bytes = b"",
    ) -> None:
        self.parts = parts
        self.streamed = streamed
        self.asked = asked
        self.kept_by = kept_by
        self.wire = wire

    def pack(self) -> bytes:
        """Return the payload of an entry.

        Raises
        ------
        CodecError
            a part is no plain data, or says something of its model that can't be told apart
        """
        parts = [self._nameless(part) for part in self.parts]
        fields = [_FORMAT, self.streamed, self.kept_by, parts]
        return auto.encode([*fields, self.wire] if self.wire else fields)

    @classmethod
    def unpack(cls, payload: bytes, asked: str) -> Stored:
        """Return what `pack` was called on, for a caller who spells the model as `asked`.

        Raises
        ------
        CodecError
            it is something else
        """
        stored = auto.decode(payload)
        if type(stored) is not list or len(stored) not in (4, 5) or stored[0] != _FORMAT:
            raise CodecError("not an answer, or one that another version stored")
        parts = stored[3]
        for part in parts:
            if part.get("model", "") is None:
                part["model"] = asked
        wire = stored[4] if len(stored) == 5 else b""
        return cls(parts, streamed=stored[1], asked=asked, kept_by=stored[2], wire=wire)

    def _nameless(self, part: Part) -> Part:
        name = part.get("model", "")
        if name is None:
            raise CodecError("an answer that doesn't name its model")
        return {**part, "model": None} if name == self.asked else part

    def whole(self) -> Part:
        """Return the answer in one piece."""
        return joined(self.parts) if self.streamed else self.parts[0]

    def pieces(self) -> list[Part]:
        """Return the answer as the parts of a stream."""
        return self.parts if self.streamed else list(cut(self.parts[0]))

    def body(self, *, streamed: bool) -> bytes:
        """Return the body of a response: JSON, or newline-delimited JSON for a stream."""
        if not streamed:
            return _json(self.whole())
        return b"".join(_json(part) + b"\n" for part in self.pieces())


def _json(part: Part) -> bytes:
    return json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogatepass"
    )


def joined(parts: list[Part]) -> Part:
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


def _at(part: Part, place: tuple[str, ...]) -> Part:
    for name in place:
        part = part.get(name) or {}
    return part


def cut(whole: Part) -> Iterator[Part]:
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
    common: Part = {name: value for name, value in whole.items() if name in ("model", "created_at")}
    for name in names:
        fields = {main: "", name: holder[name]} if main is not None else {name: holder[name]}
        part: Part = dict(common)
        if message is None:
            part.update(fields)
        else:
            role = {"role": message["role"]} if "role" in message else {}
            part["message"] = {**role, **fields}
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


def split_batch(answer: Part, texts: Sequence[str]) -> list[Part] | None:
    """Return the answer for each text of a batch; `None` if there isn't one vector for each.

    The server counts and times a whole batch. What it says is shared out among the texts so that
    the shares add up again: the same batch, asked again, has the same counts.

    Parameters
    ----------
    answer
        the server's
    texts
        what it was asked for
    """
    vectors = answer.get("embeddings")
    if not isinstance(vectors, (list, tuple)) or len(vectors) != len(texts):
        return None
    shares = {name: _shares(answer[name], texts) for name in _SUMS if type(answer.get(name)) is int}
    return [
        {
            **answer,
            "embeddings": [vector],
            **{name: share[place] for name, share in shares.items()},
        }
        for place, vector in enumerate(vectors)
    ]


def join_batch(answers: Iterable[Part]) -> Part:
    """Return one answer made of those for single texts, in their order."""
    rows = list(answers)
    whole = dict(rows[0])
    whole["embeddings"] = [vector for row in rows for vector in row["embeddings"]]
    for name in _SUMS:
        numbers = [row[name] for row in rows if type(row.get(name)) is int]
        if numbers:
            whole[name] = sum(numbers)
    return whole


def _shares(number: int, texts: Sequence[str]) -> list[int]:
    """Return a part of `number` for each text, by its length; the parts add up to it."""
    places = list(accumulate(len(text) + 1 for text in texts))
    marks = [number * place // places[-1] for place in places]
    return [mark - before for mark, before in zip(marks, [0, *marks], strict=False)]
