"""The network client against real servers: limits, versions, faults, deadlines, event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import logging
import os
import re
import socket
import threading
from email.utils import formatdate

import httpcore
import httpx
import pytest
from https_server import CountingApp, names_on_loopback, serving
from scripted_server import answer, scripted

from memoleo import retried
from memoleo._retries import pausing
from memoleo.config import Networking, Settings, _settings
from memoleo.errors import CircuitOpenError, ConfigError
from memoleo.http import AsyncNetworkClient, BreakerPolicy, Breakers, get_async_client
from memoleo.http import _shared as shared
from memoleo.http._sockets import Sockets
from memoleo.metrics import get_metrics
from memoleo.testing import no_waiting


def client(**options):
    options.setdefault("breakers", Breakers(BreakerPolicy(failures=1000)))
    return AsyncNetworkClient(trust_env=False, **options)


def open_sockets(port=None):
    """Every socket of this process that is open, without those of the server at a port."""
    gc.collect()
    return {
        each.fileno()
        for each in gc.get_objects()
        if isinstance(each, socket.socket)
        and each.fileno() >= 0
        and (port is None or each.getsockname()[1:2] != (port,))
    }


@pytest.fixture
def no_leaks():
    """Let no socket stay open that was not open before."""
    before = open_sockets()
    yield
    assert open_sockets() <= before


@pytest.fixture
def waits():
    with no_waiting() as waits:
        yield waits


def idle(made):
    stats = made.get_stats()
    return stats["running"] == stats["waiting"] == 0


class TestLimits:
    @pytest.mark.parametrize("tls", [False, True], ids=["HTTP/1.1", "HTTP/2"])
    def test_500_requests_to_5_hosts(self, tls, no_leaks):
        """Both limits hold at every instant, as the server sees it, and both are made use of."""
        app = CountingApp(together=16)
        # The first 60 go to one host, so that its limit is reached while others have room.
        numbers = [0] * 60 + [number % 5 for number in range(440)]
        with names_on_loopback() as hosts, serving(app, tls=tls) as (scheme, port, verify):

            async def main():
                async with client(verify=verify) as made:
                    urls = [
                        f"{scheme}://{hosts[number]}:{port}/{place}"
                        for place, number in enumerate(numbers)
                    ]
                    answers = await made.gather(urls)
                    assert idle(made)
                    return urls, answers, made.get_stats()["by_host"]

            urls, answers, by_host = asyncio.run(main())
        assert [str(each.url) for each in answers] == urls
        assert {(each.status_code, each.content) for each in answers} == {(200, b"song")}
        assert app.most_at_once == 16
        assert max(app.most.values()) == app.most[hosts[0]] == 6
        version = "HTTP/2" if tls else "HTTP/1.1"
        assert {each.http_version for each in answers} == {version}
        assert {each["http_version"] for each in by_host.values()} == {version}
        assert dict(app.versions) == {"2" if tls else "1.1": 500}

    async def test_redirects_take_the_slots_of_where_they_go(self):
        """A redirect to a host that is full waits there, and holds no slot of the first host."""
        release = asyncio.Event()

        async def later():
            await release.wait()
            return answer()

        async with scripted(later) as (there, there_url), scripted() as (here, here_url):
            # Two names of the same machine, so two hosts.
            elsewhere = there_url.replace("127.0.0.1", "localhost")
            here.script[:] = [answer("302 Found", location=elsewhere)]
            async with client(per_host_limit=1, follow_redirects=True) as made:
                first = asyncio.ensure_future(made.get(elsewhere))
                while not there.requests:
                    await asyncio.sleep(0)
                second = asyncio.ensure_future(made.get(here_url))
                while made.get_stats()["waiting"] == 0:
                    await asyncio.sleep(0)
                assert made.get_stats()["by_host"]["localhost"]["running"] == 1
                assert made.get_stats()["by_host"]["127.0.0.1"]["running"] == 0
                assert (await made.get(here_url)).text == "song"
                release.set()
                answers = await asyncio.gather(first, second)
                assert [each.text for each in answers] == ["song", "song"]
                assert [len(each.history) for each in answers] == [0, 1]

    async def test_a_streamed_answer_keeps_its_slot_until_it_is_closed(self, no_leaks):
        """And no longer, whether it was read, left or forgotten."""
        async with scripted() as (_, url), client() as made:
            async with made.stream("GET", url) as response:
                assert made.get_stats()["running"] == 1
                assert await response.aread() == b"song"
                assert made.get_stats()["running"] == 0
            with contextlib.suppress(KeyError):
                async with made.stream("GET", url):
                    raise KeyError
            assert idle(made)
            response = await made.send(made.build_request("GET", url), stream=True)
            assert made.get_stats()["running"] == 1
            response.stream = None
            del response
            gc.collect()
            await asyncio.sleep(0)
            assert idle(made)

    async def test_no_slot_is_held_while_a_retry_waits(self):
        """Others go to the host in the meantime."""
        seen = []

        class Watching(pausing.Pausing):
            async def apause(self, seconds):
                seen.append((seconds, made.get_stats()["running"]))
                assert (await made.get(url)).text == "song"

        async with scripted(answer("503 Busy", retry_after="7"), answer(), None) as (_, url):
            before = pausing.replace(Watching())
            try:
                async with client(max_concurrent_requests=1, per_host_limit=1) as made:
                    assert (await made.get(url)).text == "song"
                    await made.get(url)
            finally:
                pausing.replace(before)
        assert seen[0] == (7.0, 0)

    async def test_pool_timeout(self):
        """httpx's pool timeout is how long a request waits for a slot."""
        async with scripted(), client(max_concurrent_requests=1, attempts=1) as made:
            async with scripted() as (_, url), made.stream("GET", url):
                with pytest.raises(httpx.PoolTimeout, match=r"127\.0\.0\.1"):
                    await made.get(url, timeout=httpx.Timeout(5, pool=0.01))
            assert idle(made)


class TestFaults:
    async def test_statuses_that_pass(self, waits):
        """Busy answers are tried again, with the waits that the rules and the server give."""
        script = [
            answer("429 Too Many", retry_after="3"),
            answer(
                "503 Busy", retry_after=formatdate(2_000_000_060), date=formatdate(2_000_000_000)
            ),
        ]
        async with scripted(*script) as (server, url), client() as made:
            response = await made.get(url)
        assert (response.text, response.extensions["attempts"]) == ("song", 3)
        assert waits == [3.0, 60.0]
        assert len(server.requests) == 3

    async def test_the_last_answer_is_returned_as_it_is(self, waits):
        """When attempts are used up there is no exception: httpx has none for statuses."""
        script = [answer("503 Busy", body=b"first"), *[answer("503 Busy", body=b"last")] * 2]
        async with scripted(*script) as (server, url), client() as made:
            response = await made.get(url)
            assert (response.status_code, response.text) == (503, "last")
            assert response.extensions["attempts"] == 3
            with pytest.raises(httpx.HTTPStatusError, match="503"):
                response.raise_for_status()
            assert (await made.get(url)).extensions["attempts"] == 1
        assert len(server.requests) == 4

    @pytest.mark.parametrize("status", ["400 Bad", "401 Who", "403 No", "404 Not Found", "501 X"])
    async def test_statuses_that_last(self, waits, status):
        """What won't be better next time is returned at once."""
        async with scripted(answer(status)) as (server, url), client() as made:
            assert (await made.get(url)).status_code == int(status[:3])
        assert (len(server.requests), waits) == (1, [])

    async def test_resets_before_and_in_the_middle_of_a_body(self, waits, no_leaks):
        """A connection that breaks is tried again; what was read of the body is forgotten."""
        cut = answer(body=b"a song that is cut short")[:-10]
        async with scripted(None, (cut, None)) as (server, url), client() as made:
            assert (await made.get(url)).text == "song"
            assert idle(made)
        assert len(server.requests) == 3

    async def test_the_last_error_is_raised_with_notes(self, waits):
        """It is httpx's own, unchanged."""
        async with scripted(None, None, None) as (_, url), client() as made:
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await made.get(url)
        assert caught.value.__notes__[0].startswith("memoleo: 3 attempts in ")

    async def test_refused(self, waits):
        """Nobody listens: three attempts, and `ConnectError`."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            async with client() as made:
                with pytest.raises(httpx.ConnectError):
                    await made.get(f"http://127.0.0.1:{bound.getsockname()[1]}")
                assert idle(made)
        assert len(waits) == 2

    async def test_slow_answers(self, waits):
        """A read timeout is tried again; the next answer is in time."""

        async def never():
            await asyncio.Event().wait()

        async with scripted(never) as (server, url), client(timeout=0.05) as made:
            assert (await made.get(url)).text == "song"
        assert len(server.requests) == 2

    async def test_redirects_and_gzip(self, waits):
        """Followed if httpx is told so, and unpacked."""
        script = [
            answer("302 Found", location="/there"),
            answer(body=gzip.compress(b"la la la"), content_encoding="gzip"),
        ]
        async with scripted(*script) as (server, url), client() as made:
            response = await made.get(url, follow_redirects=True)
            assert response.text == "la la la"
            assert server.requests[1].startswith(b"GET /there ")
            server.script[:] = [answer("302 Found", location="/there")]
            assert (await made.get(url)).status_code == 302

    async def test_retry_after_past_the_deadline_fails_at_once(self, waits):
        """The answer that asked for it comes back, and nothing is waited for."""
        script = [answer("429 Too Many", retry_after="60")]
        async with scripted(*script) as (server, url), client(deadline=10) as made:
            assert (await made.get(url)).status_code == 429
        assert (waits, len(server.requests)) == ([], 1)

    async def test_a_stream_is_tried_again_before_its_head_only(self, waits, no_leaks):
        """What breaks while the body is read is the reader's to know."""
        cut = answer(body=b"a song that is cut short")[:-10]
        script = [None, answer("503 Busy"), (cut, None)]
        async with scripted(*script) as (server, url), client() as made:
            async with made.stream("GET", url) as response:
                assert response.extensions["attempts"] == 3
                with pytest.raises(httpx.RemoteProtocolError):
                    await response.aread()
            assert idle(made)
        assert len(server.requests) == 3


class TestRepeating:
    async def test_post_is_not_repeated_if_it_may_have_arrived(self, waits):
        """A reset after sending, or a 500, is final; a 429 wasn't carried out."""
        async with scripted(None) as (server, url), client() as made:
            with pytest.raises(httpx.RemoteProtocolError):
                await made.post(url, json={"a": 1})
            server.script[:] = [answer("500 Oops")]
            assert (await made.post(url, json={"a": 1})).status_code == 500
            assert (len(server.requests), waits) == (2, [])
            server.script[:] = [answer("429 Too Many"), answer("503 Busy")]
            assert (await made.post(url, json={"a": 1})).status_code == 200

    @pytest.mark.parametrize(
        "options", [{"repeatable": True}, {"headers": {"Idempotency-Key": "1"}}]
    )
    async def test_post_is_repeated_where_that_is_safe(self, waits, options):
        """If the caller says so, or the server can tell; with the same body."""
        async with scripted(None, answer("500 Oops")) as (server, url), client() as made:
            assert (await made.post(url, content=b"a song", **options)).text == "song"
        assert [each[-6:] for each in server.requests] == [b"a song"] * 3

    async def test_a_body_that_can_be_read_once_is_sent_once(self, waits):
        """A generator can't be rewound; but a connection that was refused took nothing of it."""

        async def body():
            yield b"abc"

        async with scripted(answer("429 Too Many")) as (server, url), client() as made:
            headers = {"Content-Length": "3"}
            response = await made.put(url, content=body(), headers=headers)
            assert response.status_code == 429
        assert len(server.requests) == 1

    async def test_attempts_of_one_call(self, waits):
        """A call may say how often; GET may be said not to be repeatable."""
        async with scripted(*[None] * 3) as (server, url), client() as made:
            with pytest.raises(httpx.RemoteProtocolError):
                await made.get(url, attempts=1)
            with pytest.raises(httpx.RemoteProtocolError):
                await made.get(url, repeatable=False)
            assert len(server.requests) == 2
            with pytest.raises(ConfigError, match="attempts"):
                await made.get(url, attempts=0)

    async def test_around_it_retried_does_not_multiply(self, waits, caplog):
        """`@retried` around the client lets through what the client gave up on."""
        for script in ([None] * 9, [answer("503 Busy")] * 9):
            async with scripted(*script) as (server, url), client() as made:

                @retried
                async def fetch(made=made, url=url):
                    return (await made.get(url)).raise_for_status()

                with pytest.raises(httpx.HTTPError):
                    await fetch()
            assert len(server.requests) == 3
        assert "only the inner one retries" in caplog.text

    async def test_a_broken_host_uses_up_its_budget(self):
        """After that, each request is sent once."""
        async with scripted(*[None] * 1000) as (server, url), client() as made:
            with no_waiting(lambda: 0.0, passes=False):
                await made.gather([url] * 100)
        assert len(server.requests) == 200


class TestDeadline:
    async def test_cuts_a_running_attempt(self, no_leaks):
        """A request that hangs ends with httpx's timeout, and leaves nothing behind."""

        async def never():
            await asyncio.Event().wait()

        async with scripted(never) as (_, url), client() as made:
            with pytest.raises(httpx.TimeoutException, match=r"deadline of 0\.05 s"):
                await made.get(url, deadline="50ms")
            assert idle(made)

    async def test_covers_the_queue(self):
        """Waiting for a slot counts."""
        async with scripted() as (_, url), client(max_concurrent_requests=1) as made:
            async with made.stream("GET", url):
                with pytest.raises(httpx.TimeoutException, match="deadline"):
                    await made.get(url, deadline=0.01)
            assert idle(made)

    async def test_a_wait_past_it_does_not_begin(self):
        """The last error comes at once instead."""
        async with scripted(None) as (_, url), client(backoff_ms=3_600_000) as made:
            with pytest.raises(httpx.RemoteProtocolError):
                await made.get(url, deadline=1)

    async def test_wrong_ones_are_refused(self):
        """The message names the parameter."""
        async with client() as made:
            with pytest.raises(ConfigError, match="deadline"):
                await made.get("http://127.0.0.1", deadline="soon")


class TestBreaker:
    async def test_fails_fast_where_asked(self, waits):
        """A circuit that is open raises at once; elsewhere requests go on."""
        breakers = Breakers(BreakerPolicy(failures=3))
        async with scripted(*[None] * 3) as (server, url):
            async with client(breakers=breakers, fail_fast=True) as made:
                with pytest.raises(httpx.RemoteProtocolError):
                    await made.get(url)
                with pytest.raises(CircuitOpenError, match=r"127\.0\.0\.1"):
                    await made.get(url)
                assert idle(made)
            async with client(breakers=breakers) as made:
                assert (await made.get(url)).text == "song"
        assert len(server.requests) == 4
        (stats,) = breakers.get_stats().values()
        assert (stats.failures, stats.refused, stats.opened) == (3, 2, 1)

    async def test_what_counts_as_failing(self, waits):
        """500 does, 404 and 429 don't."""
        breakers = Breakers(BreakerPolicy(failures=2))
        script = [answer("404 No"), answer("429 Wait"), answer("500 Oops"), answer()]
        async with scripted(*script) as (_, url), client(breakers=breakers, attempts=1) as made:
            for _ in range(4):
                await made.get(url)
        (stats,) = breakers.get_stats().values()
        assert (stats.failures, stats.successes) == (1, 2)


class TestGather:
    async def test_kinds_order_and_errors_in_place(self, waits):
        """Whatever stands for a request; exceptions stand where answers would."""
        async with scripted() as (server, url), client() as made:
            told = []
            answers = await made.gather(
                [
                    url + "a",
                    httpx.URL(url + "b"),
                    ("POST", url + "c"),
                    {"url": url + "d", "method": "PUT", "content": b"x"},
                    made.build_request("GET", url + "e"),
                    "nonsense://x",
                ],
                headers={"X-Song": "1"},
                progress=lambda done, total: told.append((done, total)),
            )
        assert [each.text for each in answers[:5]] == ["song"] * 5
        assert [each.request.method for each in answers[:5]] == ["GET", "GET", "POST", "PUT", "GET"]
        assert [str(each.url)[-1] for each in answers[:5]] == list("abcde")
        assert isinstance(answers[5], httpx.UnsupportedProtocol)
        assert told[-1] == (6, 6)
        assert sum(b"x-song: 1" in each.lower() for each in server.requests) == 4

    @pytest.mark.parametrize("tls", [False, True], ids=["HTTP/1.1", "HTTP/2"])
    def test_cancelled_in_the_middle(self, tls, no_leaks):
        """No task, no slot and no socket stays behind, and the client works on."""
        app = CountingApp()
        app.hold = threading.Event()
        with names_on_loopback() as hosts, serving(app, tls=tls) as (scheme, port, verify):

            async def main():
                async with client(verify=verify) as made:
                    urls = [f"{scheme}://{hosts[n % 5]}:{port}/{n}" for n in range(200)]
                    task = asyncio.ensure_future(made.gather(urls))
                    while app.inside.total() < 16:
                        await asyncio.sleep(0.001)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert asyncio.all_tasks() == {asyncio.current_task()}
                    assert idle(made)
                    app.hold.set()
                    again = await made.gather(urls)
                    assert {each.status_code for each in again} == {200}
                assert asyncio.all_tasks() == {asyncio.current_task()}

            asyncio.run(main())

    @pytest.mark.parametrize("tls", [False, True], ids=["HTTP/1.1", "HTTP/2"])
    def test_cancelled_while_it_connects(self, tls, no_leaks):
        """At whatever moment: no socket is forgotten, and who was not cancelled is answered."""
        app = CountingApp()
        with serving(app, tls=tls) as (scheme, port, verify):

            async def main(moment, which):
                async with client(verify=verify) as made:
                    tasks = [
                        asyncio.ensure_future(made.get(f"{scheme}://127.0.0.1:{port}/{number}"))
                        for number in range(3)
                    ]
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    tasks[which].cancel()
                    await asyncio.wait(tasks)
                    assert idle(made)
                # The one that was cancelled may have been through already.
                return {each.result().status_code for each in tasks if not each.cancelled()}

            for moment in range(1, 31):
                assert asyncio.run(main(moment, moment % 3)) == {200}

    def test_cancelled_at_every_turn_of_the_loop(self, no_leaks):
        """From looking up the name to reading the answer: the socket is closed, the slot free."""

        async def main(turn):
            async with scripted() as (_, url), client(verify=False) as made:
                task = asyncio.ensure_future(made.get(url))
                for _ in range(turn):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert idle(made)
                assert asyncio.all_tasks() <= {asyncio.current_task(), *made_by_the_server()}

        def made_by_the_server():
            return {each for each in asyncio.all_tasks() if "_serve" in repr(each.get_coro())}

        for turn in range(1, 60):
            asyncio.run(main(turn))


class TestLoops:
    def test_one_client_in_many_loops(self, no_leaks):
        """Each loop has a pool of its own, closed with it: no "Event loop is closed"."""
        app = CountingApp()
        made = client()
        with serving(app, tls=False) as (scheme, port, _):
            for _ in range(3):
                before = open_sockets(port)

                async def main():
                    answers = await made.gather([f"{scheme}://127.0.0.1:{port}/"] * 5)
                    return [each.status_code for each in answers]

                assert asyncio.run(main()) == [200] * 5
                assert open_sockets(port) == before
            assert made._pools._pools == {}

    def test_a_loop_that_is_just_closed(self, no_leaks):
        """Without `asyncio.run` nobody says farewell: the next use, or closing, lets go."""
        app = CountingApp()
        made = client()
        with serving(app, tls=False) as (scheme, port, _):
            url = f"{scheme}://127.0.0.1:{port}/"
            before = open_sockets(port)
            for _ in range(2):
                loop = asyncio.new_event_loop()
                assert loop.run_until_complete(made.get(url)).status_code == 200
                loop.close()
            assert asyncio.run(made.get(url)).status_code == 200
            assert open_sockets(port) == before
            loop = asyncio.new_event_loop()
            loop.run_until_complete(made.get(url))
            loop.close()
            asyncio.run(made.aclose())
            assert open_sockets(port) == before

    def test_closed_from_another_loop(self, no_leaks):
        """Closing the client closes the pools of loops that run in other threads, too."""
        app = CountingApp()
        made = client()
        with serving(app, tls=False) as (scheme, port, _):
            used, go_on = threading.Event(), threading.Event()

            async def elsewhere():
                await made.get(f"{scheme}://127.0.0.1:{port}/")
                pool = made._pools.running()
                used.set()
                while pool.transports:
                    await asyncio.sleep(0.001)
                go_on.set()

            thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
            thread.start()
            used.wait()
            asyncio.run(made.aclose())
            thread.join()
            assert go_on.is_set()

    @pytest.mark.parametrize("tls", [False, True], ids=["HTTP/1.1", "HTTP/2"])
    def test_closed_in_the_middle(self, tls, no_leaks):
        """What is under way, or waits for a slot, ends in an error and opens nothing any more."""
        app = CountingApp()
        app.hold = threading.Event()
        with serving(app, tls=tls) as (scheme, port, verify):

            async def main():
                before = open_sockets(port)
                made = client(verify=verify)
                urls = [f"{scheme}://127.0.0.1:{port}/{number}" for number in range(20)]
                task = asyncio.ensure_future(made.gather(urls))
                while app.inside.total() < 6:
                    await asyncio.sleep(0.001)
                await made.aclose()
                ended = await task
                assert all(isinstance(each, Exception) for each in ended)
                assert "has been closed" in str(ended[-1])
                assert open_sockets(port) == before

            try:
                asyncio.run(main())
            finally:
                app.hold.set()

    def test_closed_while_it_connects(self, no_leaks):
        """At whatever turn of the loop: no request goes out any more, and no socket stays."""

        async def later():
            await asyncio.sleep(0.02)
            return answer()

        async def main(turns):
            async with scripted(*[later] * 8) as (_, url):
                made = client(attempts=1)
                tasks = [asyncio.ensure_future(made.get(url)) for _ in range(4)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                await made.aclose()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(each, (RuntimeError, httpx.ReadError)) for each in ended)

        for turns in range(16):
            asyncio.run(main(turns))

    @pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
    @pytest.mark.parametrize("found", ["streams", "no pool", "no backend", "fixed backend"])
    def test_sockets_that_cannot_be_followed(self, tls, found, no_leaks):
        """Another httpcore may keep its sockets elsewhere, or let nobody touch them: it works."""

        class Stream:
            __slots__ = ("_stream",)

            def __init__(self, stream):
                self._stream = stream

            read = property(lambda self: self._stream.read)
            write = property(lambda self: self._stream.write)
            aclose = property(lambda self: self._stream.aclose)
            get_extra_info = property(lambda self: self._stream.get_extra_info)

            if tls:

                async def start_tls(self, *args, **kwargs):
                    return Stream(await self._stream.start_tls(*args, **kwargs))

        class Backend(httpcore.AnyIOBackend):
            async def connect_tcp(self, *args, **kwargs):
                return Stream(await super().connect_tcp(*args, **kwargs))

        class Pool:
            _network_backend = None

        class FixedPool:
            _network_backend = property(lambda self: Backend())

        class Transport(httpx.AsyncBaseTransport):
            def __init__(self, verify):
                self._inner = httpx.AsyncHTTPTransport(verify=verify)
                if found != "no pool":
                    self._pool = Pool() if found == "no backend" else FixedPool()

            async def handle_async_request(self, request):
                return await self._inner.handle_async_request(request)

            async def aclose(self):
                await self._inner.aclose()

        with serving(CountingApp(), tls=tls) as (scheme, port, verify):

            async def main():
                if found == "streams":
                    transport = httpx.AsyncHTTPTransport(verify=verify)
                    transport._pool._network_backend = Backend()
                else:
                    transport = Transport(verify)
                async with client(transport=transport) as made:
                    assert (await made.get(f"{scheme}://127.0.0.1:{port}/")).text == "song"
                    if found == "no backend":
                        assert transport._pool._network_backend is None

            asyncio.run(main())

    async def test_what_else_a_backend_can_do(self):
        """Arguments and methods that another httpcore has reach its backend."""
        asked = []

        class Backend(httpcore.AnyIOBackend):
            async def connect_tcp(self, host, port, *, happily):
                asked.append((host, port, happily))
                return await super().connect_tcp(host, port)

            async def connect_elsewhere(self):
                asked.append("elsewhere")

        async with scripted() as (_, url), httpx.AsyncHTTPTransport() as transport:
            transport._pool._network_backend = Backend()
            sockets = Sockets()
            sockets.watch(transport)
            backend = transport._pool._network_backend
            port = httpx.URL(url).port
            await backend.connect_tcp("127.0.0.1", port, happily=True)
            await backend.connect_elsewhere()
            await backend.sleep(0)
            assert asked == [("127.0.0.1", port, True), "elsewhere"]
            assert open_sockets(port)
            await sockets.close()

    def test_forgotten_clients_close_their_connections(self, no_leaks):
        """A client that goes without being closed takes its sockets along."""
        app = CountingApp()
        with serving(app, tls=False) as (scheme, port, _):

            async def main():
                before = open_sockets(port)
                made = client()
                await made.get(f"{scheme}://127.0.0.1:{port}/")
                assert open_sockets(port) > before
                del made
                gc.collect()
                while open_sockets(port) > before:
                    await asyncio.sleep(0.001)

            asyncio.run(main())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_forked_child_has_connections_of_its_own(self):
        """It works there, and the parent's connections go on."""
        app = CountingApp()
        made = client()
        with serving(app, tls=False) as (scheme, port, _):
            url = f"{scheme}://127.0.0.1:{port}/"
            loop = asyncio.new_event_loop()
            loop.run_until_complete(made.get(url))
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = 0 if asyncio.run(made.get(url)).status_code == 200 else 2
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert loop.run_until_complete(made.get(url)).status_code == 200
            loop.run_until_complete(made.aclose())
            loop.close()

    def test_the_shared_client(self):
        """One for the program, again and again; a new one if somebody closed it."""
        app = CountingApp()
        with serving(app, tls=False) as (scheme, port, _):
            for _ in range(2):

                async def main():
                    made = get_async_client()
                    assert made is get_async_client()
                    async with made:
                        assert (await made.get(f"{scheme}://127.0.0.1:{port}/")).text == "song"
                    assert get_async_client() is not made

                asyncio.run(main())
        shared._client = None


class TestHttpx:
    async def test_it_is_an_httpx_client(self):
        """Headers, auth, cookies, params, hooks and base URL are httpx's."""
        seen = []

        async def hook(response):
            seen.append(response.status_code)

        script = [answer("401 Who", www_authenticate="Basic"), answer(set_cookie="a=1")]
        async with scripted(*script) as (server, url):
            made = client(
                base_url=url,
                headers={"X-Song": "1"},
                auth=("leo", "secret"),
                event_hooks={"response": [hook]},
            )
            assert isinstance(made, httpx.AsyncClient)
            async with made:
                assert (await made.get("songs", params={"q": "blue"})).status_code == 401
                await made.get("songs")
                await made.get("songs")
                assert made.cookies["a"] == "1"
        assert seen == [401, 200, 200]
        assert server.requests[0].startswith(b"GET /songs?q=blue ")
        assert b"X-Song: 1" in server.requests[0]
        assert b"Authorization: Basic " in server.requests[0]
        assert b"Cookie: a=1" in server.requests[2]

    async def test_verbs(self):
        """Each of httpx's verbs goes through the same door."""
        async with scripted() as (server, url), client() as made:
            for verb in ("get", "options", "head", "post", "put", "patch", "delete"):
                server.script[:] = [answer(body=b"")]
                assert (await getattr(made, verb)(url, deadline=60)).status_code == 200
        assert [each.split()[0].decode() for each in server.requests] == [
            "GET", "OPTIONS", "HEAD", "POST", "PUT", "PATCH", "DELETE",
        ]  # fmt: skip

    async def test_transports_and_mounts_of_the_user(self):
        """They are used, within the limits."""
        most = 0

        async def handle(request):
            nonlocal most
            most = max(most, made.get_stats()["running"])
            await asyncio.sleep(0)
            return httpx.Response(200, text=request.url.host)

        mock = httpx.MockTransport(handle)
        async with client(transport=mock, mounts={"all://b.test": mock}) as made:
            answers = await made.gather([f"http://{host}.test" for host in "ab" * 20])
        assert [each.text for each in answers] == ["a.test", "b.test"] * 20
        assert most == 12

    async def test_proxies(self, monkeypatch):
        """A proxy of one's own, and those of the environment, keep to the limits too."""
        async with scripted() as (server, url):
            async with client(proxy=url) as made:
                assert (await made.get("http://songs.invalid/a")).text == "song"
                assert made.get_stats()["by_host"]["songs.invalid"]["http_version"] == "HTTP/1.1"
            monkeypatch.setenv("http_proxy", url)
            async with AsyncNetworkClient() as made:
                assert (await made.get("http://songs.invalid/b")).text == "song"
        assert [each.split()[1] for each in server.requests] == [
            b"http://songs.invalid/a",
            b"http://songs.invalid/b",
        ]

    @pytest.mark.parametrize("name", ["_init_transport", "_init_proxy_transport"])
    def test_an_httpx_that_makes_transports_elsewhere_is_refused(self, monkeypatch, name):
        """Limits are never lost without a word: the client can't be made."""
        # As if that httpx called them by another name.
        monkeypatch.delattr(AsyncNetworkClient, name)
        with pytest.raises(ConfigError, match=re.escape(f"httpx {httpx.__version__}")):
            client(proxy="http://127.0.0.1:9")

    async def test_http2_can_be_left_out(self):
        """With http2=False the server is not offered it."""
        with serving(CountingApp(), tls=True) as (scheme, port, verify):
            for http2, version in ((None, "HTTP/2"), (False, "HTTP/1.1")):
                async with client(verify=verify, http2=http2) as made:
                    response = await made.get(f"{scheme}://127.0.0.1:{port}/")
                    assert response.http_version == version

    async def test_defaults_come_from_the_settings(self):
        """The section [networking] says what nobody else says."""
        network = Networking(
            max_concurrent_requests=3,
            per_host_limit=2,
            timeout_connect=1.5,
            timeout_read=4.0,
            retry_attempts=2,
            retry_backoff_ms=(1.0,),
        )
        before = _settings.use(Settings(networking=network))
        try:
            made = AsyncNetworkClient()
        finally:
            _settings.use(before)
        assert (made.timeout.connect, made.timeout.read, made.timeout.pool) == (1.5, 4.0, None)
        assert (made._pools.total, made._pools.per_host) == (3, 2)
        assert made._policy.attempts == 2
        plain = AsyncNetworkClient()
        assert (plain.timeout.connect, plain.timeout.read) == (10.0, 180.0)
        assert (plain._pools.total, plain._pools.per_host) == (16, 6)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_concurrent_requests": 0},
            {"per_host_limit": True},
            {"attempts": 0},
            {"backoff_ms": "fast"},
            {"deadline": "soon"},
        ],
    )
    def test_wrong_arguments_are_named(self, wrong):
        """At once, when the client is made."""
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AsyncNetworkClient(**wrong)
        with pytest.raises(TypeError):
            AsyncNetworkClient(retries=3)

    async def test_metrics(self, waits):
        """Latencies, errors and retries stand under the operation "http"."""
        get_metrics().reset()
        script = [answer("503 Busy"), answer(), None, None, None]
        async with scripted(*script) as (_, url), client() as made:
            await made.get(url)
            with pytest.raises(httpx.RemoteProtocolError):
                await made.get(url)
        stats = get_metrics().get_stats()["http"]
        assert (stats["count"], stats["errors"], stats["retries"]) == (1, 1, 3)

    async def test_nothing_is_logged_above_info(self, caplog):
        """A request that works says nothing."""
        async with scripted() as (_, url), client() as made:
            await made.get(url)
        assert [each for each in caplog.records if each.levelno > logging.INFO] == []

    async def test_connections_are_kept(self):
        """Requests in turn go over one connection."""
        async with scripted() as (server, url), client() as made:
            for _ in range(5):
                await made.get(url)
            async with made.stream("GET", url) as response:
                await response.aread()
        assert server.opened == 1
