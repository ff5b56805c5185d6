"""What 12 warm HTTP calls cost: an entry of a worker, seven to a router and five to Ollama.

memoleo's own share is what the calls take beyond the same ones answered from a dictionary in the
same place. Exit status 1 if it is over its limit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import requests
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripted_http import ScriptedHttp

import memoleo

_LIMIT_MS = 3.0
_ROUNDS = 200
_WORDS = ["calm", "angry", "hopeful", "tired", "proud", "lonely", "curious", "afraid", "grateful",
          "bored", "tender", "restless"]  # fmt: skip


def calls(url: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of one entry: path and body."""
    text = "Walked home in the rain and felt lighter than in weeks, then the phone rang again."
    labels = [f"{word} {number}" for number in range(18) for word in _WORDS]
    found: list[tuple[str, dict[str, Any]]] = [
        ("/models/zero-shot", {"inputs": text, "parameters": {"candidate_labels": labels[:36]}})
    ]
    for count in (6, 12, 24, 48, 96, 216):
        inputs = {"source_sentence": text, "sentences": labels[:count]}
        found.append(("/models/similarity", {"inputs": inputs}))
    for number in range(5):
        prompt = f"{number}: sum up in one line: {text}"
        body = {"model": "m", "prompt": prompt, "stream": False, "options": {"temperature": 0}}
        found.append(("/api/generate", body))
    return [(url + path, body) for path, body in found]


def script(server: ScriptedHttp) -> None:
    """Answer as the router and the model do."""
    server.answers["/models/zero-shot"] = lambda body: {
        "sequence": body["inputs"],
        "labels": body["parameters"]["candidate_labels"],
        "scores": [1 / 36] * 36,
    }
    server.answers["/models/similarity"] = lambda body: [0.5] * len(body["inputs"]["sentences"])
    server.answers["/api/generate"] = lambda body: {
        "model": "m", "response": "All in all a fair day. " * 8, "done": True,
        "done_reason": "stop", "context": list(range(200)),
    }  # fmt: skip
    server.answers["/api/tags"] = {"models": [{"model": "m:latest", "digest": "d1"}]}


def best(run: Callable[[], None]) -> float:
    """Return the milliseconds of the best of many rounds."""
    took = []
    for _ in range(_ROUNDS):
        started = perf_counter()
        run()
        took.append((perf_counter() - started) * 1000)
    return min(took)


def main() -> int:
    """Measure, show, and judge."""
    table = Table("12 warm calls through", "in all, ms", "own share, ms", title="HTTP calls")
    worst = 0.0
    with ScriptedHttp() as server, tempfile.TemporaryDirectory() as folder:
        script(server)
        asked = calls(server.url)

        def by_post() -> None:
            for url, body in asked:
                requests.post(url, json=body, timeout=5).json()

        with requests.Session() as session, httpx.Client(verify=False) as client:

            def by_session() -> None:
                for url, body in asked:
                    session.post(url, json=body, timeout=5).json()

            def by_httpx() -> None:
                for url, body in asked:
                    client.post(url, json=body).json()

            ways = {"requests.post": by_post, "Session.post": by_session, "httpx.Client": by_httpx}
            floors = {name: floor(asked, run) for name, run in ways.items()}
            with memoleo.Cache(f"sqlite:///{folder}/cache.db") as cache:
                rules = ["ollama", "huggingface"]
                with memoleo.enable("requests", "httpx", rules=rules, cache=cache):
                    for name, run in ways.items():
                        run()
                        before = server.requests - _listings(server)
                        whole = best(run)
                        assert server.requests - _listings(server) == before, "not all were hits"
                        share = whole - floors[name]
                        worst = max(worst, share)
                        table.add_row(name, f"{whole:.2f}", f"{share:.2f}")
    table.add_row("limit", "", f"{_LIMIT_MS:.2f}")
    Console().print(table)
    return int(worst > _LIMIT_MS)


def _listings(server: ScriptedHttp) -> Any:
    from collections import Counter

    return Counter({"/api/tags": server.requests["/api/tags"]})


def floor(asked: list[tuple[str, dict[str, Any]]], run: Callable[[], None]) -> float:
    """Return what the same calls take with a dictionary in the place of memoleo."""
    known: dict[Any, Any] = {}
    original, send = requests.Session.request, httpx.Client.send

    def request(self: Any, method: str, url: str, **kwargs: Any) -> Any:
        key = (method, url, json.dumps(kwargs["json"]))
        if key not in known:
            known[key] = original(self, method, url, **kwargs)
        return known[key]

    def sent(self: Any, request: Any, **kwargs: Any) -> Any:
        key = (request.method, str(request.url), request.content)
        if key not in known:
            known[key] = send(self, request, **kwargs)
        return known[key]

    requests.Session.request = request  # type: ignore[method-assign]
    httpx.Client.send = sent  # type: ignore[method-assign]
    try:
        run()
        return best(run)
    finally:
        requests.Session.request = original  # type: ignore[method-assign]
        httpx.Client.send = send  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
