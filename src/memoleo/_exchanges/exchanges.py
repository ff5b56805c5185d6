"""HTTP calls that are answered from a cache, whichever library makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from memoleo import _switch
from memoleo._breaker import Breakers, Permit, get_breakers
from memoleo._cache.cache import Cache
from memoleo._events import extras, logger
from memoleo._exchanges.answers import Sent, answer_codec
from memoleo._exchanges.fingerprint import fingerprint
from memoleo._exchanges.parts import describe
from memoleo._exchanges.sending import AAside, ASend, Aside, Asking, Send, adrive, drive
from memoleo._flow.flow import Intent
from memoleo._flow.policy import Policy
from memoleo._flow.reader import Missed
from memoleo._flow.steps import Returned
from memoleo._flow.store import Job
from memoleo._platform.interrupts import pass_on
from memoleo._retries.rules import host_in
from memoleo.config import _settings
from memoleo.http_rules._control import fresh_until, renewed, validators
from memoleo.http_rules._judge import FAILURES, acceptable
from memoleo.http_rules._key import key_of, matches, meant
from memoleo.http_rules._messages import Answer, Request
from memoleo.http_rules._presets import APIS
from memoleo.http_rules._rule import Rule

__all__ = ["Exchange", "Exchanges", "Lane"]

_MOST = 4096


class _Unavailable(Exception):
    """A status that says that the server failed."""

    def __init__(self, sent: Sent) -> None:
        super().__init__(f"status {0 if sent.answer is None else sent.answer.status}")
        self.sent = sent


class Lane:
    """What the calls of one rule have in common, as long as cache and settings stay."""

    __slots__ = ("cache", "counters", "fresh", "policy", "settings")

    def __init__(self, rule: Rule, cache: Cache) -> None:
        parsed = rule.parsed
        self.cache = cache
        self.settings = _settings.current()
        self.policy = Policy(
            type=rule.type,
            ttl=parsed.ttl,
            stale_while_revalidate=parsed.revalidate_for,
            stale_if_error=parsed.excuse_for,
            cache_if=partial(_acceptable, rule),
            tags=parsed.tags,
            label=f"{'/'.join(sorted(parsed.methods))} {rule.url}",
            repeatable=False,
        )
        self.counters = cache.calls.tally.of(rule.type)
        job = cache.calls.job(
            b"", self.policy, _nothing, counters=self.counters, codec=answer_codec
        )
        self.fresh = cache.calls.reader(job)


class Exchanges:
    """Answers the calls that rules name.

    Parameters
    ----------
    rules
        the first one that names a call decides
    cache
        returns the cache, at each call
    failures
        returns what the library raises when a host can't be reached
    breakers
        returns the circuits for rules with ``breaker``; `None` if whoever sends a request asks them
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        cache: Callable[[], Cache],
        failures: Callable[[], tuple[type[BaseException], ...]] = lambda: (OSError,),
        breakers: Callable[[], Breakers] | None = get_breakers,
    ) -> None:
        self.rules = tuple(rules)
        self.failures = failures
        self.breakers = breakers
        self._cache = cache
        self._named: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._lanes: dict[int, Lane] = {}
        self._noted: set[str] = set()

    def named(self, method: str, url: str) -> tuple[Rule, ...]:
        """Return the rules that name calls of this method (in capitals) to this URL."""
        found = self._named.get((method, url))
        if found is None:
            found = tuple(rule for rule in self.rules if matches(rule, method, url))
            if len(self._named) >= _MOST:
                self._named.clear()
            self._named[method, url] = found
        return found

    def rule_for(self, request: Request) -> Rule | None:
        """Return the rule that decides about a request, if any."""
        named = self.named(request.method, request.url)
        return next((rule for rule in named if meant(rule, request)), None)

    def exchange(
        self, request: Request, kind: Callable[..., Exchange | None] | None = None
    ) -> Exchange | None:
        """Return a call that is to be answered; `None` for one that is none of our business.

        It never fails: a request that can't be read is passed on as it is.

        Parameters
        ----------
        request
            the call
        kind
            makes an `Exchange` of it
        """
        kind = kind or Exchange
        try:
            rule = self.rule_for(request)
            if rule is None or not _switch.enabled() or _mode() is _switch.Mode.BYPASS:
                return None
            if rule.api is not None and not APIS[rule.api].asks(request):
                return None
            key = key_of(rule, request, fingerprint)
            return None if key is None else kind(self, self.lane(rule), rule, request, key)
        except Exception as error:
            self.note("reading a request", error)
            return None

    def lane(self, rule: Rule) -> Lane:
        lane = self._lanes.get(id(rule))
        cache = self._cache()
        if lane is None or lane.cache is not cache or lane.settings is not _settings.current():
            lane = self._lanes[id(rule)] = Lane(rule, cache)
        return lane

    def note(self, what: str, error: Exception) -> None:
        """Log a failure of ours, once for each kind; a time limit of the program's is passed on."""
        pass_on(error)
        if what not in self._noted:
            self._noted.add(what)
            logger.warning(
                "HTTP rules: %s failed; calls go on without it",
                what,
                exc_info=error,
                extra=extras("failing", label=what, error=error),
            )


class Exchange:
    """One call.

    Parameters
    ----------
    exchanges
        what it came to
    lane, rule
        how it is answered
    request
        the call
    key
        the 32 bytes that its answer is stored under
    """

    streamed = False
    """Whether the answer is left unread."""

    def __init__(
        self, exchanges: Exchanges, lane: Lane, rule: Rule, request: Request, key: bytes
    ) -> None:
        self._exchanges = exchanges
        self._lane: Lane = lane
        self.rule = rule
        self.request = request
        self.key = key
        self.answered: Sent | None = None
        self.failed: BaseException | None = None
        self.began = 0

    def run(self, send: Send, *, aside: Aside | None = None, streamed: bool = False) -> Sent:
        """Answer the call.

        Parameters
        ----------
        send
            makes the call, with these headers added to it
        aside
            gets another URL of the same server, as the same caller
        streamed
            whether `send` leaves the answer unread; whoever reads it calls `keep`

        Raises
        ------
        CircuitOpenError
            the rule asks for a breaker, it is open, and nothing is stored
        Exception
            whatever `send` raises
        """
        self.streamed = streamed
        try:
            drive(self._before(), send, aside)
            job = self._job(lambda: drive(self._asking(), send, aside), streamed)
            calls = self._lane.cache.calls
            sent: Sent = calls.call(job)
            if self._outlived(sent):
                try:
                    sent = calls.call(job, Intent.REFRESH)
                except Exception:
                    if not self._excused(sent):
                        raise
            return sent
        except _Unavailable as error:
            return error.sent
        except Exception as error:
            self._judge(error)
        return self.answered or send({})

    async def arun(
        self, send: ASend, *, aside: AAside | None = None, streamed: bool = False
    ) -> Sent:
        """Do what `run` does, with a `send` and an `aside` that are awaited."""
        self.streamed = streamed
        try:
            await adrive(self._before(), send, aside)
            job = self._job(lambda: adrive(self._asking(), send, aside), streamed)
            calls = self._lane.cache.calls
            sent: Sent = await calls.acall(job)
            if self._outlived(sent):
                try:
                    sent = await calls.acall(job, Intent.REFRESH)
                except Exception:
                    if not self._excused(sent):
                        raise
            return sent
        except _Unavailable as error:
            return error.sent
        except Exception as error:
            self._judge(error)
        return self.answered or await send({})

    def again(self) -> Answer | None:
        """Return the answer if this very call is made again, and it is at hand and fresh."""
        lane = self._lane = self._exchanges.lane(self.rule)
        if lane.fresh is None or _mode() is not _switch.Mode.SERVE or not _switch.enabled():
            return None
        found = lane.fresh(self.key)
        if type(found) is Missed or not _holds(found.answer, lane):
            return None
        answer: Answer = found.answer
        return answer

    def _outlived(self, sent: Sent) -> bool:
        """Whether a stored answer is stale by its own account, and nobody has asked anew yet."""
        stored = sent.response is None and self.failed is None
        return stored and not _holds(sent.answer, self._lane)

    def _excused(self, sent: Sent) -> bool:
        """Whether an answer that is stale by its own account is served, since the call failed."""
        if self.failed is None or sent.answer is None or sent.answer.fresh_until is None:
            return False
        past = self._lane.cache.calls.store.clock() - sent.answer.fresh_until
        return past < self._lane.policy.stale_if_error

    def _judge(self, error: Exception) -> None:
        """Raise what the call itself raised; note what is our own."""
        if self.failed is not None:
            raise error
        self._exchanges.note("asking the cache", error)

    def keep(self, answer: Answer, ms: float) -> None:
        """Store an answer that was read to its end.

        Parameters
        ----------
        answer
            all of it
        ms
            what it took
        """
        try:
            if _mode() is _switch.Mode.OBSERVE:
                return
            sent = Sent(self._dated(answer), None, self.request)
            job = self._job(_nothing, False)
            self._lane.cache.calls.keep(job, Returned(sent, ms), self.began)
        except Exception as error:
            self._exchanges.note("storing an answer", error)

    def ended(self, body: bytes) -> bool:
        """Whether a body that was not read to its end has nothing more to say."""
        api = None if self.rule.api is None else APIS[self.rule.api]
        return api is not None and api.ended is not None and api.ended(self.request, body)

    def _job(self, compute: Callable[[], Any], streamed: bool) -> Job:
        lane = self._lane
        policy = lane.policy
        if streamed and policy.stale_while_revalidate:
            # Nobody would read what a refresh in the background gets.
            policy = msgspec.structs.replace(policy, stale_while_revalidate=0.0)
        return lane.cache.calls.job(
            self.key,
            policy,
            compute,
            counters=lane.counters,
            codec=answer_codec,
            place=_nowhere if streamed else None,
            describe=partial(describe, self.rule, self.request, fingerprint),
        )

    # The head decides, two hands send.

    def _before(self) -> Asking:
        """Find out what has to be known before the cache is asked."""
        yield from ()
        return Sent(None)

    def _asking(self) -> Asking:
        """Yield the headers to add to the request, take what came, and return what it means."""
        self.began = self._lane.cache.calls.driver.removals
        permit = self._enter()
        old = self._old()
        try:
            sent: Sent = yield {} if old is None else validators(old)
        except BaseException as error:
            self.failed = error
            self._leave(permit, True if isinstance(error, self._exchanges.failures()) else None)
            raise
        answer = sent.answer
        status = 0 if answer is None else answer.status
        self._leave(permit, status in FAILURES)
        if answer is not None and old is not None and status == 304:
            sent = Sent(self._dated(renewed(old, answer)), None, self.request)
        elif answer is not None:
            sent = Sent(self._dated(answer), sent.response, self.request)
        self.answered = sent
        if status in FAILURES:
            # Others who wait for this answer take over one by one, instead of all at once.
            self.failed = _Unavailable(sent)
            raise self.failed
        return sent

    def _enter(self) -> Permit | None:
        breakers = self._exchanges.breakers
        if breakers is None or not self.rule.breaker:
            return None
        host = host_in(self.request.url) or self.request.url
        permit = breakers().enter(host, time.monotonic())
        try:
            permit.check()
        except Exception as error:
            self.failed = error
            raise
        return permit

    def _leave(self, permit: Permit | None, failed: bool | None) -> None:
        breakers = self._exchanges.breakers
        if permit is not None and breakers is not None:
            breakers().leave(permit, time.monotonic(), failed=failed)

    def _old(self) -> Answer | None:
        """Return what is stored, if the server can be asked whether it still holds."""
        if not self.rule.revalidate:
            return None
        store = self._lane.cache.calls.store
        entry = store.load(self._job(_nothing, False))
        opened = None if entry is None else store.open(self._job(_nothing, False), entry)
        answer: Answer | None = None if opened is None else opened.value.answer
        return answer if answer is not None and validators(answer) else None

    def _dated(self, answer: Answer) -> Answer:
        if not self.rule.obey_cache_control:
            return answer
        until = fresh_until(answer, self._lane.cache.calls.store.clock())
        return msgspec.structs.replace(answer, fresh_until=until)


def _acceptable(rule: Rule, sent: Sent) -> bool:
    return (
        sent.answer is not None
        and sent.request is not None
        and acceptable(rule, sent.request, sent.answer)
    )


def _holds(answer: Answer | None, lane: Lane) -> bool:
    """Whether an answer is fresh by its own account."""
    if answer is None or answer.fresh_until is None:
        return True
    return bool(lane.cache.calls.store.clock() < answer.fresh_until)


def _nothing() -> None:
    return None


def _nowhere() -> None:
    return None


_mode = _switch.mode.get
