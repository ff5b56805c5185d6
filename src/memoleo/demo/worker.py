"""One run over the diary, in a process of its own: ``python -m memoleo.demo.worker …``.

Prints a line of JSON for each call: ``stage``, ``ms``, ``answer``, and by how much memoleo's
``hits``, ``misses``, ``saved_ms`` and ``tokens_saved`` grew.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

__all__ = ["STAGES", "main"]

STAGES = ("emotions", "poem and tips")


def main() -> None:
    """Enrich the diary and print what it took."""
    parser = argparse.ArgumentParser(prog="python -m memoleo.demo.worker")
    parser.add_argument("--host", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--cache", help="the cache's URL; without one, memoleo stays off")
    given = parser.parse_args()

    import ollama

    import memoleo
    from memoleo.demo import diary, enrich

    if given.cache:
        memoleo.enable("ollama", cache=given.cache)

    stages = dict(zip(STAGES, (enrich.score_emotions, enrich.write_poem_and_tips), strict=True))
    before = _totals()
    with ollama.Client(given.host) as client:
        for number in range(given.entries):
            entry = diary.ENTRIES[number % len(diary.ENTRIES)]
            for stage, ask in stages.items():
                started = time.perf_counter()
                answer = ask(client, given.model, entry)
                ms = (time.perf_counter() - started) * 1000
                after = _totals()
                saved = {name: after[name] - before[name] for name in after}
                before = after
                _print({"stage": stage, "ms": ms, **saved, "answer": answer})


def _totals() -> dict[str, float]:
    import memoleo

    types = memoleo.get_metrics().get_stats()["cache"].values()
    return {
        name: sum(counts.get(name, 0) for counts in types)
        for name in ("hits", "misses", "saved_ms", "tokens_saved")
    }


def _print(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


if __name__ == "__main__":
    main()
