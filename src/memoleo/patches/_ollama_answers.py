"""One call of a client: asked of the cache, and if need be of the server."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from memoleo import _switch
from memoleo._cache.cache import Cache
from memoleo._events import extras, logger
from memoleo._flow.store import Job
from memoleo._platform.interrupts import pass_on
from memoleo._streams.unseen import unseen
from memoleo.patches._ollama_batches import Batch
from memoleo.patches._ollama_call import Call
from memoleo.patches._ollama_hits import Hits
from memoleo.patches._ollama_models import Model, Unsure, models
from memoleo.patches._ollama_request import VERBS, Question, read
from memoleo.patches._ollama_rules import Rules
from memoleo.patches._ollama_sending import Request, being_asked
from memoleo.patches._ollama_server import server_of

__all__ = ["Answers"]

_CHANGES = frozenset({"/api/pull", "/api/create", "/api/copy", "/api/delete"})


_said: list[str] = []
"""The model of which it was said that its answers would vary; once is enough."""


class Answers:
    """Answers the calls of clients from a cache.

    Whatever goes wrong in here, the call is made as if there were no cache.

    Parameters
    ----------
    cache
        returns the cache, at each call
    rules
        what else its user asked for
    """

    def __init__(self, cache: Callable[[], Cache], rules: Rules) -> None:
        self._cache = cache
        self._rules = rules
        self.fills = bool(rules.profiles)
        self.hits = Hits(cache)
        self._sending = rules.sending
        self._failed: set[str] = set()

    # What stands in for the client's own methods. `original` takes the client first.

    def filled(self, client: Any, args: Any, kwargs: Any) -> Any:
        """Return the keywords of a call with what its profile fills in."""
        try:
            return self._rules.filled(client, args, kwargs) if _switch.enabled() else kwargs
        except Exception as error:
            self._note("a profile", error)
            return kwargs

    def request(self, original: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Answer a call of ``Client._request``."""
        call = self._call(original, client, args, kwargs)
        if call is None:
            if self._computes(args, kwargs):
                request = Request(original, client, args, kwargs)
                streamed = kwargs.get("stream")
                return (self._sending.stream if streamed else self._sending.send)(request, kwargs)
            if not self.changes_models(args[1:]):
                return original(client, *args, **kwargs)
            with self.changing(client):
                result = original(client, *args, **kwargs)
            return self._watched(client, result) if kwargs.get("stream") else result
        if call.question.streamed:
            return self._stream(call)
        return self._answer(call)

    async def arequest(self, original: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Answer a call of ``AsyncClient._request``."""
        call = self._call(original, client, args, kwargs)
        if call is None:
            if self._computes(args, kwargs):
                request = Request(original, client, args, kwargs)
                if kwargs.get("stream"):
                    return unseen(self._sending.astream(request, kwargs))
                return await self._sending.asend(request, kwargs)
            if not self.changes_models(args[1:]):
                return await original(client, *args, **kwargs)
            with self.changing(client):
                result = await original(client, *args, **kwargs)
            return unseen(self._awatched(client, result)) if kwargs.get("stream") else result
        if call.question.streamed:
            return unseen(self._astream(call))
        return await self._aanswer(call)

    def _computes(self, args: Any, kwargs: Any) -> bool:
        """Whether a call that isn't cached may be repeated, and is to be if it fails."""
        try:
            return (
                self._sending.active
                and _switch.enabled()
                and len(args) == 3
                and args[2] in VERBS
                and kwargs.get("json") is not None
                and not being_asked(kwargs["json"])
            )
        except Exception as error:
            self._note("reading a request", error)
            return False

    def changes_models(self, args: Any) -> bool:
        """Whether a request (its method and path first) may change what is behind a name."""
        return len(args) > 1 and args[1] in _CHANGES

    @contextmanager
    def changing(self, client: Any) -> Iterator[None]:
        """Forget what the server's models are, before and after what may change them."""
        self._forget(client)
        try:
            yield
        finally:
            self._forget(client)

    def _forget(self, client: Any) -> None:
        try:
            server = server_of(client)
            if server is not None:
                models.forget(server)
        except Exception as error:
            self._note("forgetting models", error)

    def _watched(self, client: Any, parts: Any) -> Generator[Any, None, None]:
        with self.changing(client):
            yield from parts

    async def _awatched(self, client: Any, parts: Any) -> AsyncGenerator[Any, None]:
        with self.changing(client):
            try:
                async for part in parts:
                    # It may be the last one: whoever leaves with it is never seen again.
                    self._forget(client)
                    yield part
            finally:
                await parts.aclose()

    # One call.

    def _call(self, original: Any, client: Any, args: Any, kwargs: Any) -> Call | None:
        try:
            if not _switch.enabled() or _switch.mode.get() is _switch.Mode.BYPASS:
                return None
            body = kwargs.get("json")
            if body is None or being_asked(body):
                return None
            question = _question(args, kwargs)
            server = None if question is None else server_of(client)
            if question is None or server is None:
                return None
            request = Request(original, client, args, kwargs)
            call = Call(request, question, server, self._cache(), self._rules)
            return call if self._kept_as_said(call) else None
        except Exception as error:
            self._note("reading a request", error)
            return None

    def _kept_as_said(self, call: Call) -> bool:
        """Whether an answer is to be kept; says so once if that freezes what would vary."""
        decision = call.decision
        if not decision.stored:
            call.cache.calls.tally.of(decision.type, call.question.model).local.cell.refused += 1
            return False
        if decision.sampled and decision.unseeded is None and decision.variants == 1:
            self._say_once(call.question.model)
        return True

    def _say_once(self, model: str) -> None:
        if not _said:
            _said.append(model)
            logger.warning(
                "ollama: %s is asked without a seed, and would answer differently each time; its "
                "first answer is kept. Set a seed or temperature 0, or say with enable(policies=…) "
                "or [ollama.policies] what to do: see the manual on calls that sample",
                model,
                extra=extras("samples", label=model),
            )

    def _note(self, what: str, error: Exception) -> None:
        pass_on(error)
        if what not in self._failed:
            self._failed.add(what)
            logger.warning(
                "ollama: %s failed; calls go on without it",
                what,
                exc_info=error,
                extra=extras("failing", label=what, error=error),
            )

    def _answer(self, call: Call) -> Any:
        try:
            model = call.model()
            if call.lists_first(model):
                model = call.listing()
            if isinstance(model, Model):
                return self._known(call, model)
            job = self._unknown(call, model, partial(self._first, call))
            return call.run() if job is None else call.cache.calls.call(job)
        except Exception as error:
            if call.failed:
                raise
            self._note("asking the cache", error)
            return call.run() if call.answered is None else call.answered

    async def _aanswer(self, call: Call) -> Any:
        try:
            model = call.model()
            if call.lists_first(model):
                model = await call.alisting()
            if isinstance(model, Model):
                return await self._aknown(call, model)
            job = self._unknown(call, model, partial(self._afirst, call))
            return await (call.arun() if job is None else call.cache.calls.acall(job))
        except Exception as error:
            if call.failed:
                raise
            self._note("asking the cache", error)
            return await call.arun() if call.answered is None else call.answered

    def _known(self, call: Call, model: Model) -> Any:
        if call.question.inputs is None or _switch.mode.get() is _switch.Mode.OBSERVE:
            job = call.job(model, call.run, call.key(model))
            self.hits.learn(call, model, job)
            return call.cache.calls.call(job)
        batch = Batch(call, model)
        if not batch.missing:
            return batch.answer()
        return call.cache.calls.call(batch.job(partial(self._fetch, batch)))

    async def _aknown(self, call: Call, model: Model) -> Any:
        if call.question.inputs is None or _switch.mode.get() is _switch.Mode.OBSERVE:
            job = call.job(model, call.arun, call.key(model))
            self.hits.learn(call, model, job)
            return await call.cache.calls.acall(job)
        batch = Batch(call, model)
        if not batch.missing:
            return batch.answer()
        return await call.cache.calls.acall(batch.job(partial(self._afetch, batch)))

    def _fetch(self, batch: Batch) -> Any:
        """Ask the server for what is missing, unless another has asked for it meanwhile."""
        answer = None
        if batch.look_again():
            try:
                with batch.timed():
                    answer = batch.call.run(batch.request())
            except Exception as error:
                if not batch.rescue(error):
                    raise
                return batch.answer()
            if not batch.take(answer):
                return answer if batch.whole else batch.call.run()
        return answer if answer is not None and batch.whole else batch.answer()

    async def _afetch(self, batch: Batch) -> Any:
        answer = None
        if batch.look_again():
            try:
                with batch.timed():
                    answer = await batch.call.arun(batch.request())
            except Exception as error:
                if not batch.rescue(error):
                    raise
                return batch.answer()
            if not batch.take(answer):
                return answer if batch.whole else await batch.call.arun()
        return answer if answer is not None and batch.whole else batch.answer()

    def _unknown(self, call: Call, model: Unsure | None, first: Callable[[], Any]) -> Job | None:
        """Return what the cache is asked without a digest; `None` for a call that can't be kept.

        Without a digest there is no key. A call that will bring one to light flies under its
        name alone, so that nobody else makes it meanwhile, and finds its place afterwards.
        """
        if model is not Unsure.UNKNOWN:
            return None

        def place() -> bytes | None:
            if call.learned is None or call.question.inputs is not None:
                return None
            return call.key(call.learned)

        return call.job(Model(""), first, call.key(Model("")), place)

    def _first(self, call: Call) -> Any:
        """Make a call whose model is not known, unless another has come to know it by now."""
        known = call.model()
        if isinstance(known, Model):
            return self._known(call, known)
        began = call.cache.calls.driver.removals
        started = time.perf_counter()
        answer = call.run()
        took = (time.perf_counter() - started) * 1000
        if call.complete(answer):
            call.learn(call.listing())
            return self._kept(call, answer, took, began)
        return answer

    async def _afirst(self, call: Call) -> Any:
        known = call.model()
        if isinstance(known, Model):
            return await self._aknown(call, known)
        began = call.cache.calls.driver.removals
        started = time.perf_counter()
        answer = await call.arun()
        took = (time.perf_counter() - started) * 1000
        if call.complete(answer):
            call.learn(await call.alisting())
            return self._kept(call, answer, took, began)
        return answer

    def _kept(self, call: Call, answer: Any, took: float, began: int) -> Any:
        """Store the answer for each text of a batch, and return the answer for all."""
        watching = _switch.mode.get() is _switch.Mode.OBSERVE
        if call.learned is None or call.question.inputs is None or watching:
            return answer
        batch = Batch(call, call.learned, look=False)
        return batch.answer() if batch.take(answer, took, began) and batch.repeats else answer

    def _stream(self, call: Call) -> Generator[Any, None, None]:
        try:
            model = call.model()
            if call.lists_first(model):
                model = call.listing()
            if isinstance(model, Model):
                job: Job | None = call.job(model, call.parts, call.key(model))
            else:
                job = self._unknown(call, model, partial(call.parts, learn=True))
            source = call.parts() if job is None else call.cache.calls.call(job)
        except Exception as error:
            if call.failed:
                raise
            self._note("asking the cache", error)
            source = call.parts()
        yield from source

    async def _astream(self, call: Call) -> AsyncGenerator[Any, None]:
        try:
            model = call.model()
            if call.lists_first(model):
                model = await call.alisting()
            if isinstance(model, Model):
                job: Job | None = call.job(model, call.aparts, call.key(model))
            else:
                job = self._unknown(call, model, partial(call.aparts, learn=True))
            source: Any = call.aparts() if job is None else call.cache.calls.astream(job)
        except Exception as error:
            self._note("asking the cache", error)
            source = call.aparts()
        begun = False
        try:
            async for part in source:
                begun = True
                yield part
        except Exception as error:
            if begun or call.failed:
                raise
            self._note("asking the cache", error)
            await source.aclose()
            source = call.aparts()
            async for part in source:
                yield part
        finally:
            await source.aclose()


def _question(args: Any, kwargs: Any) -> Question | None:
    """Return what a call of ``_request`` asks, without the client; `None` for what isn't cached."""
    if len(args) != 3 or args[1] != "POST" or not kwargs.keys() <= {"json", "stream"}:
        return None
    if not hasattr(args[0], "__pydantic_validator__"):
        return None
    return read(args[2], kwargs.get("json"), streamed=bool(kwargs.get("stream", False)))
