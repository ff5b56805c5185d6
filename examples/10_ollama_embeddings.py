"""Embeddings: of a batch only the new texts are sent, and all vectors come back in order."""

import contextlib
import os

import ollama

import memoleo
from memoleo.testing import LocalOllama

# The Ollama at OLLAMA_HOST, or a small model of memoleo's own.
given = os.environ.get("OLLAMA_HOST")
with contextlib.nullcontext() if given else LocalOllama() as server:
    client = ollama.Client(given or server.url)
    model = client.list().models[0].model or ""
    cache = memoleo.Cache("memory://")
    with memoleo.enable("ollama", cache=cache):
        client.embed(model, ["rain", "snow"])
        answer = client.embed(model, ["snow", "sun", "rain"])  # asks for "sun" alone
        single = client.embed(model, "sun")  # asks for nothing
    assert answer.embeddings[1] == single.embeddings[0]
    print(f"{len(answer.embeddings)} vectors of {len(single.embeddings[0])} numbers")
    print(f"{cache.get_stats()['total_entries']} texts in the cache")
