"""Quantiles of latencies: of one program, of several merged, and what a second process sees."""

import random
import subprocess
import sys
import tempfile
from pathlib import Path

from memoleo import Cache, get_metrics
from memoleo.metrics import Sketch, read_metrics

READER = """
import sys
from memoleo.metrics import read_metrics
work = read_metrics(sys.argv[1], since="1h")["stats"]["work"]
print(f"another process: {work['count']} calls, p95 {work['p95_ms']:.0f} ms")
"""

# One program records. A quantile is within 1 % of the true one, however many calls there are.
durations = [random.lognormvariate(3, 1) for _ in range(10_000)]
metrics = get_metrics()
with tempfile.TemporaryDirectory() as folder:
    url = f"sqlite:///{Path(folder).as_posix()}/cache.db"
    with Cache(url) as cache:
        cache.set("something", 1)
        for ms in durations:
            metrics.record_latency("work", ms)
        work = read_metrics(cache)["stats"]["work"]
    true = sorted(durations)[int(0.95 * (len(durations) - 1))]
    print(f"p95 {work['p95_ms']:.1f} ms, and exactly {true:.1f} ms")
    assert abs(work["p95_ms"] - true) <= 0.01 * true

    # Everybody else reads what it has written beside the cache.
    subprocess.run([sys.executable, "-c", READER, url], check=True)

# Sketches of several programs, or days, merge without losing that.
monday, tuesday = Sketch(), Sketch()
monday.add(durations[:5_000])
tuesday.add(durations[5_000:])
monday.merge(tuesday)
print(f"merged: p99 {monday.quantile(0.99):.1f} ms of {monday.count} calls")
