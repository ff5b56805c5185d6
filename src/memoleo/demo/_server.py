"""Which model the demo asks, and who counts its calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import ollama

from memoleo.demo._counting_proxy import CountingProxy
from memoleo.errors import MemoleoError
from memoleo.testing._local_ollama import LocalOllama

__all__ = ["Counted", "counted_server"]

_PATIENCE_S = 3.0
_NO_WRITERS = ("bert", "embed", "minilm", "clip", "rerank")


@dataclass(frozen=True)
class Counted:
    """A server whose model calls are counted.

    Parameters
    ----------
    url
        its address
    model
        the model to ask
    name
        how to call it in a sentence
    calls
        returns the number of model calls so far
    """

    url: str
    model: str
    name: str
    calls: Callable[[], int]


@contextlib.contextmanager
def counted_server(model: str | None) -> Iterator[Counted]:
    """Hand out the Ollama at ``OLLAMA_HOST`` if one answers, else the local model.

    Parameters
    ----------
    model
        the model to ask; ``None``: the smallest that is there

    Raises
    ------
    MemoleoError
        if the model isn't there, or the local one can't be started
    """
    with contextlib.ExitStack() as stack:
        found = _ollama()
        if found is None or (model is None and not found[1]):
            if model not in (None, LocalOllama.model):
                raise MemoleoError(
                    f"No Ollama answers at {_address()}, and the local model is "
                    f"{LocalOllama.model}. Start Ollama, or leave out --model."
                )
            server = stack.enter_context(LocalOllama())
            yield Counted(server.url, server.model, "the local model", lambda: server.model_calls)
            return
        url, models = found
        chosen = _chosen(model, models)
        if _counts_itself(url):
            yield Counted(url, chosen, f"the server at {url}", lambda: _own_count(url))
            return
        proxy = stack.enter_context(CountingProxy(url))
        yield Counted(proxy.url, chosen, f"Ollama at {url}", lambda: proxy.model_calls)


def _address() -> str:
    with ollama.Client() as client:
        return str(client._client.base_url).rstrip("/")


def _ollama() -> tuple[str, list[Any]] | None:
    url = _address()
    with ollama.Client(timeout=_PATIENCE_S) as client:
        try:
            models = client.list().models
        except (ConnectionError, httpx.HTTPError, ollama.ResponseError, ValueError):
            return None
    return url, [model for model in models if _writes(model)]


def _writes(model: Any) -> bool:
    details = model.details
    words = f"{model.model} {details.family if details else ''}".lower()
    return not any(word in words for word in _NO_WRITERS)


def _chosen(model: str | None, models: list[Any]) -> str:
    if model is None:
        smallest: str = min(models, key=lambda entry: int(entry.size or 0)).model
        return smallest
    names = [entry.model for entry in models]
    if model not in names and f"{model}:latest" not in names:
        raise MemoleoError(
            f"The model {model!r} isn't there; there are: {', '.join(names) or 'none'}."
        )
    return model


def _counts_itself(url: str) -> bool:
    try:
        _own_count(url)
    except (httpx.HTTPError, KeyError, ValueError):
        return False
    return True


def _own_count(url: str) -> int:
    answer = httpx.get(f"{url}/memoleo/counts", timeout=_PATIENCE_S)
    answer.raise_for_status()
    count: int = answer.json()["model_calls"]
    return count
