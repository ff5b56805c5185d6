"""What a warm question costs through the official Ollama client, and what stays in memory.

A warm chat is compared with what the client itself spends on building the request, plus a hit of a
function cached with the same arguments and the same answer. Exit status 1 if a limit is passed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from timeit import Timer
from typing import Any

import httpx
import ollama
from rich.console import Console
from run import Judge, minima

import memoleo
from memoleo import Cache, Metrics, content_cached

_RATIO_LIMIT = 1.6
_GROWTH_LIMIT = 64.0
_MESSAGES = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "Why is the sky blue? " * 10},
]
_OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 50, "top_p": 0.9, "num_ctx": 2048}
_ANSWER = {
    "model": "m",
    "created_at": "2026-01-01T00:00:00Z",
    "message": {"role": "assistant", "content": "Light is scattered. " * 5},
    "done": True,
    "done_reason": "stop",
    "total_duration": 1_000_000,
    "load_duration": 1000,
    "prompt_eval_count": 60,
    "eval_count": 25,
}
_PARTS = [{**_ANSWER, "done": False}] * 5 + [_ANSWER]


def _serve(request: httpx.Request) -> httpx.Response:
    if request.method == "GET":
        return httpx.Response(200, json={"models": [{"model": "m:latest", "digest": "d"}]})
    if json.loads(request.content)["stream"]:
        lines = (json.dumps(part).encode() + b"\n" for part in _PARTS)
        return httpx.Response(200, content=lines)
    return httpx.Response(200, json=_ANSWER)


def measure_speed(judge: Judge, console: Console, client: ollama.Client, seconds: float) -> None:
    """Compare a warm chat with its floor."""

    class Builder(ollama.Client):
        def _request(self, *args: Any, **kwargs: Any) -> Any:
            return None

    builder = Builder("http://m.test", transport=httpx.MockTransport(_serve))

    @content_cached(cache=Cache("memory://", metrics=Metrics()))
    def same(model: str, messages: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        return _ANSWER

    found = minima(
        {
            "warm": Timer(lambda: client.chat("m", _MESSAGES, options=_OPTIONS)),
            "building": Timer(lambda: builder.chat("m", _MESSAGES, options=_OPTIONS)),
            "hit": Timer(lambda: same("m", _MESSAGES, _OPTIONS)),
        },
        seconds,
    )
    console.print(", ".join(f"{name} {value:.1f} µs" for name, value in found.items()))
    ratio = found["warm"] / (found["building"] + found["hit"])
    judge.check("a warm chat: building the request and a hit", ratio, _RATIO_LIMIT)


def growth(call: Callable[[], object], count: int) -> float:
    """Return how many KiB more are held after many calls than after the first tenth of them."""
    tracemalloc.start()
    for _ in range(count // 10):
        call()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(count - count // 10):
        call()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm", type=int, default=100_000, help="warm calls; 0 for none")
    parser.add_argument("--abandoned", type=int, default=10_000, help="streams; 0 for none")
    arguments = parser.parse_args()
    console, judge = Console(), Judge()
    client = ollama.Client("http://m.test", transport=httpx.MockTransport(_serve))

    def warm() -> None:
        client.chat("m", _MESSAGES, options=_OPTIONS)

    def abandoned() -> None:
        stream = client.chat("m", _MESSAGES, options={"seed": 2}, stream=True)
        next(iter(stream))
        stream.close()  # type: ignore[attr-defined]

    with memoleo.enable("ollama", cache=Cache("memory://", metrics=Metrics())):
        warm()
        measure_speed(judge, console, client, arguments.seconds)
        for name, call, count in (
            ("warm calls", warm, arguments.warm),
            ("abandoned streams", abandoned, arguments.abandoned),
        ):
            if count:
                judge.check(f"{count:,} {name}", growth(call, count), _GROWTH_LIMIT, "KiB")
    console.print(judge.table)
    return 1 if judge.failed else 0


if __name__ == "__main__":
    sys.exit(main())
