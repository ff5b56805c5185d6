"""The budget of retries: what a host gets, and that 10,000 calls keep to it exactly."""

from __future__ import annotations

import asyncio
import random
import threading

import httpx
import pytest

from memoleo._retries.budget import RetryBudget
from memoleo._retries.retried import retried
from memoleo.config import Networking, _settings
from memoleo.http import AsyncNetworkClient, Breakers
from memoleo.testing import FakeClock, no_waiting

BURST = Networking().retry_budget
PER_SECOND = Networking().retry_budget_per_second


def broken(host):
    return httpx.ConnectError("down", request=httpx.Request("GET", f"https://{host}/songs"))


def test_a_bucket_empties_and_fills():
    """Each retry takes a token; time brings them back, never more than the bucket holds."""
    budget = RetryBudget(BURST, PER_SECOND)
    assert [budget.take("a", 0.0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert budget.take("b", 0.0)
    assert not budget.take("a", 0.9 / PER_SECOND)
    assert budget.take("a", 1.0 / PER_SECOND)
    assert budget.left("a", 1_000.0) == BURST
    budget.give_back("a", 5, 1_000.0)
    assert budget.left("a", 1_000.0) == BURST


def test_a_clock_set_back_stops_nothing():
    """If another clock takes over that is behind, the bucket fills by the new one."""
    budget = RetryBudget(BURST, PER_SECOND)
    for _ in range(BURST):
        budget.take("a", 1_000_000.0)
    assert not budget.take("a", 5.0)
    assert budget.take("a", 5.0 + 1.5 / PER_SECOND)


def test_hosts_are_forgotten(monkeypatch):
    """Memory is bounded: the host used longest ago is forgotten first."""
    monkeypatch.setattr("memoleo._retries.budget._HOSTS", 3)
    budget = RetryBudget(BURST, PER_SECOND)
    for host in "abcd":
        budget.take(host, 0.0)
    assert budget.left("a", 0.0) == BURST
    assert budget.left("d", 0.0) == BURST - 1


def test_threads_take_exactly_what_there_is():
    """No token is taken twice."""
    budget, taken = RetryBudget(BURST, PER_SECOND), []
    start = threading.Barrier(8)

    def take():
        start.wait()
        for _ in range(BURST):
            if budget.take("a", 0.0):
                taken.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == BURST


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_broken_host_meets_no_storm(kind):
    """Once its budget is used up, calls to it fail at once, and other hosts keep theirs."""
    calls = []

    def work(host):
        calls.append(host)
        raise broken(host)

    async def awork(host):
        work(host)

    fetch = retried(work) if kind == "sync" else retried(awork)

    def run(host):
        with pytest.raises(httpx.ConnectError) as caught:
            fetch(host) if kind == "sync" else asyncio.run(fetch(host))
        return caught.value

    clock = FakeClock()
    with no_waiting(clock, passes=False):
        for _ in range(BURST):
            last = run("a.example")
        assert len(calls) == BURST + BURST
        assert last.__notes__ == [
            "memoleo: 1 attempt; the budget of retries for a.example:443 is used up"
        ]
        calls.clear()
        run("b.example")
        assert len(calls) == 3
        calls.clear()
        clock.advance(1.5 / PER_SECOND)
        run("a.example")
        assert len(calls) == 2


@pytest.mark.parametrize("kind", ["sync", "network client"])
def test_the_settings_say_how_much(monkeypatch, kind):
    """`retry_budget` and `retry_budget_per_second` hold from the next retry on, for every host."""
    calls = []

    @retried
    def fetch():
        calls.append(1)
        raise broken("a.example")

    class Down(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            calls.append(1)
            raise httpx.ConnectError("down", request=request)

    async def get():
        async with AsyncNetworkClient(transport=Down(), breakers=Breakers()) as client:
            await client.get("https://a.example")

    def run():
        calls.clear()
        with pytest.raises(httpx.ConnectError):
            fetch() if kind == "sync" else asyncio.run(get())
        return len(calls)

    def settings(**environment):
        for key, value in environment.items():
            monkeypatch.setenv(f"MEMOLEO_NETWORKING__{key}", value)
        _settings.use(None)

    before = _settings.use(None)
    clock = FakeClock()
    try:
        with no_waiting(clock, passes=False):
            assert run() == 3
            settings(RETRY_BUDGET="3", RETRY_BUDGET_PER_SECOND="0.5")
            assert [run(), run()] == [3, 2]
            clock.advance(2.0)
            assert [run(), run()] == [2, 1]
            clock.advance(1000.0)
            assert [run(), run()] == [3, 2]
            settings(RETRY_BUDGET="0")
            clock.advance(1000.0)
            assert run() == 1
    finally:
        _settings.use(before)


def test_a_larger_budget_is_full_at_first():
    """A host that is met for the first time has all of it."""
    assert RetryBudget(2 * BURST, PER_SECOND).left("a.example", 0.0) == 2 * BURST


def test_settings_that_cannot_be_read_hide_no_error(monkeypatch):
    """The call fails with its own error, after its retries."""
    monkeypatch.setenv("MEMOLEO_NETWORKING__RETRY_BUDGET", "many")
    before = _settings.use(None)

    @retried
    def work():
        raise broken("a.example")

    try:
        with no_waiting() as waits, pytest.raises(httpx.ConnectError):
            work()
    finally:
        _settings.use(before)
    assert len(waits) == 2


def test_a_success_gives_back_what_it_took():
    """A host whose errors pass at the next attempt never uses its budget up."""
    failed = set()

    @retried
    def work(number):
        if number not in failed:
            failed.add(number)
            raise broken("a.example")

    with no_waiting(FakeClock(), passes=False) as waits:
        for number in range(10 * BURST):
            work(number)
    assert len(waits) == 10 * BURST


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_generators_keep_to_it_too(kind):
    """A generator takes and gives back when its first item has come."""
    failed = set()

    def work(number):
        if number not in failed:
            failed.add(number)
            raise broken("a.example")

    @retried
    def items(number):
        work(number)
        yield number

    @retried
    async def aitems(number):
        work(number)
        yield number

    async def first(number):
        return [item async for item in aitems(number)]

    with no_waiting(FakeClock(), passes=False) as waits:
        for number in range(2 * BURST):
            got = list(items(number)) if kind == "generator" else asyncio.run(first(number))
            assert got == [number]
    assert len(waits) == 2 * BURST


def test_the_test_mode_has_a_budget_of_its_own():
    """What is spent inside of it is not missing outside, nor the other way round."""

    @retried(attempts=2)
    def work():
        raise broken("a.example")

    for _ in range(3):
        with no_waiting() as waits:
            for _ in range(BURST):
                with pytest.raises(httpx.ConnectError):
                    work()
        assert len(waits) == BURST


def test_10_000_calls_keep_to_every_rule_exactly():
    """At a fault rate of 30 %, attempts, waits and budget are those that the rules give.

    A twin works them out by itself: five hosts, one of which is down for good, full jitter, a
    deadline, and a clock that moves by 5 ms for each attempt: calls wait side by side.
    """
    hosts = [f"h{number}.example" for number in range(5)]
    clock = FakeClock(0.0)
    faults = random.Random(7)
    attempts = []

    @retried(deadline=0.25)
    def work(host):
        attempts.append(host)
        clock.advance(0.005)
        if host == hosts[4] or faults.random() < 0.3:
            raise broken(host)

    failures = 0
    random.seed(11)
    with no_waiting(clock, passes=False) as waits:
        for number in range(10_000):
            try:
                work(hosts[number % 5])
            except httpx.ConnectError:
                failures += 1

    twin_faults, jitter = random.Random(7), random.Random(11)
    now, tokens, since = 0.0, dict.fromkeys(hosts, 100.0), dict.fromkeys(hosts, 0.0)

    def fill(host):
        tokens[host] = min(100.0, tokens[host] + 10 * (now - since[host]))
        since[host] = now

    twin_attempts, twin_waits, twin_failures, refused, late = [], [], 0, 0, 0
    for number in range(10_000):
        host, started = hosts[number % 5], now
        for taken, wait in enumerate((0.1, 0.3, None)):
            twin_attempts.append(host)
            now += 0.005
            if host != hosts[4] and twin_faults.random() >= 0.3:
                if taken:
                    fill(host)
                    tokens[host] = min(100.0, tokens[host] + taken)
                break
            wait = None if wait is None else jitter.uniform(0, wait)
            if wait is None or now - started + wait > 0.25:
                late += wait is not None
                twin_failures += 1
                break
            fill(host)
            if tokens[host] < 1:
                refused += 1
                twin_failures += 1
                break
            tokens[host] -= 1
            twin_waits.append(wait)
    assert min(refused, late) > 100
    assert attempts == twin_attempts
    assert waits == pytest.approx(twin_waits)
    assert failures == twin_failures
