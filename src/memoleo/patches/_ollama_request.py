"""What of a request to an Ollama server is content, and what is not.

Everything in the body counts but for two fields (`LEFT_OUT`): a list of what matters would
forget what the next server adds. The body counts as it goes over the wire, so a tuple is a
list. The order of items counts inside schemas and tools, since templates write them out in their
order; it doesn't in `options`, in a message, and in the body itself. A field without a value is
none, and neither is an empty list of tools.

Nothing here knows a client library. A request that some HTTP library is about to send has the key
that the official client's would have::

    base, path = split("/api/chat")                     # of the URL's path
    question = read(path, body, streamed=body.get("stream", True))
    server = server_at("http://localhost:11434" + base, headers)
    model = models.find(server, question.model, cache)  # its digest, if it is known
    key = question.key(server.here, model.digest)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from memoleo.keys._canonical import frame

__all__ = [
    "APART",
    "EMBED",
    "LEFT_OUT",
    "VERBS",
    "Question",
    "Verb",
    "content_of",
    "full_name",
    "read",
    "split",
]

LEFT_OUT = frozenset({"keep_alive", "stream"})
"""The fields of a body that have no effect on the answer."""

APART = LEFT_OUT | {"model", "options"}
"""The fields that are not written with the rest: those, and two that stand by themselves."""

_DOMAIN = b"memoleo:ollama:1"
_EXACT = 2**53
EMBED = "/api/embed"
"""The path of batches of texts, of which each has an answer of its own."""

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
    operation
        what OpenTelemetry's conventions for generative AI call it
    """

    path: str
    type: str
    asks: Callable[[dict[str, Any]], Any]
    operation: str


def _asking(field: str) -> Callable[[dict[str, Any]], Any]:
    return lambda body: body.get(field)


VERBS = {
    verb.path: verb
    for verb in (
        Verb("/api/chat", "ollama.chat", _asking("messages"), "chat"),
        Verb("/api/generate", "ollama.generate", _asking("prompt"), "text_completion"),
        Verb(EMBED, "ollama.embed", _asking("input"), "embeddings"),
        Verb("/api/embeddings", "ollama.embed", _asking("prompt"), "embeddings"),
        Verb("/v1/systemone", "ollama.systemone", _asking("questions"), "systemone"),
    )
}


class Question(msgspec.Struct, frozen=True, gc=False):
    """One request whose answer can be kept.

    Parameters
    ----------
    verb
        what is asked for
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
    limited
        whether it says how long the answer may become
    """

    verb: Verb
    asked: str
    model: str
    streamed: bool
    content: bytes
    inputs: tuple[str, ...] | None = None
    limited: bool = False

    def prefix(self, server: bytes, digest: str) -> bytes:
        """Return what the keys of all such questions begin with.

        Parameters
        ----------
        server
            who answers, see `memoleo.patches._ollama_server.Server`
        digest
            of the model's content
        """
        place = (server, digest, self.verb.path, self.model)
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


def read(path: str, body: Any, *, streamed: bool = False) -> Question | None:
    """Return what a POST request asks; `None` for what isn't cached.

    Parameters
    ----------
    path
        of the URL, as far as it belongs to the API: see `split`
    body
        the JSON that is sent, as Python data
    streamed
        whether the caller takes the answer in parts. A server sends it in parts unless `stream`
        in the body is false; the official client asks its caller
    """
    verb = VERBS.get(path)
    if verb is None or type(body) is not dict or not verb.asks(body):
        return None
    asked = body.get("model")
    if type(asked) is not str or not asked:
        return None
    inputs = _inputs(body) if path == EMBED else None
    content = content_of(body, APART if inputs is None else APART | {"input"})
    if content is None:
        return None
    return Question(verb, asked, full_name(asked), streamed, content, inputs, _limits(body))


def _limits(body: dict[str, Any]) -> bool:
    options = body.get("options")
    most = options.get("num_predict") if isinstance(options, dict) else None
    # The server takes a negative number for no limit.
    return isinstance(most, (int, float)) and most > 0


def split(path: str) -> tuple[str, str] | None:
    """Return the part of a URL's path that belongs to the server, and that of the API.

    `None` if it is none of the paths that `read` knows.
    """
    for known in VERBS:
        if path.endswith(known):
            return path[: -len(known)], known
    return None


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
    return [
        options,
        [
            [name, _field(name, body[name])]
            for name in sorted(body)
            if name not in apart and body[name] is not None and _says(name, body[name])
        ],
    ]


def _says(name: str, value: Any) -> bool:
    """Whether a field says anything: the official client always sends a list of tools."""
    return not (name == "tools" and value == [])


def _field(name: str, value: Any) -> Any:
    # The server reads messages into records of its own, so the order of their fields is lost.
    if name == "messages" and type(value) is list:
        return [sorted(each.items()) if type(each) is dict else each for each in value]
    return value
