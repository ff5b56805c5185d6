"""Metrics beside a cache: written, merged, rolled up, and what becomes of awkward files."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import sqlite3
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from children import started
from hypothesis import given, settings
from hypothesis import strategies as st

from memoleo import Cache, Metrics, content_cached, enable
from memoleo.config import Savings
from memoleo.errors import BackendError, ConfigError
from memoleo.metrics import _ledger_file, _names, clear_metrics, read_metrics, read_savings
from memoleo.metrics._ledger_file import BusyLedger, LedgerFile
from memoleo.metrics._savings import savings_of
from memoleo.metrics._sketch import Sketch
from memoleo.metrics._spans import DAY, HOUR, IN_FILE, MINUTE, Place, minute_of
from memoleo.metrics._totals import OperationTotals, Totals
from memoleo.metrics._when import parse_step, parse_when

GOLDEN = Path(__file__).parent / "data" / "metrics_format1.sqlite"
NOON = 1_795_608_000.0  # 2026-11-25T12:00Z, a Wednesday

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes or limits")


def counted(ms=(), hits=0, **counts) -> Totals:
    totals = Totals()
    if ms:
        sketch = Sketch()
        sketch.add([float(each) for each in ms])
        totals.operations["work"] = OperationTotals(succeeded=sketch, retries=1)
    if hits or counts:
        totals.types["songs"] = {"hits": hits, **counts}
    return totals


def merged(found: list[tuple[Place, Totals]]) -> Totals:
    whole = Totals()
    for _, totals in found:
        whole.merge(totals)
    return whole


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def cache(tmp_path, metrics):
    with Cache(f"sqlite:///{tmp_path}/cache.db", metrics=metrics) as made:
        yield made


def use(cache: Cache, name: str = "square"):
    @content_cached(type="squares", cache=cache)
    def square(number):
        return number * number

    square.__name__ = name
    return square


@pytest.fixture
def few(monkeypatch):
    """Five names are told apart, and nobody has been told so yet."""
    for module in (_names, _ledger_file):
        monkeypatch.setattr(module, "MOST", 5)
    monkeypatch.setattr(_names, "_told", set())
    return 5


THREADS = """
import os, signal, sys, threading
import memoleo

@memoleo.content_cached("squares")
def square(number):
    return number * number

def work():
    for number in range(500):
        square(number % 50)
        memoleo.get_metrics().record_latency("work", 1.0)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""


@posix
def test_terminated_while_only_other_threads_count(tmp_path):
    """SIGTERM loses nothing, though the main thread has only applied the decorator."""
    url = f"sqlite:///{tmp_path}/cache.db"
    environ = {**os.environ, "MEMOLEO_CACHE": url, "MEMOLEO_METRICS__INTERVAL": "1h"}
    with started([sys.executable, "-c", THREADS], env=environ) as child:
        assert child.wait(timeout=60) == -signal.SIGTERM
    stats = read_metrics(url)["stats"]
    assert stats["work"]["count"] == 2000
    assert stats["cache"]["squares"]["lookups"] == 2000


class TestNames:
    """A program may put what varies into names."""

    def test_of_operations(self, cache, metrics, few, caplog):
        """Memory and file stay bounded, the sums are right, and it is said once."""
        for number in range(50):
            metrics.record_latency(f"GET /{number}", 1)
        metrics.record_error("GET /0")
        stats = metrics.get_stats()
        assert set(stats) == {*(f"GET /{number}" for number in range(few)), "other", "cache"}
        assert (stats["other"]["count"], stats["GET /0"]["errors"]) == (50 - few, 1)
        assert read_metrics(cache)["stats"]["other"]["count"] == 50 - few
        [said] = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "tell 5 operations apart" in said.getMessage()
        assert said.memoleo_event == "too_many_names"

    def test_of_types_and_models(self, cache, metrics, few, caplog):
        """The same for types and models; entries keep the types that they were given."""
        for number in range(20):
            cache.calls.tally.of(f"user {number}", f"model {number}").local.cell.hits += 1
            cache.set(f"key {number}", number, type=f"user {number}")
        here = metrics.get_stats()["cache"]
        kept = read_metrics(cache)["stats"]["cache"]
        assert len(here) == len(kept) == few + 1
        assert sum(counts["hits"] for counts in kept.values()) == 20
        assert kept["other"]["hits"] == 20 - few
        assert len(cache.calls.tally._models) <= 2 * few + 1
        assert len(cache.get_stats()["by_type"]) == 20
        assert sum("tell 5" in record.getMessage() for record in caplog.records) == 2

    def test_of_many_programs(self, tmp_path, few):
        """Programs that come one after the other can't fill the file either, at any span."""
        file = LedgerFile(str(tmp_path / "m"))
        for number in range(20):
            totals = Totals()
            totals.types[f"type {number}"] = {"hits": 1}
            totals.models[f"type {number % 2}", f"model {number}"] = {"hits": 1}
            file.add({minute_of(NOON + 60 * (number // 10)): totals}, NOON + 600)
        for now, rows in ((NOON + 600, 4 * (few + 1)), (NOON + 9 * HOUR, 2 * (few + 1))):
            file.add({}, now)
            found = file.read(0, now)
            assert sum(len(totals.types) + len(totals.models) for _, totals in found) <= rows
            whole = merged(found)
            assert sum(counts["hits"] for counts in whole.types.values()) == 20
            assert sum(counts["hits"] for counts in whole.models.values()) == 20
            assert whole.models["other", "other"]["hits"] > 0

    def test_that_no_file_can_hold(self, cache, metrics):
        """A name with half a character doesn't keep the other numbers from being kept."""
        cache.set("key", 1)
        metrics.record_latency("a\ud800", 1)
        metrics.record_latency("b\0<b>\n", 1)
        metrics.flush()
        assert {"a\\ud800", "b\0<b>\n"} <= set(read_metrics(cache)["stats"])


class TestFile:
    @settings(max_examples=40)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 100 * DAY),
                st.lists(st.floats(0.001, 1e6), min_size=1, max_size=5),
                st.integers(0, 9),
            ),
            max_size=12,
        )
    )
    def test_nothing_is_lost_or_doubled(self, tmp_path_factory, events):
        """Whatever is added in whatever order of time, and however it is rolled up, it adds up."""
        file = LedgerFile(str(tmp_path_factory.mktemp("ledger") / "m"))
        expected = Totals()
        for offset, ms, hits in events:
            now = NOON + offset
            file.add({minute_of(now): counted(ms, hits)}, now)
            expected.merge(counted(ms, hits))
        found = merged(file.read(float("-inf"), float("inf")))
        assert found.types == expected.types
        if events:
            work, true = found.operations["work"], expected.operations["work"]
            assert work.succeeded.buckets == true.succeeded.buckets
            assert (work.succeeded.min, work.succeeded.max) == (
                true.succeeded.min,
                true.succeeded.max,
            )
            assert work.succeeded.sum == pytest.approx(true.succeeded.sum)
            assert work.retries == len(events)

    def test_rolled_up(self, tmp_path):
        """Old minutes become hours and old hours days, so that the file stays small."""
        file = LedgerFile(str(tmp_path / "m"))
        for minute in range(0, 4 * DAY, HOUR // 4):
            file.add({minute_of(NOON + minute): counted([1], 1)}, NOON + minute)
        file.add({minute_of(NOON + 100 * DAY): counted([1], 1)}, NOON + 100 * DAY)
        places = [place for place, _ in file.read(float("-inf"), float("inf"))]
        assert [place.span for place in places] == [DAY] * 5 + [MINUTE]
        assert all(place.start % place.span == 0 for place in places)
        assert merged(file.read(float("-inf"), float("inf"))).types["songs"]["hits"] == 4 * 96 + 1

    def test_recent_minutes_stay(self, tmp_path):
        """The last hours are told apart by the minute."""
        file = LedgerFile(str(tmp_path / "m"))
        now = NOON + IN_FILE[MINUTE]
        for minute in range(IN_FILE[MINUTE] // MINUTE):
            file.add({minute_of(NOON + minute * MINUTE): counted(hits=1)}, now)
        assert len(file.read(now - HOUR, now)) == 60

    def test_clock_set_back(self, tmp_path):
        """What was counted before and after a clock is set back is all there."""
        file = LedgerFile(str(tmp_path / "m"))
        for now in (NOON, NOON - 7 * DAY, NOON - 700 * DAY, NOON + 365 * DAY, 0.0, -5.0, 1e300):
            file.add({minute_of(now): counted(hits=1)}, now)
        assert merged(file.read(float("-inf"), float("inf"))).types["songs"]["hits"] == 7

    def test_private(self, tmp_path):
        """Only the owner can read it."""
        file = LedgerFile(str(tmp_path / "new" / "m"))
        file.add({minute_of(NOON): counted(hits=1)}, NOON)
        if os.name == "posix":
            assert os.stat(file.path).st_mode & 0o777 == 0o600

    def test_golden_file(self, tmp_path):
        """A file of format 1 is read, and added to."""
        path = tmp_path / "m"
        shutil.copy(GOLDEN, path)
        file = LedgerFile(str(path))
        found = file.read(float("-inf"), float("inf"))
        assert [place for place, _ in found] == [
            Place(1_795_564_800, DAY),
            Place(1_795_604_400, HOUR),
            Place(1_795_608_000, MINUTE),
        ]
        whole = merged(found)
        work = whole.operations["work"]
        assert (work.succeeded.count, work.succeeded.min, work.succeeded.max) == (6, 0.0, 250.5)
        assert work.succeeded.quantile(0.5) == pytest.approx(20, rel=0.01)
        assert (work.failed.count, work.untimed_errors, work.cancelled, work.retries) == (
            1,
            2,
            3,
            4,
        )
        assert whole.types == {"songs": {"hits": 7, "misses": 3, "saved_ms": 12.5}}
        assert whole.models == {("chat", "phi3:latest"): {"hits": 2, "tokens_saved": 90}}
        file.add({minute_of(NOON): counted(hits=1)}, NOON)
        assert merged(file.read(float("-inf"), float("inf"))).types["songs"]["hits"] == 8

    def test_of_a_later_version(self, tmp_path):
        """A file of a later format is refused and left as it is."""
        file = LedgerFile(str(tmp_path / "m"))
        file.add({minute_of(NOON): counted(hits=1)}, NOON)
        with sqlite3.connect(file.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        for action in (
            lambda: file.add({minute_of(NOON): counted(hits=1)}, NOON),
            lambda: file.read(0, NOON),
        ):
            with pytest.raises(BackendError, match="format 99"):
                action()

    def test_of_another_program(self, tmp_path):
        """Somebody else's database is left alone."""
        path = tmp_path / "m"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (text)")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(BackendError, match="another program"):
            LedgerFile(str(path)).add({minute_of(NOON): counted(hits=1)}, NOON)
        assert path.read_bytes() == before

    def test_a_bad_row_hides_no_others(self, tmp_path):
        """A row that can't be read is passed over, and can be added to again."""
        file = LedgerFile(str(tmp_path / "m"))
        file.add({minute_of(NOON): counted([5.0], 1)}, NOON)
        with sqlite3.connect(file.path) as connection:
            connection.execute("UPDATE totals SET block = x'c1' WHERE kind = 'type'")
        connection.close()
        assert merged(file.read(0, 2 * NOON)).operations["work"].succeeded.count == 1
        file.add({minute_of(NOON): counted([5.0], 4)}, NOON)
        assert merged(file.read(0, 2 * NOON)).types["songs"]["hits"] == 4

    def test_locked(self, tmp_path):
        """While another holds the lock nothing is written, and nothing is written by half."""
        file = LedgerFile(str(tmp_path / "m"))
        file.add({minute_of(NOON): counted(hits=1)}, NOON)
        other = sqlite3.connect(file.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyLedger):
            file.add({minute_of(NOON): counted(hits=1)}, NOON)
        other.execute("ROLLBACK")
        other.close()
        assert merged(file.read(0, 2 * NOON)).types["songs"]["hits"] == 1


class TestKept:
    def test_shapes(self, cache, metrics):
        """What is read has the shape of get_stats, with series and savings that add up to it."""
        square = use(cache)
        square(3), square(3), square(4)
        metrics.record_latency("work", 5.0)
        metrics.record_error("work", 9.0)
        found = read_metrics(cache, step="minute")
        assert found["stats"] == metrics.get_stats()
        assert found["savings"]["total"]["runs"] == 1
        (part,) = found["series"]
        assert (part["span"], part["start"] % 60) == (60, 0)
        assert part["stats"] == found["stats"]
        assert part["savings"] == found["savings"]
        assert (found["since"], found["until"]) == (None, None)
        assert found["last"] - found["first"] == 60

    def test_by_url(self, tmp_path, cache, metrics):
        """A URL tells as much as the cache, in the same process too, before and after a flush."""
        use(cache)(3)
        url = f"sqlite:///{tmp_path}/cache.db"
        metrics.record_latency("work", 5.0)
        assert read_metrics(url)["stats"]["cache"]["squares"]["misses"] == 1
        assert not (tmp_path / "cache.db.metrics").exists()
        metrics.flush()
        assert (tmp_path / "cache.db.metrics").exists()
        assert read_metrics(url)["stats"] == read_metrics(cache)["stats"] == metrics.get_stats()

    def test_counts_of_two_caches_stay_apart(self, tmp_path, metrics):
        """Each cache has the hits of its own, and the operations of the process."""
        caches = [Cache(f"sqlite:///{tmp_path}/{name}.db", metrics=metrics) for name in "ab"]
        for times, each in enumerate(caches, start=1):
            square = use(each)
            for number in range(times):
                square(number)
        metrics.record_latency("work", 5.0)
        for times, each in enumerate(caches, start=1):
            each.close()
            stats = read_metrics(each)["stats"]
            assert stats["cache"]["squares"]["misses"] == times
            assert stats["work"]["count"] == 1
        assert metrics.get_stats()["cache"]["squares"]["misses"] == 3

    def test_reset_leaves_what_is_kept(self, cache, metrics):
        """A reset forgets the process's own numbers; none of them is missing in the file."""
        use(cache)(3)
        metrics.record_latency("work", 5.0)
        metrics.record_error("work")
        metrics.reset()
        assert metrics.get_stats() == {"cache": {}}
        metrics.record_latency("work", 7.0)
        assert metrics.get_stats()["work"]["count"] == 1
        stats = read_metrics(cache)["stats"]
        assert (stats["work"]["count"], stats["work"]["errors"]) == (2, 1)
        assert stats["cache"]["squares"]["misses"] == 1

    def test_clear_metrics(self, tmp_path, cache, metrics):
        """Clearing forgets what is kept, and what was about to be; the process's own stays."""
        use(cache)(3)
        metrics.flush()
        use(cache)(4)
        clear_metrics(f"sqlite:///{tmp_path}/cache.db")
        assert read_metrics(cache)["stats"] == {"cache": {}}
        assert metrics.get_stats()["cache"]["squares"]["misses"] == 2
        use(cache)(5)
        assert read_metrics(cache)["stats"]["cache"]["squares"]["misses"] == 1

    def test_a_cache_that_is_gone(self, tmp_path, metrics):
        """What a cache counted is kept although nobody closed it."""
        url = f"sqlite:///{tmp_path}/cache.db"
        use(Cache(url, metrics=metrics))(3)
        import gc

        gc.collect()
        metrics.flush()
        assert metrics._ledgers == []
        assert read_metrics(url)["stats"]["cache"]["squares"]["misses"] == 1

    def test_memory(self, metrics):
        """A cache in memory has the same numbers and series, for this process only."""
        cache = Cache("memory://", metrics=metrics)
        square = use(cache)
        square(3), square(3)
        found = read_metrics(cache, since="1h", step="minute")
        assert found["stats"]["cache"]["squares"]["hits"] == 1
        assert len(found["series"]) == 1

    def test_since_and_until(self, cache, metrics, monkeypatch):
        """The last hour, today and ever are told apart."""
        square = use(cache)
        start = NOON
        for hours in (100, 30, 2, 0.5, 0):
            monkeypatch.setattr(time, "time", lambda at=start - hours * HOUR: at)
            square(hours)
            metrics.flush()
        cases = [("1h", 2), ("today", 3), ("week", 4), (None, 5), (timedelta(hours=3), 3)]
        for since, expected in cases:
            stats = read_metrics(cache, since=since)["stats"]["cache"]
            assert stats["squares"]["misses"] == expected, since
        until = read_metrics(cache, since="ever", until="1h")["stats"]["cache"]
        assert until["squares"]["misses"] == 3
        series = read_metrics(cache, since="week", step="hour")["series"]
        assert [part["start"] for part in series] == sorted({part["start"] for part in series})
        assert sum(part["stats"]["cache"]["squares"]["misses"] for part in series) == 4
        assert read_savings(cache)["ever"]["total"]["runs"] == 0

    @posix
    @pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder(self, tmp_path, metrics, caplog):
        """Where nothing can be written, calls go on, and it is said once."""
        with Cache(f"sqlite:///{tmp_path}/cache.db", metrics=metrics) as cache:
            use(cache)(3)
            tmp_path.chmod(0o500)
            try:
                for _ in range(3):
                    metrics.flush()
            finally:
                tmp_path.chmod(0o700)
            assert [r.memoleo_event for r in caplog.records].count("failing") == 1
            metrics.flush()
        assert read_metrics(cache)["stats"]["cache"]["squares"]["misses"] == 1

    def test_not_writable(self, tmp_path, cache, metrics, caplog):
        """What stands in the way is said once, nothing is lost, and it goes on when it is gone."""
        square = use(cache)
        square(3)
        (tmp_path / "cache.db.metrics").mkdir()
        with caplog.at_level(logging.WARNING, "memoleo"):
            for number in range(3):
                square(number)
                metrics.flush()
        assert len(caplog.records) == 1
        (tmp_path / "cache.db.metrics").rmdir()
        metrics.flush()
        found = read_metrics(f"sqlite:///{tmp_path}/cache.db")
        assert found["stats"]["cache"]["squares"]["lookups"] == 4

    def test_busy_is_no_failure(self, tmp_path, cache, metrics, caplog):
        """While another process writes, numbers wait in silence."""
        square = use(cache)
        square(3)
        metrics.flush()
        other = sqlite3.connect(tmp_path / "cache.db.metrics", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        square(4)
        with caplog.at_level(logging.INFO, "memoleo"):
            metrics.flush(0.0)
        other.execute("ROLLBACK")
        other.close()
        assert caplog.records == []
        metrics.flush()
        with sqlite3.connect(tmp_path / "cache.db.metrics") as connection:
            kinds = connection.execute("SELECT count(*) FROM totals").fetchone()
        connection.close()
        assert kinds[0] >= 1
        assert read_metrics(cache)["stats"]["cache"]["squares"]["misses"] == 2

    def test_deleted(self, tmp_path, cache, metrics):
        """A deleted metrics file is started anew with what comes next."""
        square = use(cache)
        square(3)
        metrics.flush()
        for path in tmp_path.glob("*.metrics*"):
            path.unlink()
        square(4)
        metrics.flush()
        assert read_metrics(cache)["stats"]["cache"]["squares"]["misses"] == 1

    def test_folder_deleted(self, tmp_path, metrics):
        """A cache whose folder is gone leaves no metrics behind, and no folder."""
        folder = tmp_path / "gone"
        cache = Cache(f"sqlite:///{folder}/cache.db", metrics=metrics)
        use(cache)(3)
        cache.backend.close()
        shutil.rmtree(folder)
        cache.close()
        assert not folder.exists()

    def test_damaged(self, tmp_path, cache, metrics, caplog):
        """A damaged file is put aside, and a new one is started."""
        square = use(cache)
        square(3)
        metrics.flush()
        path = tmp_path / "cache.db.metrics"
        path.write_bytes(b"nonsense" * 1000)
        square(4)
        metrics.flush()
        assert read_metrics(cache)["stats"]["cache"]["squares"]["misses"] == 1
        assert list(tmp_path.glob("cache.db.metrics.corrupt-*"))
        assert len(caplog.records) == 1

    @posix
    def test_full_disk(self, tmp_path, cache, metrics):
        """Without room nothing is written by half, and everything later."""
        import resource

        square = use(cache)
        square(3)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            metrics.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        metrics._ledgers[0]._spell.worked()
        metrics.flush()
        assert read_metrics(cache)["stats"]["cache"]["squares"]["misses"] == 1
        with sqlite3.connect(tmp_path / "cache.db.metrics") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()

    def test_nothing_is_written_for_nothing(self, tmp_path, cache, metrics):
        """Without anything new, a flush touches no file."""
        use(cache)(3)
        metrics.flush()
        path = tmp_path / "cache.db.metrics"
        path.unlink()
        metrics.flush()
        assert not path.exists()

    def test_what_is_no_cache(self):
        """An argument that is no cache, and a URL that is none, are refused."""
        for wrong in (3, object(), "postgres://x"):
            with pytest.raises(ConfigError):
                read_metrics(wrong)


class TestWhen:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (12.5, 12.5),
            ("1h", NOON - HOUR),
            ("90s", NOON - 90),
            (timedelta(days=2), NOON - 2 * DAY),
            (datetime(2026, 11, 25, 13, tzinfo=timezone(timedelta(hours=1))), NOON),
            ("2026-11-25", NOON - 12 * HOUR),
            ("2026-11-25T12:00:00Z", NOON),
            ("2026-11-25T13:00+01:00", NOON),
            ("today", NOON - 12 * HOUR),
            ("Yesterday", NOON - 36 * HOUR),
            ("week", NOON - 60 * HOUR),
            ("month", NOON - 24 * DAY - 12 * HOUR),
        ],
    )
    def test_times(self, value, expected):
        """Times may be given in any of the documented forms, and all of them mean UTC."""
        assert parse_when(value, NOON, "since") == expected

    @pytest.mark.parametrize(
        "value", ["", "soon", "1y", True, None, float("nan"), [], "2026-13-01"]
    )
    def test_what_is_no_time(self, value):
        """What is no time is refused, with the forms that are known."""
        with pytest.raises(ConfigError, match="since="):
            parse_when(value, NOON, "since")

    def test_weeks_begin_on_monday(self):
        """Every hour of a week has the same Monday before it, and midnight is of the new day."""
        monday = NOON - 60 * HOUR
        for hour in range(7 * 24):
            assert parse_when("week", monday + hour * HOUR, "since") == monday
        assert parse_when("week", monday - 1, "since") == monday - 7 * DAY
        assert parse_when("today", monday, "since") == monday

    def test_summer_time_changes_nothing(self, monkeypatch):
        """A day has 24 hours on the day that clocks are changed, too."""
        if not hasattr(time, "tzset"):
            pytest.skip("this system can't change its zone")
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        try:
            change = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc).timestamp()
            starts = {minute_of(change + minute * 60).start for minute in range(180)}
            assert len(starts) == 180
            assert parse_when("today", change, "since") == change - 1800
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.parametrize(
        ("value", "expected"),
        [("minute", 60), ("hour", 3600), ("day", 86400), (300, 300), ("15m", 900)],
    )
    def test_steps(self, value, expected):
        """A step has a name, or is a whole number of minutes."""
        assert parse_step(value) == expected

    @pytest.mark.parametrize("value", ["", "second", 0, 59, 90, -60, True, "forever", 1.5])
    def test_what_is_no_step(self, value):
        """Other steps are refused."""
        with pytest.raises(ConfigError, match="step="):
            parse_step(value)


class TestSavings:
    def test_without_prices(self):
        """Time, tokens and runs are counted; what has no price has no amount."""
        totals = counted(hits=3, shared=2, stale=1, saved_ms=7_200_000.0, tokens_saved=500)
        saved = savings_of(totals, Savings())
        assert saved["total"] == {
            "runs": 6,
            "runs_shared": 2,
            "ms": 7_200_000.0,
            "tokens": 500,
            "kwh": None,
            "money": None,
        }
        assert saved["types"]["songs"] == saved["total"]

    def test_time_and_energy(self):
        """An hour has a price, and so has the energy that it takes."""
        totals = counted(hits=1, saved_ms=7_200_000.0)
        prices = Savings(currency="EUR", compute_per_hour=0.5, watts=250.0, price_per_kwh=0.4)
        total = savings_of(totals, prices)["total"]
        assert total["kwh"] == pytest.approx(0.5)
        assert total["money"] == pytest.approx(2 * 0.5 + 0.5 * 0.4)

    def test_tokens_by_model(self):
        """Tokens cost what their model costs; those of no model, what their type costs."""
        totals = Totals()
        totals.types["chat"] = {"hits": 5, "tokens_saved": 3_000_000}
        totals.models["chat", "phi3:latest"] = {"hits": 2, "tokens_saved": 1_000_000}
        totals.models["chat", "llama3:8b"] = {"hits": 1, "tokens_saved": 1_000_000}
        prices = Savings(tokens={"phi3*": 1.0, "phi*": 50.0, "chat": 10.0})
        assert savings_of(totals, prices)["total"]["money"] == pytest.approx(1.0 + 10.0 + 10.0)
        assert savings_of(totals, Savings(tokens={"gpt*": 1.0}))["total"]["money"] is None

    def test_tokens_of_a_patched_client(self, tmp_path, monkeypatch):
        """A hit of a model saves what its tokens cost, in this process and in the file."""
        import ollama
        from scripted_ollama import ScriptedOllama

        config = tmp_path / "memoleo.toml"
        config.write_text(
            '[savings]\ncurrency = "EUR"\n[savings.tokens]\n"m:*" = 2_000_000\n"other" = 1\n'
        )
        url = f"sqlite:///{tmp_path}/cache.db"
        with (
            ScriptedOllama() as server,
            Cache(url, metrics=Metrics()) as cache,
            enable("ollama", cache=cache, config=config),
        ):
            client = ollama.Client(host=server.url)
            for _ in range(3):
                client.chat("m", [{"role": "user", "content": "hi"}], options={"seed": 1})
            client._client.close()
            cache.metrics.flush()
            saved = read_savings(url)["today"]
        chat = saved["types"]["ollama.chat"]
        assert chat["runs"] == 2
        assert chat["tokens"] > 0
        assert chat["money"] == pytest.approx(2.0 * chat["tokens"])
        assert saved["currency"] == "EUR"

    def test_types_add_up(self):
        """The total is the sum of the types."""
        totals = Totals()
        for name, ms in zip("abc", itertools.count(1000.0, 500.0)):
            totals.types[name] = {"hits": 1, "saved_ms": ms}
        saved = savings_of(totals, Savings(compute_per_hour=1.0))
        for key in ("runs", "ms", "money"):
            parts = sum(each[key] for each in saved["types"].values())
            assert saved["total"][key] == pytest.approx(parts)
