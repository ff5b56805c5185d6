"""Latencies, errors and counters: exact counts, quantiles within their stated error."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from math import floor, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoleo.errors import ConfigError
from memoleo.metrics import CacheCounters, Metrics, Sketch, get_metrics
from memoleo.metrics._recorder import Recorder
from memoleo.metrics._sketch import LARGEST, RELATIVE_ERROR, SMALLEST

QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0)


def assert_quantiles(sketch: Sketch, values: list[float]) -> None:
    ordered = sorted(values)
    for q in QUANTILES:
        true = ordered[floor(q * (len(ordered) - 1))]
        assert abs(sketch.quantile(q) - true) <= true * RELATIVE_ERROR * (1 + 1e-9)


class TestSketch:
    @given(st.lists(st.floats(SMALLEST, LARGEST), min_size=1, max_size=300))
    def test_error(self, values):
        """Whatever the values are, each quantile is within 1 % of the true one."""
        sketch = Sketch()
        sketch.add(values)
        assert_quantiles(sketch, values)

    def test_long_tail(self):
        """A million-to-one spread keeps the 99th percentile within 1 %, and the sums exact."""
        source = random.Random(7)
        values = [source.lognormvariate(3, 3) for _ in range(20_000)]
        sketch = Sketch()
        sketch.add(values)
        assert_quantiles(sketch, values)
        assert (sketch.count, sketch.min, sketch.max) == (20_000, min(values), max(values))
        assert sketch.mean == pytest.approx(sum(values) / 20_000)

    @given(st.lists(st.floats(0, 1e6), max_size=100), st.lists(st.floats(0, 1e6), max_size=100))
    def test_merge(self, left, right):
        """Two merged sketches say the same as one that saw everything."""
        merged, other, whole = Sketch(), Sketch(), Sketch()
        merged.add(left)
        other.add(right)
        merged.merge(other)
        whole.add(left + right)
        assert merged.count == whole.count
        assert merged.quantiles(QUANTILES) == whole.quantiles(QUANTILES)
        assert merged.sum == pytest.approx(whole.sum)

    def test_bounded(self):
        """The number of buckets has a limit that no value gets past."""
        sketch = Sketch()
        for exponent in range(-320, 309):
            sketch.add([10.0**exponent, 3 * 10.0 ** (exponent - 1)])
        sketch.add([SMALLEST * 1.019**step for step in range(2000)])
        assert len(sketch.buckets) <= 1844

    def test_odd_values(self):
        """Zero, a clock set back, NaN and infinity are counted and break nothing."""
        sketch = Sketch()
        sketch.add([0.0, -3.0, nan, 5.0])
        sketch.add([inf])
        assert sketch.count == 5
        assert sketch.min == 0.0
        assert sketch.max == inf
        assert sketch.quantile(0.5) == 0.0

    def test_empty(self):
        """Without values every number is 0."""
        sketch = Sketch()
        sketch.add([])
        assert (sketch.count, sketch.mean, sketch.max, sketch.quantile(0.5)) == (0, 0.0, 0.0, 0.0)


@pytest.fixture
def switching():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
class TestThreads:
    def test_latencies(self):
        """No latency is lost or counted twice while 8 threads record and one reads."""
        metrics = Metrics()
        done = threading.Event()

        def read():
            while not done.is_set():
                metrics.get_stats()

        def write(_):
            for _ in range(3000):
                metrics.record_latency("work", 2.0)
                metrics.record_error("work", 4.0)

        reader = threading.Thread(target=read)
        reader.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        done.set()
        reader.join()
        stats = metrics.get_stats()["work"]
        assert (stats["count"], stats["errors"]) == (24_000, 24_000)
        assert (stats["avg_ms"], stats["error_avg_ms"]) == (2.0, 4.0)

    def test_counters(self):
        """No count is lost while threads count, end, and are counted anew."""
        counters = CacheCounters()

        def work():
            for _ in range(500):
                cell = counters.local.cell
                cell.hits += 1
                cell.saved_ms += 0.5

        for _ in range(10):
            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            counters.snapshot()
            for thread in threads:
                thread.join()
        counts = counters.snapshot()
        assert (counts["hits"], counts["saved_ms"]) == (30_000, 15_000.0)

    def test_ended_threads_leave_no_cells(self):
        """A program that starts a thread per request doesn't collect a cell for each."""
        counters = CacheCounters()
        for _ in range(50):
            thread = threading.Thread(target=lambda: counters.local.cell)
            thread.start()
            thread.join()
        counters.snapshot()
        assert len(counters._cells) == 1

    def test_reset_while_counting(self):
        """A reset in the middle of counting leaves nothing behind that a later one can't clear."""
        counters = CacheCounters()

        def work():
            for _ in range(20_000):
                counters.local.cell.misses += 1

        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            counters.reset()
        thread.join()
        counters.reset()
        assert counters.snapshot()["misses"] == 0
        counters.local.cell.misses += 3
        assert counters.snapshot()["misses"] == 3


class TestCounters:
    def test_hit_rate(self):
        """The hit rate is the percentage of lookups answered without a run of their own."""
        counters = CacheCounters()
        cell = counters.local.cell
        cell.hits, cell.stale, cell.shared, cell.misses, cell.stale_if_error = 5, 2, 1, 2, 1
        summary = counters.summary()
        assert summary["lookups"] == 10
        assert summary["hit_rate"] == 80.0

    def test_saved_less_the_hits(self):
        """What the hits themselves took is no saving, and hits can't save less than nothing."""
        counters = CacheCounters()
        child = counters.child()
        child.local.cell.hits += 10
        child.local.cell.saved_ms += 100.0
        child.pace.ms = 0.5
        for each in (counters, child):
            assert (each.summary()["hit_ms"], each.summary()["saved_ms"]) == (5.0, 95.0)
        child.pace.ms = 50.0
        assert counters.summary()["saved_ms"] == 0.0

    def test_types(self):
        """Counts are ints and times are floats, so that JSON shows them as such."""
        counts = CacheCounters().snapshot()
        assert {type(value) for name, value in counts.items() if name.endswith("_ms")} == {float}
        assert {type(v) for name, v in counts.items() if not name.endswith("_ms")} == {int}

    def test_child(self):
        """What a function counts, its type counts too; clearing the function leaves the type."""
        parent = CacheCounters()
        one, two = parent.child(), parent.child()
        one.local.cell.hits += 3
        two.local.cell.hits += 4
        parent.local.cell.hits += 1
        one.reset()
        assert [each.snapshot()["hits"] for each in (one, two, parent)] == [0, 4, 8]
        parent.reset()
        two.local.cell.hits += 1
        assert [each.snapshot()["hits"] for each in (two, parent)] == [5, 1]

    def test_child_that_is_gone(self):
        """The counts of a function that is garbage stay with its type."""
        import gc

        parent = CacheCounters()
        child = parent.child()
        child.local.cell.hits += 3
        del child
        gc.collect()
        assert parent.snapshot()["hits"] == 3
        assert len(parent._cells) == 1


class TestMetrics:
    def test_shape(self):
        """`get_stats` has the documented keys, and "cache" is always there."""
        metrics = Metrics()
        assert metrics.get_stats() == {"cache": {}}
        metrics.record_latency("score", 10)
        metrics.record_error("score")
        metrics.cache("emotions").local.cell.hits += 1
        stats = metrics.get_stats()
        assert list(stats) == ["score", "cache"]
        assert list(stats["score"]) == [
            *("count", "errors", "p50_ms", "p95_ms", "p99_ms", "avg_ms", "max_ms"),
            *("error_p50_ms", "error_avg_ms", "error_max_ms", "cancelled", "retries"),
        ]
        assert {"hits", "misses", "hit_rate", "stale", "errors", "saved_ms"} <= set(
            stats["cache"]["emotions"]
        )

    def test_failures_apart(self):
        """Latencies of failures don't enter the quantiles of successes."""
        metrics = Metrics()
        metrics.record_latency("score", 10)
        metrics.record_error("score", 5000)
        metrics.record_error("score")
        stats = metrics.get_stats()["score"]
        assert (stats["count"], stats["errors"], stats["max_ms"]) == (1, 2, 10.0)
        assert (stats["error_avg_ms"], stats["error_max_ms"]) == (5000.0, 5000.0)

    def test_reset(self):
        """After a reset everything counts from zero, in objects that were handed out before."""
        metrics = Metrics()
        operation, counters = metrics.operation("score"), metrics.cache("emotions")
        metrics.record_latency("score", 10)
        metrics.record_retry("score")
        counters.local.cell.hits += 1
        metrics.reset()
        assert metrics.get_stats() == {"cache": {}}
        operation.succeeded.record(1.0)
        counters.local.cell.hits += 1
        stats = metrics.get_stats()
        assert stats["score"]["count"] == stats["cache"]["emotions"]["hits"] == 1

    @pytest.mark.parametrize("name", ["cache", "", None, 3])
    def test_bad_name(self, name):
        """A reserved name, and what is no name, are refused."""
        metrics = Metrics()
        with pytest.raises(ConfigError):
            metrics.record_latency(name, 1.0)
        with pytest.raises(ConfigError):
            metrics.record_error(name)

    @pytest.mark.parametrize("ms", [-1, nan, inf, "3", None])
    def test_bad_duration(self, ms):
        """What is no duration is refused before it spoils a mean."""
        with pytest.raises(ConfigError, match="ms="):
            Metrics().record_latency("score", ms)

    def test_default(self):
        """There is one default, and it is the same for everybody."""
        assert get_metrics() is get_metrics()
        assert isinstance(get_metrics(), Metrics)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestFork:
    def in_child(self, check) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if check() else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_child_counts_from_zero(self):
        """A child reports what happened in itself, so that processes can be added up."""
        metrics = Metrics()
        metrics.record_latency("score", 1)
        child = metrics.cache("emotions").child()
        child.local.cell.hits += 1

        def check():
            fresh = metrics.get_stats() == {"cache": {}} and not child.snapshot()["hits"]
            child.local.cell.hits += 5
            metrics.record_latency("score", 2)
            stats = metrics.get_stats()
            return (
                fresh and stats["score"]["count"] == 1 and stats["cache"]["emotions"]["hits"] == 5
            )

        assert self.in_child(check) == 0
        assert metrics.get_stats()["score"]["count"] == 1

    def test_locks_held_elsewhere(self):
        """A fork while another thread holds the locks leaves none of them locked in the child."""
        metrics = Metrics()
        metrics.record_latency("score", 1)
        held, release = threading.Event(), threading.Event()
        operation, counters = metrics.operation("score"), metrics.cache("emotions")

        def hold():
            with operation._lock, operation.succeeded._lock, counters._lock:
                held.set()
                release.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)

        def check():
            signal.alarm(20)
            metrics.record_latency("score", 2)
            return metrics.get_stats()["score"]["count"] == 1

        try:
            assert self.in_child(check) == 0
        finally:
            release.set()
            thread.join()


def test_read_while_folding():
    """A signal handler that reads while its thread is folding neither hangs nor counts twice."""
    recorder = Recorder()
    seen = []

    class Duration(float):
        def __gt__(self, other):
            if not seen:
                seen.append(None)
                recorder.record(2.0)
                seen.append(recorder.sketch().count)
            return float.__gt__(self, other)

        __lt__ = __gt__

    recorder.record(0.5)
    recorder.record(Duration(1.0))
    recorder.record(Duration(3.0))
    assert recorder.sketch().count == 3
    assert recorder.sketch().count == 4
    assert seen == [None, 1]


def test_record_while_folding():
    """A value that another thread records just while a batch is taken is not lost."""

    class Pending(list):
        def __getitem__(self, place):
            batch = super().__getitem__(place)
            if not late:
                late.append(True)
                self.append(5.0)
            return batch

    late = []
    recorder = Recorder()
    recorder._pending = Pending([1.0])
    assert [recorder.sketch().count, recorder.sketch().count] == [1, 2]
