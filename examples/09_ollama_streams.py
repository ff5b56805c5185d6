"""A stream is recorded while it is read, and replayed; unstreamed calls share it."""

import contextlib
import os
import time

import ollama

import memoleo
from memoleo.testing import LocalOllama

# The Ollama at OLLAMA_HOST, or a small model of memoleo's own.
given = os.environ.get("OLLAMA_HOST")
with contextlib.nullcontext() if given else LocalOllama() as server:
    client = ollama.Client(given or server.url)
    model = client.list().models[0].model or ""
    question = {
        "model": model,
        "messages": [{"role": "user", "content": "Count to five."}],
        "options": {"seed": 1, "num_predict": 20},
    }
    with memoleo.enable("ollama", cache=memoleo.Cache("memory://")):
        for part in client.chat(**question, stream=True):
            print(part.message.content, end="|")
            break  # left early: nothing is stored
        print(" left early")
        for _ in range(2):
            started = time.perf_counter()
            for part in client.chat(**question, stream=True):
                print(part.message.content, end="|")
            print(f" {(time.perf_counter() - started) * 1000:.2f} ms")
        print(client.chat(**question).message.content)
