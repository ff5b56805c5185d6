"""What of a request to an Ollama server is content, and what is not.

Everything in the body counts but for two fields (`LEFT_OUT`): a list of what matters would
forget what the next server adds. The body counts as it goes over the wire, so a tuple is a
list. The order of items counts inside schemas, tools and messages, since templates write them
out in their order; it doesn't in `options` and in the body itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from memoleo.keys._canonical import frame

__all__ = ["APART", "LEFT_OUT", "VERBS", "Question", "Verb", "content_of", "full_name", "read"]

LEFT_OUT = frozenset({"keep_alive", "stream"})
"""The fields of a body that have no effect on the answer."""

APART = LEFT_OUT | {"model", "options"}
"""The fields that are not written with the rest: those, and two that stand by themselves."""

_DOMAIN = b"memoleo:ollama:1"
_EXACT = 2**53
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Verb(msgspec.Struct, frozen=True):
    """A path of the API whose answers depend on nothing but the request and the model.

    Parameters
    ----------
    path
        as the client spells it
    type
        the category of its answers
    asks
        whether a body asks for anything; without, the server only loads or unloads the model
    """

    path: str
    type: str
    asks: Callable[[dict[str, Any]], Any]


def _asking(field: str) -> Callable[[dict[str, Any]], Any]:
    return lambda body: body.get(field)


VERBS = {
    verb.path: verb
    for verb in (
        Verb("/api/chat", "ollama.chat", _asking("messages")),
        Verb("/api/generate", "ollama.generate", _asking("prompt")),
        Verb("/api/embed", "ollama.embed", _asking("input")),
        Verb("/api/embeddings", "ollama.embed", _asking("prompt")),
    )
}


class Question(msgspec.Struct, frozen=True, gc=False):
    """One request whose answer can be kept.

    Parameters
    ----------
    verb
        what is asked for
    answer
        the class of the answer, or of the parts of a streamed one
    asked
        the model's name as the caller spelled it
    model
        its full name
    streamed
        whether the answer comes in parts
    content
        everything of the body that has an effect, as bytes; without `inputs`
    inputs
        the texts of a batch, of which each has an answer of its own; `None` if it is none
    """

    verb: Verb
    answer: type
    asked: str
    model: str
    streamed: bool
    content: bytes
    inputs: tuple[str, ...] | None = None

    def prefix(self, server: bytes, digest: str) -> bytes:
        """Return what the keys of all such questions begin with.

        Parameters
        ----------
        server
            who answers, see `memoleo.patches._ollama_server`
        digest
            of the model's content
        """
        place = (server, digest, self.verb.path, self.model, _shape(self.answer))
        return _DOMAIN + frame(_encode(place))

    def key(self, server: bytes, digest: str, inputs: Sequence[str] | None = None) -> bytes:
        """Return the 32 bytes that its answer is stored under.

        Parameters
        ----------
        server, digest
            as for `prefix`
        inputs
            other texts than those of the question
        """
        content = self.content
        if self.inputs is not None:
            content = frame(content) + _encode(self.inputs if inputs is None else inputs)
        return sha256(self.prefix(server, digest) + content).digest()


def full_name(model: str) -> str:
    """Return a model's name with its tag, as the server lists it."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Question | None:
    """Return what a call of the client's ``_request`` asks; `None` for what isn't cached.

    Parameters
    ----------
    args, kwargs
        as the call has them, without the client itself
    """
    if len(args) != 3 or args[1] != "POST":
        return None
    verb = VERBS.get(args[2])
    if verb is None or not kwargs.keys() <= {"json", "stream"}:
        return None
    body = kwargs.get("json")
    if type(body) is not dict or not verb.asks(body):
        return None
    asked = body.get("model")
    answer = args[0]
    if type(asked) is not str or not asked or not hasattr(answer, "__pydantic_validator__"):
        return None
    inputs = _inputs(body) if verb.path == "/api/embed" else None
    content = content_of(body, APART if inputs is None else APART | {"input"})
    if content is None:
        return None
    streamed = bool(kwargs.get("stream", False))
    return Question(verb, answer, asked, full_name(asked), streamed, content, inputs)


def _inputs(body: dict[str, Any]) -> tuple[str, ...] | None:
    found = body["input"]
    if type(found) is str:
        return (found,)
    if isinstance(found, (list, tuple)) and {*map(type, found)} == {str}:
        return tuple(found)
    return None


def content_of(body: dict[str, Any], apart: frozenset[str] = APART) -> bytes | None:
    """Return the bytes of a body, equal for those that mean the same; `None` if it can't be sent.

    Parameters
    ----------
    body
        what is sent
    apart
        the fields that are not written with the rest
    """
    parts = _parts(body, apart)
    try:
        block = _encode(parts)
        # The encoder knows more types than a request can have, and writes them as others. What
        # reads back equal is plain data.
        if _decode(block) == parts:
            return block
    except (msgspec.MsgspecError, OverflowError, TypeError, ValueError, RecursionError):
        pass
    try:
        parts = _parts(json.loads(json.dumps(body, allow_nan=False)), apart)
        return _encode(parts)
    except (OverflowError, UnicodeEncodeError):
        return json.dumps(parts).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _parts(body: dict[str, Any], apart: frozenset[str]) -> list[Any]:
    options = body.get("options")
    if type(options) is dict:
        # The server reads all numbers of `options` as float64: 0 and 0.0 are the same.
        options = [
            [
                name,
                int(value)
                if type(value) is float and value.is_integer() and abs(value) < _EXACT
                else value,
            ]
            for name, value in sorted(options.items())
        ]
    return [options, [[name, body[name]] for name in sorted(body) if name not in apart]]


@lru_cache(maxsize=64)
def _shape(answer: type) -> str:
    """Return the names of all that an answer can hold.

    The client drops what it doesn't know. An answer that an older client stored must not be
    served to a newer one, which would have got more.
    """
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
    return " ".join(names)
