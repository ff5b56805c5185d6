"""A model that is pulled again is another model: its old answers are not given any more."""

import ollama

import memoleo
from memoleo.testing import LocalOllama

with LocalOllama() as server:
    client = ollama.Client(server.url)
    question = {"model": server.model, "prompt": "Why?", "options": {"seed": 1, "num_predict": 8}}
    with memoleo.enable("ollama", cache=memoleo.Cache("memory://")):
        for _ in range(2):
            client.generate(**question)
        print(f"asked twice: the model computed {server.model_calls} answer")

        server.switch(digest="f" * 64)  # as after a pull: the same name, another content
        client.copy(server.model, "copy")  # pull, create, copy and delete are noticed at once
        client.generate(**question)
        print(f"asked once more: the model computed {server.model_calls} answers")
