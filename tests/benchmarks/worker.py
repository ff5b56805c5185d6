"""A worker end to end: per stage cold and warm, throughput, and memoleo's share of a warm entry.

The worker is the one of ``examples/leo``; a small real model answers for Ollama, the router is a
stand-in that takes as long as a hosted one. Exit status 1 if a figure is over its limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from leo_worker import CONFIG, LEO, arguments, environment, stand_ins

from memoleo.demo.diary import ENTRIES

ROUTER_SECONDS = 0.12
"""What a call of a hosted inference router is taken to last."""

_WARM_ROUNDS = 10
"""How many times as long the stream is where every text has been seen."""

_WARM_LIMIT, _SHARE_LIMIT = 900.0, 3.0

STAGES = """
import contextlib, json, os, sys
sys.path.insert(0, {leo!r})
import memoleo
from memoleo.leo import enable_caching_for_worker
classes = enable_caching_for_worker(config={config!r})
scorer, enricher = classes["HybridScorer"](), classes["PostEnricher"]()
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    for number, text in enumerate(json.loads(sys.argv[1])):
        with memoleo.timer("entry"):
            enricher.run_post_enrichment(scorer.enrich(text, timestamp=number))
stats = memoleo.get_metrics().get_stats()
print(json.dumps({{name: stats[name] for name in ("stage1", "stage2", "entry")}}))
"""

SHARE = """
import contextlib, json, os, sys, time
sys.path.insert(0, {leo!r})
import memoleo, requests
from src.modules.hybrid_scorer import HybridScorer
from src.modules.post_enricher import PostEnricher
text = "I slept badly and missed the deadline."

def entry():
    PostEnricher().run_post_enrichment(HybridScorer().enrich(text, timestamp=1))

def best(rounds=100):
    found = []
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for _ in range(rounds):
            started = time.perf_counter()
            entry()
            found.append((time.perf_counter() - started) * 1000)
    return min(found)

plain = best(20)
with memoleo.enable(config={config!r}):
    cached = best()
answers = {{}}
post, request = requests.post, requests.request
def remembered(original):
    def call(*args, **kwargs):
        kept = args + (repr(kwargs.get("json") or kwargs.get("data")),)
        if kept not in answers:
            answers[kept] = original(*args, **kwargs)
        return answers[kept]
    return call
requests.post, requests.request = remembered(post), remembered(request)
floor = best()
print(json.dumps({{"plain": plain, "cached": cached, "floor": floor}}))
"""


class Judge:
    """Collects figures and says which are over their limits."""

    def __init__(self) -> None:
        self.table = Table("figure", "measured", "limit", title="Limits")
        self.failed = False

    def check(self, name: str, measured: float, limit: float) -> None:
        ok = measured <= limit
        self.failed |= not ok
        colour = "green" if ok else "bold red"
        self.table.add_row(name, f"[{colour}]{measured:,.2f} ms[/]", f"{limit:,.0f} ms")


def script(source: str, environ: dict[str, str], *args: str) -> dict[str, Any]:
    """Run a script in a fresh process, and return the JSON that it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", source.format(leo=str(LEO), config=str(CONFIG)), *args],
        env=environ,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@contextmanager
def folders() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def texts(count: int, distinct: int) -> list[str]:
    """Return entries of which some come again, as in a diary."""
    tidy = list(dict.fromkeys(" ".join(entry.split()) for entry in ENTRIES))
    return [tidy[number % distinct] for number in range(count)]


def measure_share(services: Any, judge: Judge, console: Console) -> None:
    with folders() as folder:
        found = script(SHARE, environment(folder, services.environment))
    console.print(
        f"An entry of 12 calls with nothing behind them: {found['plain']:.1f} ms over loopback, "
        f"{found['cached']:.1f} ms warm, {found['floor']:.1f} ms with a dict in place of requests."
    )
    share = found["cached"] - found["floor"]
    judge.check("memoleo's share of a warm entry", share, _SHARE_LIMIT)


def measure_stages(
    services: Any, where: dict[str, str], entries: int, judge: Judge, console: Console
) -> None:
    table = Table("", "stage", "p50 ms", "p95 ms", title=f"{entries} entries, one worker")
    with folders() as folder:
        environ = environment(folder, services.environment, where)
        given = json.dumps(texts(entries, entries))
        runs = {
            "without memoleo": script(STAGES, {**environ, "MEMOLEO_ENABLED": "0"}, given),
            "cold": script(STAGES, environ, given),
            "warm, a new process": script(STAGES, environ, given),
        }
    for name, stats in runs.items():
        for stage, row in stats.items():
            table.add_row(name, stage, f"{row['p50_ms']:,.1f}", f"{row['p95_ms']:,.1f}")
    console.print(table)
    judge.check("warm entry, p95", runs["warm, a new process"]["entry"]["p95_ms"], _WARM_LIMIT)


def measure_throughput(
    services: Any, where: dict[str, str], entries: int, workers: list[int], console: Console
) -> None:
    distinct = max(1, entries * 3 // 10)
    table = Table(
        "workers",
        "without",
        "cold",
        "times",
        "warm",
        "times",
        title=f"entries a minute: {entries} entries of {distinct} texts",
    )
    for count in workers:
        given = texts(entries, distinct)
        with folders() as folder:
            environ = environment(folder, services.environment, where)
            rates = [
                _rate(services, environ, folder, way, count, stream)
                for way, stream in (("plain", given), ("run", given), ("run", given * _WARM_ROUNDS))
            ]
        cells = [f"{rates[0]:,.1f}"]
        for rate in rates[1:]:
            cells += [f"{rate:,.1f}", f"{rate / rates[0]:,.1f}"]
        table.add_row(str(count), *cells)
    console.print(table)


def _rate(
    services: Any, environ: dict[str, str], folder: Path, way: str, count: int, given: list[str]
) -> float:
    """Return how many entries a minute some worker processes get done that are running already."""
    services.asked["redis"] = 0
    running = [
        subprocess.Popen(
            arguments(way, "--poll", "0.02"), cwd=folder, env=environ, stdout=subprocess.DEVNULL
        )
        for _ in range(count)
    ]
    try:
        while services.asked["redis"] < count * 3:
            time.sleep(0.02)
        started = time.perf_counter()
        services.queue(given)
        while len(services.lists.get("results", ())) < len(given):
            time.sleep(0.002)
        return len(given) / (time.perf_counter() - started) * 60
    finally:
        for each in running:
            each.terminate()
            each.wait()
        services.results()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10, help="per measurement")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--only-share", action="store_true", help="without a model")
    given = parser.parse_args()
    console, judge = Console(), Judge()
    with stand_ins().StandIns() as services:
        measure_share(services, judge, console)
        if not given.only_share:
            from memoleo.testing import LocalOllama

            services.delay["router"] = ROUTER_SECONDS
            with LocalOllama() as model:
                where = {"OLLAMA_BASE_URL": model.url, "OLLAMA_MODEL": model.model}
                measure_stages(services, where, given.entries, judge, console)
                measure_throughput(services, where, given.entries, given.workers, console)
    console.print(judge.table)
    return 1 if judge.failed else 0


if __name__ == "__main__":
    sys.exit(main())
