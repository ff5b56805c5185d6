"""The pictures of the dashboard in the manual: ``python tests/screenshots.py``.

They show the real page in a real browser, on a cache with an hour of made-up use.
"""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from chromium import browser, serving

from memoleo import Cache, content_cached
from memoleo.metrics import clear_metrics
from memoleo.metrics._ledger import path_beside
from memoleo.metrics._ledger_file import LedgerFile
from memoleo.metrics._spans import Place, minute_of
from memoleo.metrics._totals import OperationTotals, Totals

PICTURES = Path(__file__).parents[1] / "docs" / "images"
MINUTE = 60

# Type → lookups a minute, the share answered at first and at last, ms and tokens of a run.
TYPES = {
    "emotion_scoring": (62, 0.20, 0.94, 900, 160),
    "song_recommendations": (27, 0.35, 0.72, 420, 0),
    "stage2": (18, 0.10, 0.88, 3200, 410),
    "vision": (9, 0.50, 0.56, 5100, 220),
}
# Operation → calls a minute, milliseconds.
OPERATIONS = {
    "stage1.score": (60, 900.0),
    "stage2.enrich": (18, 3200.0),
    "songs.lookup": (27, 420.0),
}


def use(url: str) -> None:
    """Store what the pictures show."""
    rnd = random.Random(7)
    with Cache(url) as cache:

        class HybridScorer:
            @content_cached(type="emotion_scoring", ttl="30d", cache=cache, state=None)
            def score(self, text: str) -> dict[str, float]:
                return {f"label {n}": rnd.random() for n in range(36)}

        class PostEnricher:
            @content_cached(type="stage2", ttl="30d", cache=cache, state=None)
            def enrich(self, text: str) -> str:
                return text * rnd.randint(1, 60)

        @content_cached(type="song_recommendations", ttl="24h", cache=cache)
        def recommend(mood: str) -> list[str]:
            return [f"{mood}, song {n}" for n in range(rnd.randint(5, 40))]

        @content_cached(type="vision", ttl="7d", cache=cache)
        def describe(picture: bytes) -> bytes:
            return rnd.randbytes(rnd.randint(20_000, 1_500_000))

        for number in range(240):
            HybridScorer().score(f"entry {number}")
        for number in range(110):
            PostEnricher().enrich(f"I went for a walk by the river, and it was {number} degrees. ")
        for number in range(60):
            recommend(f"mood {number}")
        for number in range(12):
            describe(bytes([number]))
        clear_metrics(cache)
    minutes = dict(history(rnd))
    path = os.path.abspath(url.removeprefix("sqlite:///"))
    LedgerFile(path_beside(path)).add(minutes, time.time())


def history(rnd: random.Random) -> Iterator[tuple[Place, Totals]]:
    """Yield an hour of use: a cache that gets warm."""
    last = minute_of(time.time()).start
    for number in range(60):
        totals = Totals()
        warm = 1 - math.exp(-number / 14)
        for place, (name, (rate, first, final, ms, tokens)) in enumerate(TYPES.items()):
            swing = 1 + 0.35 * math.sin(number / 9 + place)
            lookups = max(3, round(rnd.gauss(rate * swing, rate * 0.1)))
            share = min(1.0, max(0.0, first + (final - first) * warm + rnd.gauss(0, 0.02)))
            hits = round(lookups * share)
            totals.types[name] = {
                "hits": hits - hits // 25,
                "stale": hits // 25,
                "misses": lookups - hits,
                "errors": int(number == 31 and place == 1),
                "saved_ms": hits * ms,
                "tokens_saved": hits * tokens,
            }
        for name, (rate, ms) in OPERATIONS.items():
            totals.operations[name] = operation = OperationTotals()
            misses = 1 - 0.9 * warm
            operation.succeeded.add(
                [
                    rnd.lognormvariate(math.log(ms), 0.3) if rnd.random() < misses else rnd.random()
                    for _ in range(rate)
                ]
            )
            operation.retries = int(rnd.random() < 0.1)
        yield Place(last - (59 - number) * MINUTE, MINUTE), totals


def main() -> None:
    """Write the pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leo-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        use("sqlite:///leo-cache.db")
        with (
            serving("--cache", "sqlite:///leo-cache.db") as address,
            browser(Path(folder, "profile")) as page,
        ):
            for name, width, height, theme, scale in (
                ("light", 1180, 1020, "light", 1),
                ("dark", 1180, 1020, "dark", 1),
                ("narrow", 390, 844, "light", 2),
            ):
                page.look(width, height, theme, scale)
                page.open(address)
                page.wait("document.querySelector('#live.on') && document.title.includes('%')")
                page.screenshot(PICTURES / f"dashboard-{name}.png")
        os.chdir(PICTURES)


if __name__ == "__main__":
    main()
