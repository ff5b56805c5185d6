"""The official Ollama client, cached without a change to the code that uses it."""

import contextlib
import os
import time

import ollama

import memoleo
from memoleo.testing import LocalOllama


def haiku(client: ollama.Client, model: str) -> str:
    """Knows nothing of memoleo."""
    answer = client.generate(
        model,
        "Write a haiku about rain.",
        options={"temperature": 0, "num_predict": 40},
    )
    return answer.response


# The Ollama at OLLAMA_HOST, or a small model of memoleo's own.
given = os.environ.get("OLLAMA_HOST")
with contextlib.nullcontext() if given else LocalOllama() as server:
    client = ollama.Client(given or server.url)
    model = client.list().models[0].model or ""
    memoleo.configure("memory://")
    with memoleo.enable("ollama"):
        for _ in range(2):
            started = time.perf_counter()
            text = haiku(client, model)
            print(f"{(time.perf_counter() - started) * 1000:10.3f} ms\n{text}\n")
