"""Requests that an HTTP library sends to an Ollama server: one entry with the official client's.

The key is that of `memoleo.patches._ollama_request`, with the digest of the model, and what is
stored is what every client can be answered from. A server that tells no digests is answered for
as any other: by URL, headers and body.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from memoleo import _switch
from memoleo._exchanges.answers import Sent
from memoleo._exchanges.exchanges import Exchange, Exchanges, Lane
from memoleo._exchanges.sending import Asking
from memoleo._flow.policy import Policy
from memoleo._flow.reader import Missed
from memoleo._flow.steps import Returned
from memoleo._flow.store import Job
from memoleo._platform.interrupts import pass_on
from memoleo.errors import CodecError
from memoleo.http_rules._bodies import is_lines, json_of
from memoleo.http_rules._judge import public
from memoleo.http_rules._key import secrets_of
from memoleo.http_rules._messages import Answer, Request
from memoleo.http_rules._presets import PRESETS
from memoleo.http_rules._rule import Rule
from memoleo.http_rules._urls import place_of
from memoleo.patches._ollama_models import REMOTE_TTL, Model, Unsure, models, tags
from memoleo.patches._ollama_parts import NAME, Stored, parts_of, tokens
from memoleo.patches._ollama_request import Question, read, split
from memoleo.patches._ollama_server import Server, server_at

__all__ = ["ollama_exchange"]


def ollama_exchange(
    exchanges: Exchanges, lane: Lane, rule: Rule, request: Request, key: bytes
) -> Exchange | None:
    """Return a request as a call that is to be answered; parameters as for `Exchange`."""
    body = json_of(request.body)
    place = place_of(request.url)
    paths = split(place.path)
    if paths is None or not isinstance(body, dict):
        return None
    # The server streams these two unless it is told not to.
    streamed = paths[1] in ("/api/chat", "/api/generate") and body.get("stream") is not False
    question = read(paths[1], body, streamed=streamed)
    if question is None:
        return None
    if _own_ideas(rule) or (question.inputs is not None and len(question.inputs) != 1):
        # Several texts have an entry each with the official client; here they have one.
        return Exchange(exchanges, lane, rule, request, key)
    scheme, _, host = place.origin.partition("://")
    user = f"{place.user}@" if place.user and rule.per_caller else ""
    address = f"{scheme}://{user}{host}{paths[0]}"
    server = server_at(address, request.headers if rule.per_caller else (), query=place.query)
    return _OllamaExchange(exchanges, lane, rule, request, key, question, server, address)


def _own_ideas(rule: Rule) -> bool:
    """Whether a rule says what counts otherwise than the preset does."""
    return (
        rule.body is not None
        or list(rule.ignore_body) != PRESETS["ollama"]["ignore_body"]
        or rule.headers is not None
        or bool(rule.parsed.uncounted or rule.parsed.params)
    )


class _NoListing(Exception):
    """A server answered, but not with its models."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class _OllamaExchange(Exchange):
    """One call."""

    def __init__(
        self,
        exchanges: Exchanges,
        lane: Lane,
        rule: Rule,
        request: Request,
        key: bytes,
        question: Question,
        server: Server,
        address: str,
    ) -> None:
        super().__init__(exchanges, lane, rule, request, key)
        self._plain_key = key
        self._question = question
        self._server = server
        self._address = address
        self._model: Model | Unsure | None = None
        self._codec = _WireCodec(question)
        # Its own words, so that the answers of the official client and these count together.
        own = rule.type == PRESETS["ollama"]["type"]
        self._type = question.verb.type if own else rule.type

    def again(self) -> Answer | None:
        """See `Exchange.again`."""
        lane = self._lane = self._exchanges.lane(self.rule)
        model = models.fresh(self._server, self._question.model)
        if model is None and models.silent(self._server):
            self._know(None)
            return super().again()
        if model is None or _switch.mode.get() is not _switch.Mode.SERVE:
            return None
        self._know(model)
        job = self._job(_nothing, False)
        fresh = lane.cache.calls.reader(job)
        found = None if fresh is None else fresh(self.key)
        return None if found is None or type(found) is Missed else found.answer

    def _before(self) -> Asking:
        model: Model | Unsure | None = models.find(
            self._server, self._question.model, self._lane.cache
        )
        observed = _switch.mode.get() is _switch.Mode.OBSERVE
        if model is Unsure.ASK or (model is Unsure.UNKNOWN and observed):
            model = yield from self._listing()
        if model is Unsure.UNKNOWN and self._told_nothing():
            model = Unsure.SILENT
        watched = _switch.mode.get() is _switch.Mode.OBSERVE
        if model is Unsure.UNKNOWN and (self.streamed or watched):
            # Whoever reads a stream asks nothing when it ends; whoever observes counts by keys.
            model = yield from self._listing()
        if model is Unsure.UNKNOWN and models.silent(self._server):
            model = Unsure.SILENT
        self._know(model)
        return Sent(None)

    def _know(self, model: Model | Unsure | None) -> None:
        self._model = model
        if isinstance(model, Model):
            self.key = self._question.key(self._server.here, model.digest)
        elif model is Unsure.UNKNOWN:
            # Nothing is stored; others who ask the same wait under this key.
            self.key = self._question.key(self._server.here, "")
        else:
            self.key = self._plain_key

    def _told_nothing(self) -> bool:
        """Whether an answer of this server is stored from a time when it told no digests."""
        self._know(None)
        return self._lane.cache.calls.store.load(self._job(_nothing, False)) is not None

    def _listing(self) -> Generator[str, Answer, Model | Unsure | None]:
        """Ask the server for its models, and return the model."""
        changes = models.changes(self._server)
        try:
            answer = yield f"{self._address}/api/tags"
            if answer.status != 200:
                raise _NoListing(answer.status)
            models.listed(self._server, answer.json(), changes)
        except Exception as error:
            pass_on(error)
            return models.failed(self._server, self._question.model, error)
        return models.find(self._server, self._question.model, self._lane.cache)

    def _asking(self) -> Asking:
        started = time.perf_counter()
        sent = yield from super()._asking()
        took = (time.perf_counter() - started) * 1000
        if self._model is Unsure.UNKNOWN and self._worth_keeping(sent):
            model = yield from self._listing()
            silent = model is Unsure.UNKNOWN and models.silent(self._server)
            self._know(Unsure.SILENT if silent else model)
            if not isinstance(self._model, Model) and self._model is not Unsure.UNKNOWN:
                job = super()._job(_nothing, False)
                self._lane.cache.calls.keep(job, Returned(sent, took), self.began)
        return sent

    def _worth_keeping(self, sent: Sent) -> bool:
        policy = self._lane.policy
        return sent.answer is not None and policy.cache_if is not None and policy.cache_if(sent)

    def keep(self, answer: Answer, ms: float) -> None:
        """See `Exchange.keep`."""
        if self._model is not Unsure.UNKNOWN:
            super().keep(answer, ms)

    def _job(self, compute: Callable[[], Any], streamed: bool) -> Job:
        job = super()._job(compute, streamed)
        model = self._model
        if model is None or model is Unsure.SILENT:
            return job
        calls = self._lane.cache.calls
        policy = job.policy
        ttl = policy.ttl
        if isinstance(model, Model) and model.remote:
            ttl = min(calls.ttl_for(self._type) if ttl is None else ttl, REMOTE_TTL)
        own: Policy = msgspec.structs.replace(
            policy, type=self._type, ttl=ttl, label=self._question.model, tokens=_tokens
        )
        return calls.job(
            self.key,
            own,
            compute,
            tags=self._tags,
            codec=self._codec,
            place=job.place or (self._place if model is Unsure.UNKNOWN else None),
            describe=job.describe,
        )

    def _place(self) -> bytes | None:
        """Return where an answer is stored whose model has come to light with it."""
        return self.key if isinstance(self._model, Model) else None

    def _tags(self, _: Any) -> tuple[str, ...]:
        model = self._model
        digest = model.digest if isinstance(model, Model) else ""
        return tags(self._server, self._question.model, digest)


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    """A response as it came.

    Parameters
    ----------
    asked
        the name that its request has for the model
    streamed
        whether that asked for a stream
    answer
        the response, with an empty body if the parts come to the same bytes
    """

    asked: str
    streamed: bool
    answer: Answer


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


class _WireCodec:
    """Encodes the answer of a `Sent` as every client of Ollama is answered from.

    Who asks for it in the same way gets the very response. For others, and where another client
    stored the answer, one is made, with the headers that say what it is.
    """

    name = NAME

    def __init__(self, question: Question) -> None:
        self._question = question

    def encode(self, value: Sent) -> bytes:
        """See `Codec.encode`."""
        if value.answer is None or value.request is None:
            raise CodecError("an answer that was not read")
        question, body = self._question, bytes(value.answer.body)
        parts = parts_of(body)
        streamed = len(parts) > 1 or is_lines(value.answer.header("content-type"))
        stored = Stored(parts, streamed=streamed, asked=question.asked)
        payload = stored.pack()
        answer = msgspec.structs.replace(public(value.answer), fresh_until=None)
        if Stored.unpack(payload, question.asked).body(streamed=question.streamed) == body:
            answer = msgspec.structs.replace(answer, body=b"")
        stored.wire = _encode(_Wire(question.asked, question.streamed, answer))
        if any(each in body or each in stored.wire for each in secrets_of(value.request)):
            raise CodecError("an answer that repeats a credential")
        return stored.pack()

    def decode(self, payload: bytes) -> Sent:
        """See `Codec.decode`."""
        stored = Stored.unpack(payload, self._question.asked)
        if stored.kept_by:
            raise CodecError("an answer of which a client kept a part")
        streamed = self._question.streamed
        wire = self._wire(stored)
        if wire is not None and wire.body:
            return Sent(wire)
        body = stored.body(streamed=streamed)
        if wire is not None:
            return Sent(msgspec.structs.replace(wire, body=body))
        if streamed:
            headers = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]
        else:
            headers = [
                ("Content-Type", "application/json; charset=utf-8"),
                ("Content-Length", str(len(body))),
            ]
        return Sent(Answer(200, "OK", headers=headers, body=body))

    def _wire(self, stored: Stored) -> Answer | None:
        if not stored.wire:
            return None
        try:
            wire = _decode(stored.wire)
        except msgspec.MsgspecError as error:
            raise CodecError(f"not a response: {error}") from None
        same = (wire.asked, wire.streamed) == (self._question.asked, self._question.streamed)
        return wire.answer if same else None


def _tokens(sent: Sent) -> Any:
    return 0 if sent.answer is None else tokens(parts_of(bytes(sent.answer.body))[-1])


def _nothing() -> None:
    return None
