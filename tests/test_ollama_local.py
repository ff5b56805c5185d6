"""The patched ollama client against a real model behind a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ollama
import pytest

import memoleo

if TYPE_CHECKING:
    from memoleo.testing._local_ollama import LocalOllama

pytest.importorskip("xllamacpp", reason="needs memoleo[local]", exc_type=ImportError)
pytestmark = pytest.mark.model
OPTIONS = {"num_predict": 12, "temperature": 0}


@pytest.fixture
def client(local_ollama: LocalOllama) -> Iterator[ollama.Client]:
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    local_ollama.switch_all_off()
    local_ollama.reset_counts()
    with ollama.Client(local_ollama.url) as opened, memoleo.enable(cache=cache):
        yield opened
    local_ollama.switch_all_off()


def test_every_verb_cold_and_warm(client: ollama.Client, local_ollama: LocalOllama) -> None:
    """Each verb computes once, and its second answer equals the first in every field."""
    model = local_ollama.model
    ask: list[Any] = [
        lambda: client.chat(model, [{"role": "user", "content": "Hello"}], options=OPTIONS),
        lambda: client.generate(model, "Hello", options=OPTIONS),
        lambda: list(client.generate(model, "Bye", options=OPTIONS, stream=True)),
        lambda: client.embed(model, ["one", "two"]),
        lambda: client.embeddings(model, "one"),
    ]
    cold = [call() for call in ask]
    calls = local_ollama.model_calls
    assert calls == len(ask)
    warm = [call() for call in ask]
    assert warm == cold
    assert local_ollama.model_calls == calls


def test_a_joined_stream_equals_the_unstreamed_answer(
    client: ollama.Client, local_ollama: LocalOllama
) -> None:
    """What the parts of a stream are joined to is what the server says in one piece."""
    model, messages = local_ollama.model, [{"role": "user", "content": "Name a color."}]
    list(client.chat(model, messages, options=OPTIONS, stream=True))
    served = client.chat(model, messages, options=OPTIONS)
    with memoleo.bypass():
        real = client.chat(model, messages, options=OPTIONS)
    assert served.message == real.message
    assert served.model_fields_set == real.model_fields_set
    assert (served.done_reason, served.eval_count) == (real.done_reason, real.eval_count)


def test_a_new_digest_is_a_miss(client: ollama.Client, local_ollama: LocalOllama) -> None:
    """A model whose content changes is asked again at once after a change by this process."""
    from memoleo.patches._ollama_models import models

    client.generate(local_ollama.model, "Hello", options=OPTIONS)
    local_ollama.switch(digest="0" * 64)
    models.clear()
    client.generate(local_ollama.model, "Hello", options=OPTIONS)
    assert local_ollama.model_calls == 2
