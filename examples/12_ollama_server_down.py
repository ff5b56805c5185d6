"""With the server down, questions that were asked before are answered; others fail as ever."""

import ollama

import memoleo
from memoleo.testing import LocalOllama

with LocalOllama() as server:
    client = ollama.Client(server.url)
    question = {"model": server.model, "prompt": "Why?", "options": {"seed": 1, "num_predict": 8}}
    # A minute fresh, and for a week after that better than nothing.
    policies = {"all": {"ttl": "1m", "stale_if_error": "7d"}}
    with memoleo.enable("ollama", cache=memoleo.Cache("memory://"), policies=policies):
        print(client.generate(**question).response)
        server.kill()
        print(client.generate(**question).response)
        try:
            client.generate(server.model, "Never asked before.")
        except ConnectionError as error:
            print(f"{type(error).__name__}: {error}")
