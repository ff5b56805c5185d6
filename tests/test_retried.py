"""`retried`: which errors are tried again, how often, how long apart, and what never is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import gc
import inspect
import logging
import random
import socket
import threading
import time
import urllib.error
import urllib.request
import warnings
import weakref
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from memoleo._decorators.timed import timed
from memoleo._retries import pausing
from memoleo._retries.flow import Failure, Retry, Stop, make_policy, retrying
from memoleo._retries.retried import retried
from memoleo._retries.rules import host_of, is_transient, parse_retry_after, retry_after, status_of
from memoleo.errors import ConfigError
from memoleo.metrics import Metrics, get_metrics
from memoleo.testing import FakeClock
from memoleo.testing._waiting import no_waiting

RETRIED = (408, 425, 429, 500, 502, 503, 504)
RAISED = (400, 401, 403, 404, 409, 422, 499, 501)


@pytest.fixture
def waits():
    with no_waiting(lambda: 1_000_000.0) as waits:
        yield waits


def failing(*errors, result="done"):
    """Return a function that raises these errors one after the other, then returns."""
    script = list(errors)

    def work(*args):
        work.calls += 1
        if script:
            raise script.pop(0)
        return result

    work.calls = 0
    return work


class TestAttempts:
    def test_passing_error(self, waits):
        """A call whose error passes returns its result, after 100 and 300 ms without jitter."""
        work = failing(ConnectionError(), TimeoutError())
        assert retried(jitter=False)(work)() == "done"
        assert work.calls == 3
        assert waits == [0.1, 0.3]

    def test_lasting_error(self, waits):
        """The last error is raised as it is, with the number of attempts in its notes."""
        errors = [ConnectionError(n) for n in range(3)]
        work = failing(*errors)
        with pytest.raises(ConnectionError) as caught:
            retried(jitter=False)(work)()
        assert caught.value is errors[2]
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert caught.value.__notes__ == ["memoleo: 3 attempts in 0.4 s"]
        assert work.calls == 3

    def test_other_error(self, waits):
        """An error outside the rule is raised at once, without notes."""
        work = failing(KeyError("x"))
        with pytest.raises(KeyError) as caught:
            retried(work)()
        assert work.calls == 1
        assert not hasattr(caught.value, "__notes__")

    def test_same_error_object(self, waits):
        """An error object that is raised again and again is retried on each call, noted once."""
        error = ConnectionError()
        work = failing(*[error] * 6)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                retried(work)()
        assert work.calls == 6
        assert len(error.__notes__) == 1

    def test_longer_than_the_waits(self, waits):
        """The last wait repeats."""
        work = failing(*[ConnectionError()] * 5)
        retried(attempts=6, backoff_ms=(10, 20), jitter=False)(work)()
        assert waits == [0.01, 0.02, 0.02, 0.02, 0.02]

    def test_number(self, waits):
        """One number is the same wait each time."""
        retried(backoff_ms=250, jitter=False)(failing(*[ConnectionError()] * 2))()
        assert waits == [0.25, 0.25]

    def test_wait_generator(self, waits):
        """A wait generator of `backoff` gives milliseconds."""
        import backoff

        def start():
            return backoff.expo(factor=100, max_value=300)

        work = failing(*[ConnectionError()] * 4)
        retried(attempts=5, backoff_ms=start, jitter=False)(work)()
        assert waits == [0.1, 0.2, 0.3, 0.3]

    @pytest.mark.parametrize("odd", [-5.0, float("nan")])
    def test_wait_generator_with_odd_waits(self, odd):
        """Less than nothing, or no number, is no wait, and no error of the clock's own."""
        work = failing(ConnectionError())
        assert retried(backoff_ms=lambda: iter([odd]), jitter=False)(work)() == "done"

    def test_wait_generator_without_end(self):
        """An endless wait does not begin."""
        work = failing(ConnectionError("mine"))
        with pytest.raises(ConnectionError, match="mine"):
            retried(backoff_ms=lambda: iter([float("inf")]), jitter=False)(work)()

    def test_jitter(self, waits):
        """Full jitter: a wait is anywhere between zero and its full length."""
        random.seed(5)
        for _ in range(200):
            retried(attempts=2)(failing(ConnectionError()))()
        assert 0 <= min(waits) < 0.01 < 0.09 < max(waits) <= 0.1

    def test_real_sleep(self):
        """Outside of tests it really waits."""
        started = time.monotonic()
        retried(backoff_ms=30, jitter=False, attempts=2)(failing(ConnectionError()))()
        assert time.monotonic() - started >= 0.03

    def test_no_cycles(self, waits):
        """A retried call leaves no garbage that holds its arguments."""

        class Big:
            pass

        big = Big()
        alive = weakref.ref(big)
        work = failing(ConnectionError())
        gc.disable()
        try:
            retried(work)(big)
            del big
            assert alive() is None
        finally:
            gc.enable()

    def test_counted(self, waits):
        """Retries are counted under the operation of the `timed` in the same stack."""
        metrics = Metrics()
        for stack in (
            lambda f: timed("outside", metrics=metrics)(retried(f)),
            lambda f: retried(timed("inside", metrics=metrics)(f)),
        ):
            stack(failing(ConnectionError(), ConnectionError()))()
        assert metrics.get_stats()["outside"]["retries"] == 2
        assert metrics.get_stats()["inside"]["retries"] == 2

    def test_counted_without_timed(self, waits):
        """Without `timed` they are counted under the function's name."""
        get_metrics().reset()
        retried(failing(ConnectionError()))()
        assert get_metrics().get_stats()["failing.work"]["retries"] == 1


class TestRules:
    def test_classes(self, waits):
        """Given classes are retried, nothing else."""
        assert retried((KeyError, OSError))(failing(KeyError(), OSError()))() == "done"
        with pytest.raises(ConnectionError):
            retried(on=KeyError)(failing(ConnectionError()))()

    def test_predicate(self, waits):
        """A predicate decides alone."""
        assert retried(on=lambda error: "busy" in str(error))(failing(OSError("busy")))() == "done"
        with pytest.raises(OSError, match="broken"):
            retried(on=lambda error: "busy" in str(error))(failing(OSError("broken")))()

    @pytest.mark.parametrize("give_up", [ConnectionResetError, lambda e: e.args == ("no",)])
    def test_give_up(self, waits, give_up):
        """`give_up` takes errors out of the rule."""
        work = failing(ConnectionError(), ConnectionResetError("no"))
        with pytest.raises(ConnectionResetError):
            retried(give_up=give_up)(work)()
        assert work.calls == 2

    @pytest.mark.parametrize(
        ("error", "passes"),
        [
            (ConnectionRefusedError(), True),
            (BrokenPipeError(), True),
            (TimeoutError(), True),
            (asyncio.TimeoutError(), True),
            (concurrent.futures.TimeoutError(), True),
            (concurrent.futures.CancelledError(), False),
            (OSError(errno.EHOSTUNREACH, "No route to host"), True),
            (FileNotFoundError(2, "no file"), False),
            (socket.gaierror(socket.EAI_AGAIN, "again"), True),
            (socket.gaierror(socket.EAI_NONAME, "unknown"), False),
            (urllib.error.URLError(ConnectionRefusedError()), True),
            (urllib.error.URLError("unknown url type"), False),
            (ValueError(), False),
            (asyncio.CancelledError(), False),
            (KeyboardInterrupt(), False),
        ],
    )
    def test_standard_library(self, error, passes):
        """Connection errors and timeouts of the standard library pass, other errors don't."""
        assert is_transient(error) is passes

    def test_certificate(self):
        """A bad certificate is not tried again, however the library wraps it."""
        import ssl

        bad = ssl.SSLCertVerificationError("self-signed certificate")
        assert not is_transient(bad)
        for module, wrapped in (
            ("httpx", lambda lib: lib.ConnectError("bad")),
            ("requests", lambda lib: lib.exceptions.SSLError(bad)),
        ):
            error = wrapped(pytest.importorskip(module))
            assert is_transient(error) is (error.args[0] is not bad)
            error.__cause__ = bad
            assert not is_transient(error)

    def test_subclass(self):
        """A subclass of a library's error is known by its parents."""
        httpx = pytest.importorskip("httpx")

        class Mine(httpx.ReadError):
            pass

        assert is_transient(Mine("reset"))

    def test_lookalike(self):
        """An error that only has the same name as a library's is not taken for it."""

        class ConnectError(Exception):
            pass

        assert not is_transient(ConnectError())

    def test_hostile_error(self, waits):
        """An error whose properties raise is still the one that the caller sees."""

        class Hostile(ConnectionError):
            @property
            def reason(self):
                raise RuntimeError("don't look")

            response = headers = error = message = reason

        with pytest.raises(Hostile):
            retried(failing(*[Hostile()] * 3))()

    def test_10_000_calls(self):
        """Under a 30 % fault rate, attempts and waits are exactly those that the rules give."""
        source = random.Random(3)
        attempts = 0

        @retried(jitter=False)
        def work():
            nonlocal attempts
            attempts += 1
            if source.random() < 0.3:
                raise ConnectionError

        twin = random.Random(3)
        expected_attempts, expected_waits, expected_failures = 0, [], 0
        for _ in range(10_000):
            for wait in (0.1, 0.3, None):
                expected_attempts += 1
                if twin.random() >= 0.3:
                    break
                if wait is None:
                    expected_failures += 1
                else:
                    expected_waits.append(wait)
        failures = 0
        with no_waiting() as waits:
            for _ in range(10_000):
                try:
                    work()
                except ConnectionError:
                    failures += 1
        assert (attempts, failures) == (expected_attempts, expected_failures)
        assert waits == expected_waits


class TestDeadline:
    def test_too_long_a_wait(self, waits):
        """No wait begins that would end past the deadline, and the note says so."""
        work = failing(*[ConnectionError()] * 9)
        with pytest.raises(ConnectionError) as caught:
            retried(attempts=9, backoff_ms=400, jitter=False, deadline="1s")(work)()
        assert waits == [0.4, 0.4]
        assert caught.value.__notes__ == [
            "memoleo: 3 attempts in 0.8 s; the next wait is 0.4 s, past the deadline of 1 s"
        ]

    def test_head_alone(self):
        """The decisions need no clock and no sleep: they follow from the failures alone."""
        policy = make_policy(ConnectionError, 3, (100, 300), False, None, 10)
        head = retrying(policy)
        next(head)
        assert head.send(Failure(ConnectionError(), 0.5, 0.0, False)) == Retry(0.1)
        assert head.send(Failure(ConnectionError(), 9.6, 0.0, False)) == Retry(0.3)
        with pytest.raises(StopIteration) as stop:
            head.send(Failure(ConnectionError(), 9.9, 0.0, False))
        assert stop.value.value == Stop(True, "3 attempts in 9.9 s")


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7.0),
            (" 0 ", 0.0),
            ("1.5", 1.5),
            (formatdate(1_000_030, usegmt=True), 30.0),
            (formatdate(999_000, usegmt=True), 0.0),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777.0 - 1_000_000),
            ("soon", None),
            ("-3", None),
            ("", None),
        ],
    )
    def test_forms(self, value, seconds):
        """Both forms of RFC 9110 are read, and nonsense is ignored."""
        assert parse_retry_after(value, now=1_000_000) == seconds

    @pytest.mark.parametrize("value", ["9" * 12, "9" * 30, "Fri, 31 Dec 9999 23:59:59 GMT"])
    def test_longer_than_anybody_waits(self, value):
        """It is no shorter wait, and no error of the clock's own: the call fails as it is."""

        class HTTPError(Exception):
            headers = {"Retry-After": value}

        error = HTTPError()

        @retried(on=HTTPError)
        def work():
            raise error

        with pytest.raises(HTTPError) as caught:
            work()
        assert caught.value is error
        assert error.__notes__[0].startswith("memoleo: 1 attempt in")
        assert error.__notes__[0].endswith("which nobody waits")

    @pytest.mark.parametrize(
        "value", ["Wed, 21 Oct 2015 07:28:00 +" + "9" * 40, "9" * 5000, "1 " * 99]
    )
    def test_nonsense_raises_nothing(self, value):
        """What no calendar knows is ignored or endless."""
        assert parse_retry_after(value, now=1_000_000) in (None, float("inf"))

    def test_other_clock(self):
        """The server's own `Date` is what its `Retry-After` date is measured by."""
        then, date = formatdate(1_000_030, usegmt=True), formatdate(1_000_010, usegmt=True)
        assert parse_retry_after(then, now=999_000, date=date) == 20.0


class Server:
    """A real HTTP server on loopback that answers from a script."""

    def __init__(self):
        self.script = []
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                server.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, body = server.script.pop(0) if server.script else (200, {}, b"{}")
                if status is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture(scope="module")
def shared_server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(shared_server):
    shared_server.script.clear()
    shared_server.requests = 0
    return shared_server


def with_httpx(url):
    httpx = pytest.importorskip("httpx")

    def call():
        with httpx.Client(trust_env=False, verify=False) as client:
            client.get(url).raise_for_status()

    return call


def with_requests(url):
    requests = pytest.importorskip("requests")

    def call():
        with requests.Session() as session:
            session.trust_env = False
            session.get(url).raise_for_status()

    return call


def with_urllib(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call():
        try:
            opener.open(url).close()
        except urllib.error.HTTPError as error:
            error.close()
            raise

    return call


def with_ollama(url):
    ollama = pytest.importorskip("ollama")

    def call():
        client = ollama.Client(url, trust_env=False, verify=False)
        try:
            client.generate("m", "p")
        finally:
            client._client.close()

    return call


def with_aiohttp(url):
    aiohttp = pytest.importorskip("aiohttp")

    async def call():
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            answer.raise_for_status()

    return call


CLIENTS = [with_httpx, with_requests, with_urllib, with_ollama, with_aiohttp]


def run(call):
    return asyncio.run(call()) if inspect.iscoroutinefunction(call) else call()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
class TestClients:
    """Real clients against a real server."""

    def test_statuses(self, client, server, waits):
        """Each status that may pass is retried, no other one is."""
        call = retried(attempts=2)(client(server.url))
        for status in RETRIED:
            server.script[:] = [(status, {}, b"busy")]
            run(call)
        assert server.requests == 2 * len(RETRIED)
        server.requests = 0
        for status in RAISED:
            server.script[:] = [(status, {}, b"no")]
            with pytest.raises(Exception, match=r"(?i)no|error|\d") as caught:
                run(call)
            assert status_of(caught.value) == status
        assert server.requests == len(RAISED)

    def test_dropped_connection(self, client, server, waits):
        """A connection that is dropped before an answer is tried again."""
        server.script[:] = [(None, {}, b"")] * 2
        run(retried(client(server.url)))
        assert server.requests == 3

    def test_refused_connection(self, client, server, waits):
        """So is one that is refused."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            with pytest.raises(Exception, match=r"(?i)connect|refused"):
                run(retried(client(url)))
        assert len(waits) == 2

    def test_retry_after_seconds(self, client, server, waits):
        """The server's `Retry-After` in seconds is waited, never less."""
        server.script[:] = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": "0"}, b"")]
        run(retried(client(server.url), jitter=False))
        assert waits == [7.0, 0.3]

    def test_retry_after_date(self, client, server, waits):
        """So is its `Retry-After` as a date, by the server's clock."""
        server.script[:] = [(503, {"Retry-After": formatdate(time.time() + 60, usegmt=True)}, b"")]
        run(retried(client(server.url)))
        assert 59.0 <= waits[0] <= 61.0

    def test_retry_after_past_deadline(self, client, server, waits):
        """If it asks for more than the deadline leaves, the call fails at once, unchanged."""
        server.script[:] = [(429, {"Retry-After": "60"}, b"")]
        with pytest.raises(Exception, match=r"429|Too Many") as caught:
            run(retried(client(server.url), deadline=10))
        assert (waits, server.requests) == ([], 1)
        assert status_of(caught.value) == 429
        assert caught.value.__notes__[-1].endswith(
            "the server asks for 60 s, past the deadline of 10 s"
        )

    def test_host(self, client, server):
        """The host is known from the error, so that it can have a budget."""
        server.script[:] = [(503, {}, b"busy")]
        with pytest.raises(Exception, match=r"(?i)503|busy|unavailable") as caught:
            run(client(server.url))
        assert host_of(caught.value) == server.url.removeprefix("http://")
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{bound.getsockname()[1]}"
            with pytest.raises(Exception, match=r"(?i)connect|refused") as caught:
                run(client(f"http://{host}"))
        # The errors of urllib don't say where a connection was refused.
        assert host_of(caught.value) == (None if client is with_urllib else host)

    def test_never_with_classes(self, client, server, waits):
        """Given classes don't make 401 or 404 worth another try."""
        server.script[:] = [(404, {}, b"no")]
        with pytest.raises(Exception, match=r"(?i)404|no"):
            run(retried(on=Exception)(client(server.url)))
        assert server.requests == 1


@pytest.mark.parametrize("client", [with_httpx, with_requests, with_ollama])
@pytest.mark.parametrize(
    ("body", "passes"),
    [
        (b"model requires more system memory (7.5 GiB) than is available (5.2 GiB)", False),
        (b"error parsing tool call: raw='{', err=unexpected end of JSON input", False),
        (b"failed to parse grammar", False),
        (b"llama runner process has terminated: exit status 2", True),
        (b"Internal Server Error", True),
    ],
)
def test_hopeless_500(client, body, passes, server, waits):
    """A 500 whose body says that it won't pass is raised at once."""
    server.script[:] = [(500, {}, b'{"error": "' + body + b'"}')]
    call = retried(client(server.url))
    if passes:
        call()
    else:
        with pytest.raises(Exception, match=r"500|memory|pars"):
            call()
    assert server.requests == (2 if passes else 1)


def test_urllib3(server, waits):
    """urllib3's errors are judged by the reason inside them."""
    urllib3 = pytest.importorskip("urllib3")
    server.script[:] = [(None, {}, b"")] * 2

    @retried
    def call():
        with urllib3.PoolManager() as pool:
            return pool.request("GET", server.url, retries=urllib3.Retry(0)).status

    assert call() == 200
    assert server.requests == 3


def test_unrelated_context(waits):
    """The headers of an error that happened to be handled around the call say nothing."""
    httpx = pytest.importorskip("httpx")
    request = httpx.Request("GET", "http://x")
    answer = httpx.Response(429, headers={"Retry-After": "60"}, request=request)

    def fall_back():
        try:
            answer.raise_for_status()
        except httpx.HTTPStatusError:
            raise ConnectionError  # noqa: B904

    with pytest.raises(ConnectionError) as caught:
        fall_back()
    assert isinstance(caught.value.__context__, httpx.HTTPStatusError)
    assert retry_after(caught.value, 0) is None
    wrapped = RuntimeError()
    wrapped.__cause__ = httpx.HTTPStatusError("busy", request=request, response=answer)
    assert retry_after(wrapped, 0) == 60.0


class TestAsync:
    def test_retries(self, waits):
        """A coroutine function stays one, and is retried without blocking the loop."""
        errors = [ConnectionError(), ConnectionError()]

        @retried(jitter=False)
        async def work(x):
            if errors:
                raise errors.pop()
            return x

        assert inspect.iscoroutinefunction(work)
        assert asyncio.run(work(5)) == 5
        assert waits == [0.1, 0.3]

    @pytest.mark.parametrize("kind", ["lambda", "partial", "object"])
    def test_what_only_returns_a_coroutine(self, waits, kind):
        """It is retried all the same, when what it returned fails, and with the same arguments."""
        errors = [ConnectionError(), ConnectionError(), ConnectionError()]

        async def fetch(x, *, y):
            if errors:
                raise errors.pop()
            return x + y

        def begin(x, *, y):
            if len(errors) == 3:
                raise errors.pop()
            return fetch(x, y=y)

        class Client:
            def __call__(self, x, *, y):
                return begin(x, y=y)

        made = {"lambda": lambda x, *, y: begin(x, y=y), "partial": partial(begin),
                "object": Client()}[kind]  # fmt: skip
        work = retried(attempts=4, jitter=False)(made)
        assert asyncio.run(work(5, y=1)) == 6
        assert waits == [0.1, 0.3, 0.9]

    @pytest.mark.parametrize("end", ["closed", "cancelled"])
    def test_a_returned_coroutine_that_never_runs(self, end):
        """Whoever closes it, or cancels its task before it starts, is not warned of another one."""

        async def fetch():
            raise AssertionError

        async def main():
            made = retried(lambda: fetch())()
            if end == "closed":
                made.close()
                return
            task = asyncio.ensure_future(made)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            asyncio.run(main())
            gc.collect()
        assert warned == []

    def test_a_returned_coroutine_that_nobody_awaits(self):
        """Python warns once, of the coroutine that the function returned."""

        async def fetch():
            raise AssertionError

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            retried(lambda: fetch())()
            gc.collect()
        [warning] = warned
        assert "fetch' was never awaited" in str(warning.message)

    def test_a_returned_coroutine_that_is_awaited_later(self):
        """Its deadline counts from then, and the call that awaits it is the one around it."""
        calls = []

        async def fetch():
            calls.append(1)
            raise ConnectionError

        clock = FakeClock()
        with no_waiting(clock) as waits:
            made = retried(jitter=False, deadline=10)(lambda: fetch())()
            clock.advance(60.0)

            @retried
            async def work():
                return await made

            with pytest.raises(ConnectionError):
                asyncio.run(work())
        assert (len(calls), waits) == (3, [0.1, 0.3])

    def test_a_future_is_an_answer(self, waits):
        """What else can be awaited comes back as the function returned it."""

        async def main():
            future = asyncio.get_running_loop().create_future()
            assert retried(lambda: future)() is future

        asyncio.run(main())

    def test_cancelled_in_the_call(self, waits):
        """Cancellation of a running attempt passes through, and nothing is tried again."""
        calls = 0

        @retried(on=lambda error: True)
        async def work(started):
            nonlocal calls
            calls += 1
            started.set()
            await asyncio.Event().wait()

        async def main():
            started = asyncio.Event()
            task = asyncio.ensure_future(work(started))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert (calls, waits) == (1, [])

    def test_cancelled_in_the_wait(self):
        """Cancellation passes out of a wait, at once."""
        failed = 0

        async def main():
            first = asyncio.Event()

            @retried(backoff_ms=600_000, jitter=False)
            async def work():
                nonlocal failed
                failed += 1
                first.set()
                raise ConnectionError

            task = asyncio.ensure_future(work())
            await first.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(asyncio.wait_for(main(), 30))
        assert failed == 1

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_stopped_from_outside(self, waits, error):
        """What stops a call from outside is not retried either."""
        work = failing(error())
        with pytest.raises(error):
            retried(on=lambda error: True)(work)()
        assert work.calls == 1


class TestGenerators:
    def test_before_the_first_item(self, waits):
        """A generator that fails before its first item is started again."""
        errors = [ConnectionError(), ConnectionError()]

        @retried
        def work():
            if errors:
                raise errors.pop()
            sent = yield 1
            try:
                yield sent
            except KeyError:
                yield "caught"
            return "end"

        assert inspect.isgeneratorfunction(work)
        items = work()
        assert next(items) == 1
        assert items.send("sent") == "sent"
        assert items.throw(KeyError()) == "caught"
        with pytest.raises(StopIteration) as end:
            next(items)
        assert end.value.value == "end"
        assert len(waits) == 2

    def test_after_the_first_item(self, waits):
        """Once an item reached the caller, a failure is the caller's."""
        starts = 0

        @retried
        def work():
            nonlocal starts
            starts += 1
            yield 1
            raise ConnectionError

        items = work()
        assert next(items) == 1
        with pytest.raises(ConnectionError):
            next(items)
        assert (starts, waits) == (1, [])

    def test_empty_and_closed(self, waits):
        """An empty generator ends with its value; a closed one closes what it runs."""
        closed = []

        @retried
        def work(n):
            try:
                yield from range(n)
            finally:
                closed.append(n)
            return "end"

        with pytest.raises(StopIteration) as end:
            next(work(0))
        assert end.value.value == "end"
        items = work(3)
        next(items)
        items.close()
        assert closed == [0, 3]

    def test_async(self, waits):
        """The same holds for async generators."""
        errors = [ConnectionError(), ConnectionError()]
        closed = []

        @retried
        async def work(fail=False):
            try:
                if errors:
                    raise errors.pop()
                sent = yield 1
                if fail:
                    raise ConnectionError("late")
                try:
                    yield sent
                except KeyError:
                    yield "caught"
            finally:
                await asyncio.sleep(0)
                closed.append(True)

        async def main():
            items = work()
            assert await items.__anext__() == 1
            assert await items.asend("sent") == "sent"
            assert await items.athrow(KeyError()) == "caught"
            with pytest.raises(StopAsyncIteration):
                await items.__anext__()
            assert len(waits) == 2
            with pytest.raises(ConnectionError, match="late"):
                [item async for item in work(fail=True)]
            abandoned = work()
            await abandoned.__anext__()
            await abandoned.aclose()

        asyncio.run(main())
        assert inspect.isasyncgenfunction(work)
        assert (len(waits), len(closed)) == (2, 5)


class TestNested:
    def test_inner_wins(self, waits, caplog):
        """Nested retries don't multiply: the outer one lets through what the inner gave up on."""
        inner = failing(*[ConnectionError()] * 20)

        @retried
        def outer():
            return retried(inner)()

        for _ in range(2):
            with pytest.raises(ConnectionError):
                outer()
        assert inner.calls == 6
        warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "only the inner one retries" in warnings[0].getMessage()

    def test_wrapped_error(self, waits):
        """That holds when the error was wrapped on its way out, too."""
        inner = failing(*[ConnectionError()] * 20)

        @retried(on=RuntimeError)
        def outer():
            try:
                retried(inner)()
            except ConnectionError as error:
                raise RuntimeError from error

        with pytest.raises(RuntimeError):
            outer()
        assert inner.calls == 3

    def test_tasks(self, waits):
        """It holds across tasks."""
        inner = failing(*[ConnectionError()] * 20)

        @retried
        async def fetch():
            inner()

        @retried
        async def outer():
            await asyncio.gather(asyncio.ensure_future(fetch()))

        with pytest.raises(ConnectionError):
            asyncio.run(outer())
        assert inner.calls == 3

    def test_inner_ones_at_once(self, waits):
        """Whichever of several inner errors is raised, the outer one does not retry it."""
        calls = []

        @retried
        async def inner(x):
            calls.append(x)
            await asyncio.sleep(0)
            raise ConnectionError(x)

        @retried
        async def outer():
            await asyncio.gather(*map(inner, range(5)), return_exceptions=False)

        @retried
        async def outer_of_all():
            raise (await asyncio.gather(*map(inner, range(5)), return_exceptions=True))[0]

        for work in (outer, outer_of_all):
            calls.clear()
            with pytest.raises(ConnectionError):
                asyncio.run(work())
            assert len(calls) <= 15

    def test_own_error(self, waits):
        """An error of the outer function's own is retried, although an inner one succeeded."""
        inner = failing(ConnectionError())
        errors = [TimeoutError(), TimeoutError()]

        @retried
        def outer():
            retried(inner)()
            if errors:
                raise errors.pop()
            return "done"

        assert outer() == "done"

    def test_generators_leak_nothing(self, waits):
        """A generator that is half consumed doesn't count as around what its consumer calls."""

        @retried
        def items():
            yield 1
            yield 2

        inner = failing(*[ConnectionError()] * 20)

        @retried
        def consumer():
            for _ in items():
                retried(inner)()

        with pytest.raises(ConnectionError):
            consumer()
        assert inner.calls == 3


class TestFace:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"attempts": 0},
            {"attempts": 2.5},
            {"attempts": True},
            {"backoff_ms": ()},
            {"backoff_ms": (100, -1)},
            {"backoff_ms": "fast"},
            {"backoff_ms": None},
            {"jitter": 3},
            {"deadline": "soon"},
            {"deadline": -1},
            {"on": "errors"},
            {"on": ()},
            {"on": int},
            {"on": (OSError, "x")},
            {"on": KeyboardInterrupt},
            {"on": asyncio.CancelledError},
            {"give_up": 5},
        ],
    )
    def test_wrong_argument(self, wrong):
        """A wrong argument fails when decorating, and the message names it."""
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            retried(**wrong)

    def test_errors_given_twice(self):
        """Errors given by position and by name are refused."""
        with pytest.raises(ConfigError, match="once"):
            retried(OSError, on=KeyError)

    def test_unknown_argument(self):
        """An unknown argument is not swallowed."""
        with pytest.raises(TypeError):
            retried(tries=3)

    @pytest.mark.parametrize("thing", [dict, 3, property(lambda self: 1)])
    def test_not_a_function(self, thing):
        """What can't be decorated is refused when decorating."""
        with pytest.raises(ConfigError, match="@retried decorates functions"):
            retried(thing)

    def test_methods(self, waits):
        """Methods of every kind are retried, and keep name, docstring and signature."""

        class Client:
            __slots__ = ("errors",)
            __hash__ = None

            @retried
            def get(self, url: str) -> str:
                """Fetch."""
                if self.errors:
                    raise self.errors.pop()
                return url

            @retried
            @classmethod
            def make(cls):
                return cls

            @staticmethod
            @retried
            def static(x):
                return x

        client = Client()
        client.errors = [ConnectionError()]
        assert client.get("u") == "u"
        assert (Client.make(), Client.static(3)) == (Client, 3)
        assert Client.get.__doc__ == "Fetch."
        assert list(inspect.signature(Client.get).parameters) == ["self", "url"]

    def test_no_waiting_restores(self):
        """`no_waiting` puts back what was there before, also when it nests."""
        real = pausing.current()
        with no_waiting() as outer:
            with no_waiting() as inner:
                retried(failing(ConnectionError()), jitter=False)()
            retried(failing(ConnectionError()), jitter=False)()
        assert (outer, inner) == ([0.1], [0.1])
        assert pausing.current() is real
