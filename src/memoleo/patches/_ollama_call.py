"""A call of a client as it came in: what it asks, whom, and under which key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import partial
from typing import Any

from memoleo import _switch
from memoleo._cache.cache import Cache
from memoleo._flow.policy import Policy
from memoleo._flow.store import Job
from memoleo._streams.unseen import unseen
from memoleo.keys._portrait import Description
from memoleo.patches._ollama_codec import AnswerCodec, PartsCodec, complete, tokens
from memoleo.patches._ollama_described import describe, essence
from memoleo.patches._ollama_models import REMOTE_TTL, TIMEOUT, Model, Unsure, models, tags
from memoleo.patches._ollama_request import Question
from memoleo.patches._ollama_rules import Rules
from memoleo.patches._ollama_sending import Request
from memoleo.patches._ollama_server import Server

__all__ = ["UNSEEDED", "Call"]

UNSEEDED = "ollama:unseeded"
"""The tag of answers that would be others next time."""

_LISTING = ("GET", "/api/tags")


class Call:
    """One call of a client.

    Parameters
    ----------
    request
        the call as it came in
    question, server
        what is asked, and whom
    cache
        where answers are kept
    rules
        how they are kept, and how requests get to the server
    """

    __slots__ = (
        "answered", "cache", "decision", "learned", "question", "request", "rules", "server",
    )  # fmt: skip

    def __init__(
        self, request: Request, question: Question, server: Server, cache: Cache, rules: Rules
    ) -> None:
        self.request = request
        self.question = question
        self.server = server
        self.cache = cache
        self.rules = rules
        self.decision = rules.policies.decide(question.verb.path, request.kwargs["json"])
        self.answered: Any = None
        self.learned: Model | None = None

    @property
    def answer(self) -> Any:
        """The class of the answer, or of the parts of a streamed one."""
        return self.request.args[0]

    @property
    def failed(self) -> bool:
        """Whether it is the server's answer that failed."""
        return self.request.failed

    def complete(self, answer: Any) -> bool:
        """Whether an answer, or the last part of one, lacks nothing."""
        return complete(answer, limited=self.question.limited)

    def key(self, model: Model, inputs: Sequence[str] | None = None) -> bytes:
        """Return the key of the answer; `inputs` are texts to embed instead of the call's."""
        return self.question.key(self.place(model), model.digest, inputs)

    def place(self, model: Model) -> bytes:
        """Return who answers, as far as it counts."""
        server = self.server
        return server.anywhere if self.rules.share and model.digest else server.here

    def job(
        self,
        model: Model,
        compute: Callable[[], Any],
        key: bytes,
        place: Callable[[], bytes | None] | None = None,
        codec: Any = None,
        inputs: Sequence[str] | None = None,
    ) -> Job:
        """Return what the cache is asked; see `Job`."""
        question, calls, decision = self.question, self.cache.calls, self.decision
        ttl = decision.ttl
        if model.remote:
            ttl = min(calls.ttl_for(decision.type) if ttl is None else ttl, REMOTE_TTL)
        policy = Policy(
            type=decision.type,
            ttl=ttl,
            stale_if_error=decision.stale_if_error,
            variants=decision.variants,
            cache_if=self.complete,
            label=question.model,
            tokens=tokens,
            provider="ollama",
            operation=question.verb.operation,
            essence=essence,
        )
        if codec is None:
            kind = PartsCodec if question.streamed else AnswerCodec
            codec = kind(self.answer, question.asked, self.request.sent_for)
        return calls.job(
            key,
            policy,
            compute,
            tags=partial(self._tags, model),
            streamed=question.streamed,
            codec=codec,
            place=place,
            describe=partial(self._described, model, inputs),
        )

    def _described(self, model: Model, inputs: Sequence[str] | None) -> Description:
        known = model if self.learned is None else self.learned
        place = self.place(known)
        return describe(self.question, place, known.digest, self.request.kwargs["json"], inputs)

    def _tags(self, model: Model, answer: Any) -> tuple[str, ...]:
        known = model if self.learned is None else self.learned
        found = tags(self.server, self.question.model, known.digest)
        if not self.decision.sampled:
            return found
        tally = self.cache.calls.tally.of(self.decision.type, self.question.model)
        tally.local.cell.unseeded += 1
        return (*found, UNSEEDED)

    # The model.

    def model(self) -> Model | Unsure | None:
        """Return the model, as far as it is known without asking."""
        return models.find(self.server, self.question.model, self.cache)

    def lists_first(self, model: Model | Unsure | None) -> bool:
        """Whether the server is asked for its models before it is asked the question."""
        # The first of several answers has its place only under the key, and what is observed has
        # no other.
        needs_key = self.decision.variants > 1 or _switch.mode.get() is _switch.Mode.OBSERVE
        return model is Unsure.ASK or (model is Unsure.UNKNOWN and needs_key)

    def listing(self) -> Model | Unsure | None:
        """Ask the server for its models, and return the model."""
        changes = models.changes(self.server)
        try:
            models.listed(
                self.server,
                self._list(),
                changes,
            )
        except Exception as error:
            return models.failed(self.server, self.question.model, error)
        return self.model()

    async def alisting(self) -> Model | Unsure | None:
        """Do what `listing` does."""
        changes = models.changes(self.server)
        try:
            models.listed(
                self.server,
                await self._list(),
                changes,
            )
        except Exception as error:
            return models.failed(self.server, self.question.model, error)
        return self.model()

    def _list(self) -> Any:
        request = self.request
        return request.original(request.client, dict, *_LISTING, timeout=TIMEOUT)

    def learn(self, model: Model | Unsure | None) -> None:
        """Remember what the model turned out to be."""
        if isinstance(model, Model):
            self.learned = model

    # The server.

    def run(self, kwargs: Any = None) -> Any:
        """Make the call, or the same one with other keywords."""
        request = self.request
        answer = self.rules.sending.send(request, request.kwargs if kwargs is None else kwargs)
        if kwargs is None:
            self.answered = answer
        return answer

    async def arun(self, kwargs: Any = None) -> Any:
        """Do what `run` does."""
        request = self.request
        own = request.kwargs if kwargs is None else kwargs
        answer = await self.rules.sending.asend(request, own)
        if kwargs is None:
            self.answered = answer
        return answer

    def parts(self, *, learn: bool = False) -> Generator[Any, None, None]:
        """Make the call, and yield the parts of its answer.

        With `learn` the model is learned before the last part is handed on: a consumer that
        leaves with it never comes back.
        """
        source = self.rules.sending.stream(self.request, self.request.kwargs)
        try:
            for part in source:
                if learn and self.complete(part):
                    self.learn(self.listing())
                yield part
        finally:
            source.close()

    def aparts(self, *, learn: bool = False) -> AsyncGenerator[Any, None]:
        """Do what `parts` does."""
        return unseen(self._aparts(learn))

    async def _aparts(self, learn: bool) -> AsyncGenerator[Any, None]:
        source = unseen(self.rules.sending.astream(self.request, self.request.kwargs))
        try:
            async for part in source:
                if learn and self.complete(part):
                    self.learn(await self.alisting())
                yield part
        finally:
            await source.aclose()
