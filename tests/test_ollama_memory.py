"""Long-lived programs: what many calls through a patched client leave behind."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise

import httpx
import ollama
import pytest

import memoleo

ASK: list[dict[str, str]] = [{"role": "user", "content": "why?"}]
PART = {"model": "m", "message": {"role": "assistant", "content": "word "}, "done": False}
LAST = {**PART, "response": "word", "done": True, "done_reason": "stop"}


def serve(request: httpx.Request) -> httpx.Response:
    if request.method == "GET":
        return httpx.Response(200, json={"models": [{"model": "m:latest", "digest": "d"}]})
    if json.loads(request.content).get("stream"):
        return httpx.Response(
            200, content=(json.dumps(part).encode() + b"\n" for part in (PART, PART, LAST))
        )
    return httpx.Response(200, json=LAST)


@pytest.fixture
def client() -> Iterator[ollama.Client]:
    made = ollama.Client("http://m.test", transport=httpx.MockTransport(serve))
    with memoleo.enable("ollama", cache=memoleo.Cache("memory://", metrics=memoleo.Metrics())):
        yield made
    made._client.close()


def growth(call: Callable[[], object], count: int) -> int:
    """How many bytes more are held after many calls than before them, in the best of three rounds.

    What other threads and the measuring of tests happen to keep meanwhile comes once; what calls
    leave comes in each round.
    """
    tracemalloc.start()
    try:
        held = []
        for _ in range(4):
            for _ in range(count):
                call()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return min(after - before for before, after in pairwise(held))


def test_warm_calls_leave_nothing(client: ollama.Client) -> None:
    """Hits, streamed or not, hold on to nothing."""
    client.chat("m", ASK)
    assert growth(lambda: client.chat("m", ASK), 1500) < 64 * 1024
    assert growth(lambda: list(client.chat("m", ASK, stream=True)), 500) < 64 * 1024


def test_abandoned_streams_leave_nothing(client: ollama.Client) -> None:
    """Streams that are left after a part, or never begun, are gone with their requests."""
    client.generate("m", "other")

    def leave() -> None:
        next(iter(client.chat("m", [*ASK, *ASK], stream=True)))
        client.chat("m", [*ASK, *ASK], stream=True)

    assert growth(leave, 150) < 64 * 1024


def test_failures_leave_nothing(client: ollama.Client) -> None:
    """An error isn't kept alive by the call that it ended."""
    client.generate("m", "other")

    def fail() -> None:
        with pytest.raises(ollama.ResponseError):
            client.chat("m", [{"role": "user", "content": "why?"}])

    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"error": "busy"})

    transport = client._client._transport
    assert isinstance(transport, httpx.MockTransport)
    transport.handler = refuse
    assert growth(fail, 150) < 64 * 1024
