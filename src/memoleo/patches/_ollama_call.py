"""A call of a client as it came in: what it asks, whom, and under which key."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from memoleo._cache import Cache
from memoleo._policy import Policy
from memoleo._store import Job
from memoleo.keys._portrait import Description
from memoleo.patches._ollama_codec import AnswerCodec, PartsCodec, complete, tokens
from memoleo.patches._ollama_described import describe
from memoleo.patches._ollama_models import REMOTE_TTL, TIMEOUT, Model, Unsure, models, tags
from memoleo.patches._ollama_parts import Part
from memoleo.patches._ollama_request import Question
from memoleo.patches._ollama_server import Server

__all__ = ["BELOW", "Call", "being_asked", "notes"]

_LISTING = ("GET", "/api/tags")

_asking: ContextVar[Any] = ContextVar("memoleo_ollama_asking", default=None)
"""The body of the request that this context is passing on, so that it is answered only once."""


def being_asked(body: Any) -> bool:
    """Whether the current context is passing on the request with this very body."""
    return _asking.get() is body


BELOW = "__memoleo_below__"
"""An attribute of functions of ours that stand in for another: themselves, and what it is now."""


def notes(original: Any) -> bool:
    """Whether something else may be given to a method in place of the class of its answers.

    That is so for the client's own code, which only calls it. Somebody else's patch may look at
    it.
    """
    while True:
        own, below = getattr(original, BELOW, (None, None))
        if own is not original or below is None:
            break
        original = below()
    module = sys.modules.get("ollama._client")
    return module is not None and getattr(original, "__globals__", None) is vars(module)


class Call:
    """One call of a client.

    Parameters
    ----------
    original
        the method that is stood in for; it takes the client first
    client, args, kwargs
        what it was called with
    question, server
        what is asked, and whom
    cache
        where answers are kept
    share
        whether servers share answers of models with the same digest
    """

    __slots__ = (
        "answered", "args", "cache", "client", "error", "kwargs", "learned", "original", "question",
        "sent", "server", "share",
    )  # fmt: skip

    def __init__(
        self,
        original: Any,
        client: Any,
        args: Any,
        kwargs: Any,
        question: Question,
        server: Server,
        cache: Cache,
        *,
        share: bool,
    ) -> None:
        self.original = original
        self.client = client
        self.args = args
        self.kwargs = kwargs
        self.question = question
        self.server = server
        self.cache = cache
        self.share = share
        self.answered: Any = None
        self.error: BaseException | None = None
        self.learned: Model | None = None
        self.sent: tuple[Any, Part] | None = None

    @property
    def answer(self) -> Any:
        """The class of the answer, or of the parts of a streamed one."""
        return self.args[0]

    def key(self, model: Model, inputs: Sequence[str] | None = None) -> bytes:
        """Return the key of the answer; `inputs` are texts to embed instead of the call's."""
        return self.question.key(self.place(model), model.digest, inputs)

    def place(self, model: Model) -> bytes:
        """Return who answers, as far as it counts."""
        server = self.server
        return server.anywhere if self.share and model.digest else server.here

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
        question, cache = self.question, self.cache
        ttl = None
        if model.remote:
            ttl = min(cache.calls.ttl_for(question.verb.type), REMOTE_TTL)
        policy = Policy(
            type=question.verb.type,
            ttl=ttl,
            cache_if=complete,
            label=question.model,
            tokens=tokens,
        )
        if codec is None:
            kind = PartsCodec if question.streamed else AnswerCodec
            codec = kind(self.answer, question.asked, self.sent_for)
        return cache.calls.job(
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
        return describe(self.question, place, known.digest, self.kwargs["json"], inputs)

    def _tags(self, model: Model, answer: Any) -> tuple[str, ...]:
        known = model if self.learned is None else self.learned
        return tags(self.server, self.question.model, known.digest)

    # The model.

    def model(self) -> Model | Unsure | None:
        """Return the model, as far as it is known without asking."""
        return models.find(self.server, self.question.model, self.cache)

    def listing(self) -> Model | Unsure | None:
        """Ask the server for its models, and return the model."""
        changes = models.changes(self.server)
        try:
            models.listed(
                self.server,
                self.original(self.client, dict, *_LISTING, timeout=TIMEOUT),
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
                await self.original(self.client, dict, *_LISTING, timeout=TIMEOUT),
                changes,
            )
        except Exception as error:
            return models.failed(self.server, self.question.model, error)
        return self.model()

    def learn(self, model: Model | Unsure | None) -> None:
        """Remember what the model turned out to be."""
        if isinstance(model, Model):
            self.learned = model

    # The server.

    def sent_for(self, answer: Any) -> Part | None:
        """Return what the server sent for the answer that came last."""
        sent = self.sent
        return sent[1] if sent is not None and sent[0] is answer else None

    def _arguments(self) -> tuple[Any, ...]:
        """Return what the call is made with: the client's classes, made to note what they get."""
        if not notes(self.original):
            return tuple(self.args)
        made = self.answer

        def noting(**fields: Any) -> Any:
            answer = made(**fields)
            self.sent = (answer, fields)
            return answer

        return (noting, *self.args[1:])

    def run(self, kwargs: Any = None) -> Any:
        """Make the call, or the same one with other keywords."""
        own = self.kwargs if kwargs is None else kwargs
        token = _asking.set(own["json"])
        try:
            answer = self.original(self.client, *self._arguments(), **own)
        except BaseException as error:
            self.error = error
            raise
        finally:
            _asking.reset(token)
        if kwargs is None:
            self.answered = answer
        return answer

    async def arun(self, kwargs: Any = None) -> Any:
        """Do what `run` does."""
        own = self.kwargs if kwargs is None else kwargs
        token = _asking.set(own["json"])
        try:
            answer = await self.original(self.client, *self._arguments(), **own)
        except BaseException as error:
            self.error = error
            raise
        finally:
            _asking.reset(token)
        if kwargs is None:
            self.answered = answer
        return answer

    def parts(self, *, learn: bool = False) -> Generator[Any, None, None]:
        """Make the call, and yield the parts of its answer.

        With `learn` the model is learned before the last part is handed on: a consumer that
        leaves with it never comes back.
        """
        source = self.run()
        try:
            for part in source:
                if learn and complete(part):
                    self.learn(self.listing())
                yield part
        except Exception as error:
            self.error = error
            raise
        finally:
            source.close()

    async def aparts(self, *, learn: bool = False) -> AsyncGenerator[Any, None]:
        """Do what `parts` does."""
        source = await self.arun()
        try:
            async for part in source:
                if learn and complete(part):
                    self.learn(await self.alisting())
                yield part
        except Exception as error:
            self.error = error
            raise
        finally:
            await source.aclose()
