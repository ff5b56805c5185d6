"""Batches of texts to embed: each text has an entry of its own, and only new ones are sent.

The server counts and times a whole batch. What it says is shared out among the texts so that
the shares add up again: the same batch, asked again, has the same counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from memoleo import _switch
from memoleo._steps import Returned
from memoleo._store import Job
from memoleo.patches._ollama_call import Call
from memoleo.patches._ollama_codec import plain
from memoleo.patches._ollama_models import Model

__all__ = ["Batch", "cut", "joined"]

_SUMS = ("total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration",
         "prompt_eval_duration")  # fmt: skip


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
        self._found: dict[str, Any] = {}
        self._asked: list[str] = []
        self._took = 0.0
        if look and _switch.mode.get() is _switch.Mode.SERVE:
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
        if _switch.mode.get() is _switch.Mode.SERVE:
            self._look(self.missing)
        self._asked = self.missing
        return bool(self._asked)

    def request(self) -> dict[str, Any]:
        """Return the keywords of the call that asks for what is missing."""
        if self.whole:
            return dict(self.call.kwargs)
        return {**self.call.kwargs, "json": {**self.call.kwargs["json"], "input": self._asked}}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Note how long the server takes."""
        started = time.perf_counter()
        yield
        self._took = (time.perf_counter() - started) * 1000

    def take(self, answer: Any, took: float | None = None) -> bool:
        """Store the server's answer; false if it isn't one vector for each text.

        Parameters
        ----------
        answer
            the server's
        took
            how many milliseconds it took; left out, what `timed` noted
        """
        texts = list(self.texts) if took is not None else self._asked
        rows = cut(answer, texts)
        if rows is None:
            return False
        took = (self._took if took is None else took) / len(texts)
        for text, row in zip(texts, rows, strict=True):
            job = self._job(text)
            self.call.cache.calls.keep(job, Returned(row, took))
            self._found[text] = row
        return True

    def answer(self) -> Any:
        """Return one answer for all texts, in their order."""
        fields = joined(self._found[text] for text in self.texts)
        return self.call.question.answer(**fields)

    def _look(self, texts: Iterable[str]) -> None:
        for text in dict.fromkeys(texts):
            found = self.call.cache.calls.look(self._job(text))
            if found is not None:
                self._found[text] = found.value

    def _job(self, text: str) -> Job:
        return self.call.job(self.model, _nothing, self._key([text]))

    def _key(self, texts: list[str]) -> bytes:
        return self.call.key(self.model, texts)


def _nothing() -> None:
    return None


def cut(answer: Any, texts: Sequence[str]) -> list[Any] | None:
    """Return the answer for each text; `None` if the server didn't send one vector for each.

    Parameters
    ----------
    answer
        the server's
    texts
        what it was asked for
    """
    fields = plain(answer)
    vectors = fields.get("embeddings", ())
    if len(vectors) != len(texts):
        return None
    shares = {name: _shares(fields[name], texts) for name in _SUMS if type(fields.get(name)) is int}
    return [
        type(answer)(
            **{
                **fields,
                "embeddings": [vector],
                **{name: share[place] for name, share in shares.items()},
            }
        )
        for place, vector in enumerate(vectors)
    ]


def joined(answers: Iterable[Any]) -> dict[str, Any]:
    """Return the data of one answer made of those for single texts, in their order."""
    rows = [plain(each) for each in answers]
    whole = rows[0]
    whole["embeddings"] = [vector for row in rows for vector in row["embeddings"]]
    for name in _SUMS:
        numbers = [row[name] for row in rows if type(row.get(name)) is int]
        if numbers:
            whole[name] = sum(numbers)
    return whole


def _shares(number: int, texts: Sequence[str]) -> list[int]:
    """Return a part of `number` for each text, by its length; the parts add up to it."""
    ends = list(accumulate(len(text) + 1 for text in texts))
    marks = [number * end // ends[-1] for end in ends]
    return [mark - before for mark, before in zip(marks, [0, *marks], strict=False)]
