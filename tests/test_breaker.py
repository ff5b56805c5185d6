"""Circuits open after failures in a row, let probes through, and close again."""

from __future__ import annotations

import logging
import pickle
import threading

import pytest

from memoleo import _breaker
from memoleo._breaker import BreakerPolicy, Breakers, Circuit, get_breakers
from memoleo.config import Networking, Settings, _settings
from memoleo.errors import CircuitOpenError, ConfigError

HOST = "api.example.com:443"


@pytest.fixture
def breakers():
    changes = []
    made = Breakers(
        BreakerPolicy(failures=3, open_for=10.0, probes=2),
        changed=lambda *change: changes.append(change),
    )
    made.changes = changes
    return made


def call(breakers, now, failed, host=HOST):
    permit = breakers.enter(host, now)
    breakers.leave(permit, now, failed=failed)
    return permit


def opened(breakers, now=0.0):
    for _ in range(3):
        assert call(breakers, now, True).allowed
    return breakers


def state(breakers, host=HOST):
    return breakers.get_stats()[host].circuit


def test_opens_after_failures_in_a_row_only(breakers):
    """A success in between starts the count again; what says nothing changes nothing."""
    for failed in (True, True, False, True, None, True):
        call(breakers, 0.0, failed)
    assert state(breakers) == "closed"
    call(breakers, 0.0, True)
    assert state(breakers) == "open"
    assert breakers.changes == [(HOST, Circuit.CLOSED, Circuit.OPEN)]


def test_an_open_circuit_says_when(breakers):
    """Refused calls learn in how many seconds the next probe may go."""
    opened(breakers, now=100.0)
    permit = breakers.enter(HOST, 104.0)
    assert (permit.allowed, permit.retry_in) == (False, 6.0)
    with pytest.raises(CircuitOpenError, match=r"api\.example\.com:443 .* in 6 s"):
        permit.check()
    assert breakers.enter("other:443", 104.0).allowed


def test_probes_close_it(breakers):
    """Half open, so many calls go at once as there are probes; when all succeed, it closes."""
    opened(breakers)
    first, second = breakers.enter(HOST, 10.0), breakers.enter(HOST, 10.0)
    assert first.allowed
    assert second.allowed
    assert not breakers.enter(HOST, 10.0).allowed
    breakers.leave(first, 10.5, failed=False)
    assert state(breakers) == "half_open"
    breakers.leave(second, 10.5, failed=False)
    assert state(breakers) == "closed"
    stats = breakers.get_stats()[HOST]
    assert (stats.successes, stats.failures, stats.refused) == (2, 3, 1)
    assert (stats.probes, stats.opened) == (2, 1)


def test_a_failed_probe_opens_it_again(breakers):
    """It stays open as long as at first, counted from the probe's failure."""
    opened(breakers)
    probe = breakers.enter(HOST, 10.0)
    breakers.leave(probe, 12.0, failed=True)
    assert not breakers.enter(HOST, 21.9).allowed
    assert breakers.enter(HOST, 22.0).allowed
    assert breakers.get_stats()[HOST].opened == 2


def test_late_answers_turn_nothing(breakers):
    """A call that began before the circuit turned neither closes nor opens it."""
    early = [breakers.enter(HOST, 0.0) for _ in range(3)]
    opened(breakers)
    breakers.leave(early[0], 1.0, failed=False)
    assert state(breakers) == "open"
    breakers.enter(HOST, 10.0)
    breakers.leave(early[1], 10.0, failed=True)
    breakers.leave(early[2], 10.0, failed=False)
    assert state(breakers) == "half_open"


def test_calls_that_go_anyway_turn_nothing(breakers):
    """What was sent against advice is counted, and no more."""
    opened(breakers)
    refused = breakers.enter(HOST, 1.0)
    breakers.leave(refused, 2.0, failed=False)
    assert state(breakers) == "open"
    assert breakers.get_stats()[HOST].successes == 1


def test_cancelled_and_lost_probes_make_room(breakers):
    """A probe that was cancelled gives its place back at once, one that is lost after a while."""
    opened(breakers)
    first, _lost = breakers.enter(HOST, 10.0), breakers.enter(HOST, 10.0)
    breakers.leave(first, 11.0, failed=None)
    assert breakers.enter(HOST, 11.0).allowed
    assert not breakers.enter(HOST, 19.9).allowed
    assert breakers.enter(HOST, 20.0).allowed


def test_hosts_are_forgotten_but_not_those_that_fail(breakers, monkeypatch):
    """Memory is bounded: working hosts go first, and a circuit that is open stays."""
    monkeypatch.setattr(_breaker, "_HOSTS", 10)
    opened(breakers)
    for number in range(100):
        call(breakers, 0.0, False, f"host{number}")
    stats = breakers.get_stats()
    assert len(stats) == 10
    assert stats[HOST].circuit == "open"
    breakers.reset()
    assert breakers.get_stats() == {}


def test_a_listener_that_fails_hurts_nobody(breakers, caplog):
    """What a listener raises is logged; opening and closing are logged once each."""
    breakers.changed = lambda *change: 1 / 0
    opened(breakers)
    for _ in range(2):
        call(breakers, 10.0, False)
    texts = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert texts == [f"{HOST}: fails; its circuit is open for 10 s", f"{HOST}: works again"]


def test_threads_share_probes_exactly():
    """However many threads ask at once, exactly so many probes go as allowed."""
    breakers = opened(Breakers(BreakerPolicy(failures=3, open_for=10.0, probes=3)))
    start, allowed = threading.Barrier(16), []

    def ask():
        start.wait()
        for _ in range(50):
            if breakers.enter(HOST, 10.0).allowed:
                allowed.append(1)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 3


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"failures": True}, {"probes": 1.5}, {"open_for": -1.0}]
)
def test_wrong_policies_are_refused_at_once(wrong):
    """The message names the setting."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BreakerPolicy(**wrong)


def test_the_error_is_a_connection_error_and_pickles():
    """Programs that catch `ConnectionError` catch it, in other processes too."""
    error = pickle.loads(pickle.dumps(CircuitOpenError("h", 2.0)))
    assert isinstance(error, ConnectionError)
    assert (error.host, error.retry_in) == ("h", 2.0)


def test_the_shared_ones_follow_the_settings():
    """Numbers of the config hold from the next call on, and what is known of hosts stays."""
    networking = Networking(breaker_failures=2, breaker_open_for=7.0, breaker_probes=3)
    before = _settings.use(Settings(networking=networking))
    try:
        assert get_breakers().policy == BreakerPolicy(failures=2, open_for=7.0, probes=3)
        shared = get_breakers()
    finally:
        _settings.use(before)
    assert get_breakers() is shared
    assert get_breakers().policy == BreakerPolicy()
