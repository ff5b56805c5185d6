"""Circuit breakers: what is known of hosts that fail, and which calls may still go there.

::

    closed ── `failures` in a row ──▶ open ── `open_for` seconds ──▶ half open
       ▲                               ▲                                │
       │                               └────────── a probe fails ───────┤
       └──────────────── `probes` succeed ──────────────────────────────┘

No I/O and no clock of its own: whoever calls says what time it is, on a clock that nobody sets
(`time.monotonic`). What a refused call does instead is its own matter: serve what is stale, not
try again, or raise `CircuitOpenError` where the user asked to fail fast.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf

import msgspec

from memoleo._events import Event, extras, logger, tell
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.config import _settings
from memoleo.config._sections import Settings
from memoleo.errors import CircuitOpenError, ConfigError

__all__ = ["BreakerPolicy", "BreakerStats", "Breakers", "Circuit", "Permit", "get_breakers"]

_HOSTS = 4096
"""Hosts that are remembered; those that work and were used longest ago are forgotten first."""


class Circuit(str, Enum):
    """The state of a host's circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit opens, and how it closes again.

    Parameters
    ----------
    failures
        failures in a row that open it
    open_for
        seconds for which it stays open
    probes
        calls that are let through at once when it is half open, and successes that close it

    Raises
    ------
    ConfigError
        one of them is out of its range
    """

    failures: int = 5
    open_for: float = 30.0
    probes: int = 1

    def __post_init__(self) -> None:
        for name, value in (("failures", self.failures), ("probes", self.probes)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}={value!r}: give a whole number, 1 or more")
        if not 0 <= self.open_for < inf:
            raise ConfigError(f"open_for={self.open_for!r}: give seconds, 0 or more")


class Permit(msgspec.Struct, frozen=True):
    """What `Breakers.enter` said of one call; to be handed back to `Breakers.leave`.

    Parameters
    ----------
    host
        where the call goes
    allowed
        whether it should go there
    circuit
        the state in which it was decided
    spell
        tells the spells of a circuit apart: what began in one says nothing about another
    retry_in
        seconds until the next probe may go, if this call may not
    """

    host: str
    allowed: bool
    circuit: Circuit
    spell: int
    retry_in: float = 0.0

    def check(self) -> None:
        """Raise if the call should not be made: for those who asked to fail fast.

        Raises
        ------
        CircuitOpenError
            it should not
        """
        if not self.allowed:
            raise CircuitOpenError(self.host, self.retry_in)


class BreakerStats(msgspec.Struct, frozen=True):
    """What happened at one host.

    Parameters
    ----------
    circuit
        its state: "closed", "open" or "half_open"
    successes, failures
        calls that ended so
    refused
        calls that should not go there
    probes
        calls that were let through to see whether it works again
    opened
        how often the circuit opened
    """

    circuit: str
    successes: int
    failures: int
    refused: int
    probes: int
    opened: int


class _Host:
    __slots__ = (
        "circuit", "failures", "flying", "opened", "passed", "probes", "refused", "row", "since",
        "spell", "successes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.circuit = Circuit.CLOSED
        self.spell = 0
        self.since = 0.0
        self.row = 0
        self.flying: list[float] = []
        self.passed = 0
        self.successes = self.failures = self.refused = self.probes = self.opened = 0

    @property
    def works(self) -> bool:
        return self.circuit is Circuit.CLOSED and self.row == 0


Changed = Callable[[str, Circuit, Circuit], None]


class Breakers:
    """One circuit per host, from any thread or task.

    ::

        permit = breakers.enter("api.example.com:443", monotonic())
        if not permit.allowed: …          # or permit.check(), to fail fast
        try:
            answer = …
        except …:
            breakers.leave(permit, monotonic(), failed=True)

    Parameters
    ----------
    policy
        when circuits open and close
    changed
        called with host, old and new state after each change, by the thread that caused it and
        under no lock
    """

    def __init__(
        self, policy: BreakerPolicy | None = None, *, changed: Changed | None = None
    ) -> None:
        self.policy = BreakerPolicy() if policy is None else policy
        self.changed = changed
        self._hosts: dict[str, _Host] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def enter(self, host: str, now: float) -> Permit:
        """Say whether a call may go to a host, and count it in.

        Every permit must come back by `leave`; a probe that is lost counts as flying for
        `open_for` seconds.

        Parameters
        ----------
        host
            any name that stands for it, such as ``"api.example.com:443"``
        now
            seconds of a clock that nobody sets
        """
        with self._lock:
            at = self._at(host)
            before = at.circuit
            permit = self._decide(host, at, now)
            after = at.circuit
        self._tell(host, before, after)
        return permit

    def _decide(self, host: str, at: _Host, now: float) -> Permit:
        if at.circuit is Circuit.CLOSED:
            return Permit(host, True, at.circuit, at.spell)
        left = at.since + self.policy.open_for - now
        if at.circuit is Circuit.OPEN:
            if left > 0:
                at.refused += 1
                return Permit(host, False, at.circuit, at.spell, left)
            self._turn(at, Circuit.HALF_OPEN, now)
        at.flying = [start for start in at.flying if now - start < self.policy.open_for]
        if len(at.flying) >= self.policy.probes:
            at.refused += 1
            left = at.flying[0] + self.policy.open_for - now
            return Permit(host, False, at.circuit, at.spell, left)
        at.flying.append(now)
        at.probes += 1
        return Permit(host, True, at.circuit, at.spell)

    def leave(self, permit: Permit, now: float, *, failed: bool | None) -> None:
        """Note how a call ended, whether it was allowed or went anyway.

        Parameters
        ----------
        permit
            what `enter` returned
        now
            seconds of the same clock
        failed
            whether the host failed; `None` if the call says nothing of it: it was cancelled, or
            never went
        """
        with self._lock:
            at = self._at(permit.host)
            before = at.circuit
            if failed is not None:
                at.failures += failed
                at.successes += not failed
            # What was sent before the circuit turned, or against its advice, turns nothing.
            if permit.allowed and permit.spell == at.spell:
                self._judge(at, now, failed)
            after = at.circuit
        self._tell(permit.host, before, after)

    def _judge(self, at: _Host, now: float, failed: bool | None) -> None:
        if at.circuit is Circuit.HALF_OPEN and at.flying:
            at.flying.pop(0)
        if failed is None:
            return
        if not failed:
            at.row = 0
            if at.circuit is Circuit.HALF_OPEN:
                at.passed += 1
                if at.passed >= self.policy.probes:
                    self._turn(at, Circuit.CLOSED, now)
            return
        at.row += 1
        if at.circuit is Circuit.HALF_OPEN or at.row >= self.policy.failures:
            at.opened += 1
            self._turn(at, Circuit.OPEN, now)

    @staticmethod
    def _turn(at: _Host, circuit: Circuit, now: float) -> None:
        at.circuit = circuit
        at.spell += 1
        at.since = now
        at.row = at.passed = 0
        at.flying = []

    def _at(self, host: str) -> _Host:
        at = self._hosts.pop(host, None)
        if at is None:
            at = _Host()
            if len(self._hosts) >= _HOSTS:
                working = (name for name, each in self._hosts.items() if each.works)
                del self._hosts[next(working, next(iter(self._hosts)))]
        # The one used last stands last.
        self._hosts[host] = at
        return at

    def _tell(self, host: str, before: Circuit, after: Circuit) -> None:
        if before is after:
            return
        said = extras(f"circuit_{after.value}", label=host)
        if after is Circuit.OPEN:
            seconds = self.policy.open_for
            logger.warning("%s: fails; its circuit is open for %.3g s", host, seconds, extra=said)
        elif after is Circuit.CLOSED:
            logger.warning("%s: works again", host, extra=said)
        tell((), Event(f"circuit_{after.value}", label=host))
        try:
            if self.changed is not None:
                self.changed(host, before, after)
        except Exception:
            # A listener's fault is not the call's.
            logger.exception(
                "a listener to circuit breakers failed", extra=extras("hook_failed", label=host)
            )

    def get_stats(self) -> dict[str, BreakerStats]:
        """Return what is known of each host."""
        with self._lock:
            return {
                host: BreakerStats(
                    at.circuit.value, at.successes, at.failures, at.refused, at.probes, at.opened
                )
                for host, at in self._hosts.items()
            }

    def reset(self) -> None:
        """Forget everything: every circuit is closed."""
        with self._lock:
            self._hosts.clear()


_shared = Breakers()
_followed: Settings | None = None


def get_breakers() -> Breakers:
    """Return those that everything in this process shares unless it has some of its own.

    They open and close as ``[networking]`` says.

    Raises
    ------
    ConfigError
        the settings can't be read
    """
    global _followed
    settings = _settings.current()
    if settings is not _followed:
        network = settings.networking
        _shared.policy = BreakerPolicy(
            failures=network.breaker_failures,
            open_for=network.breaker_open_for,
            probes=network.breaker_probes,
        )
        _followed = settings
    return _shared
