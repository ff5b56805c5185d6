"""One client that answers from a cache, while others don't."""

import contextlib
import os

import ollama

import memoleo
from memoleo.testing import LocalOllama

# The Ollama at OLLAMA_HOST, or a small model of memoleo's own.
given = os.environ.get("OLLAMA_HOST")
with contextlib.nullcontext() if given else LocalOllama() as server:
    plain = ollama.Client(given or server.url)
    model = plain.list().models[0].model or ""

    client = memoleo.proxy(plain, cache=memoleo.Cache("memory://"))
    assert isinstance(client, ollama.Client)

    ask = {"model": model, "prompt": "Name a fruit.", "options": {"num_predict": 8}}
    answers = [client.generate(**ask).response for _ in range(3)]
    print(f"the proxy, three times: {answers}")
    print(f"the client itself:      {plain.generate(**ask).response!r}")
