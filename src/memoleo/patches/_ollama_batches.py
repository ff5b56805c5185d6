"""Batches of texts to embed: each text has an entry of its own, and only new ones are sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from memoleo import _switch
from memoleo._events import extras, logger
from memoleo._flow.steps import Returned
from memoleo._flow.store import Job
from memoleo.patches._ollama_call import Call
from memoleo.patches._ollama_codec import AnswerCodec, FieldsCodec
from memoleo.patches._ollama_models import Model
from memoleo.patches._ollama_parts import Stored, join_batch, split_batch

__all__ = ["Batch"]


class Batch:
    """The texts of one call.

    Parameters
    ----------
    call
        the call
    model
        its model
    look
        whether to look for answers that are stored already
    """

    def __init__(self, call: Call, model: Model, *, look: bool = True) -> None:
        self.call = call
        self.model = model
        self.texts: Sequence[str] = call.question.inputs or ()
        self._found: dict[str, Stored] = {}
        self._asked: list[str] = []
        self._took = 0.0
        self._began = 0
        if look and _switch.mode.get() in (_switch.Mode.SERVE, _switch.Mode.INSPECT):
            self._look(self.texts)

    @property
    def missing(self) -> list[str]:
        """The texts that nothing is known of, each once."""
        return [text for text in dict.fromkeys(self.texts) if text not in self._found]

    @property
    def whole(self) -> bool:
        """Whether the server was asked exactly what the caller asked."""
        return self._asked == list(self.texts)

    @property
    def repeats(self) -> bool:
        """Whether a text is there more than once: its share counts as often."""
        return len(set(self.texts)) < len(self.texts)

    def job(self, fetch: Callable[[], Any]) -> Job:
        """Return what the cache is asked for the missing texts: to let only one caller fetch them.

        The batch itself is not stored, only its texts are.
        """
        return self.call.job(self.model, fetch, self._key(self.missing), lambda: None)

    def look_again(self) -> bool:
        """Look for what was stored since; whether something is still missing."""
        if _switch.mode.get() in (_switch.Mode.SERVE, _switch.Mode.INSPECT):
            self._look(self.missing)
        self._asked = self.missing
        return bool(self._asked)

    def request(self) -> dict[str, Any]:
        """Return the keywords of the call that asks for what is missing."""
        if self.whole:
            return dict(self.call.request.kwargs)
        return {
            **self.call.request.kwargs,
            "json": {**self.call.request.kwargs["json"], "input": self._asked},
        }

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Note how long the server takes."""
        self._began = self.call.cache.calls.driver.removals
        started = time.perf_counter()
        yield
        self._took = (time.perf_counter() - started) * 1000

    def take(self, answer: Any, took: float | None = None, began: int | None = None) -> bool:
        """Store the server's answer; false if it isn't one vector for each text.

        Parameters
        ----------
        answer
            the server's
        took
            how many milliseconds it took; left out, what `timed` noted
        began
            how many removals there were when the server was asked; likewise
        """
        texts = list(self.texts) if took is not None else self._asked
        call = self.call
        codec = AnswerCodec(call.answer, call.question.asked, call.request.sent_for)
        stored = codec.stored(answer)
        rows = split_batch(stored.parts[0], texts)
        if rows is None:
            return False
        took = (self._took if took is None else took) / len(texts)
        began = self._began if began is None else began
        for text, row in zip(texts, rows, strict=True):
            single = Stored([row], streamed=False, asked=stored.asked, kept_by=stored.kept_by)
            self.call.cache.calls.keep(self._job(text), Returned(single, took), began)
            self._found[text] = single
        return True

    def rescue(self, error: Exception) -> bool:
        """Take what is past its TTL for what the server failed to answer; whether that is all.

        Parameters
        ----------
        error
            what it failed with
        """
        window = self.call.decision.stale_if_error
        found: dict[str, Stored] = {}
        for text in self._asked if window else ():
            job = self._job(text)
            entry = self.call.cache.calls.peek(job)
            if entry is None or not 0 <= entry.age < job.freshness.ttl + window:
                return False
            found[text] = entry.value
        if not found:
            return False
        self._found.update(found)
        model, type = self.call.question.model, self.call.decision.type
        counters = self.call.cache.calls.tally.of(type, model)
        counters.local.cell.stale_if_error += len(found)
        logger.warning(
            "%s failed (%r); served stale vectors",
            model,
            error,
            extra=extras("stale_if_error", type=type, label=model, error=error),
        )
        return True

    def answer(self) -> Any:
        """Return one answer for all texts, in their order."""
        fields = join_batch(self._found[text].whole() for text in self.texts)
        return self.call.answer(**fields)

    def _look(self, texts: Iterable[str]) -> None:
        for text in dict.fromkeys(texts):
            found = self.call.cache.calls.look(self._job(text))
            if found is not None:
                self._found[text] = found.value

    def _job(self, text: str) -> Job:
        codec = FieldsCodec(self.call.answer, self.call.question.asked)
        return self.call.job(self.model, _nothing, self._key([text]), codec=codec, inputs=[text])

    def _key(self, texts: list[str]) -> bytes:
        return self.call.key(self.model, texts)


def _nothing() -> None:
    return None
