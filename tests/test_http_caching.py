"""The network client and the cache: what a call or a rule asks for, and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import httpx
import pytest
from scripted_server import answer, scripted

import memoleo
from memoleo import Cache
from memoleo.config import Settings, _settings
from memoleo.errors import CircuitOpenError, ConfigError
from memoleo.http import AsyncNetworkClient, BreakerPolicy, Breakers, get_breakers
from memoleo.http_rules import Rule
from memoleo.metrics import Metrics
from memoleo.testing import FakeClock, no_waiting


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def cache(clock):
    with Cache(clock=clock, metrics=Metrics()) as cache:
        yield cache


@pytest.fixture(autouse=True)
def waits():
    with no_waiting() as waits:
        yield waits


def client(cache, **options):
    return AsyncNetworkClient(trust_env=False, cache=cache, breakers=Breakers(), **options)


async def test_a_call_that_says_so_is_cached(cache):
    """By type or TTL; the hit is a response of httpx, equal to the first."""
    song = answer(body=b'{"song": "blue"}', content_type="application/json")
    async with scripted(song) as (server, url), client(cache) as made:
        first = await made.get(url, type="song_recommendations", ttl="24h")
        second = await made.get(url, type="song_recommendations", ttl="24h")
        assert first.json() == second.json() == {"song": "blue"}
        assert (second.status_code, second.http_version) == (200, "HTTP/1.1")
        assert second.headers == first.headers
        assert second.request.url == first.request.url
        assert len(server.requests) == 1
        assert cache.get_stats()["by_type"] == {"song_recommendations": 1}
        assert (await made.get(url)).text == "song"
    assert len(server.requests) == 2


async def test_what_makes_a_key(cache):
    """Method, URL with its query sorted, body, headers that count, and who asks."""
    async with scripted() as (server, url), client(cache) as made:

        async def sent(method, path, **options):
            before = len(server.requests)
            response = await made.request(method, url + path, ttl="24h", **options)
            assert response.status_code == 200
            return len(server.requests) - before

        assert await sent("GET", "?a=1&b=2") == 1
        assert await sent("GET", "?b=2&a=1") == 0
        assert await sent("GET", "", params={"b": 2, "a": 1}) == 0
        assert await sent("GET", "?a=2&b=2") == 1
        assert await sent("GET", "other?a=1&b=2") == 1
        assert await sent("POST", "?a=1&b=2") == 1
        assert await sent("POST", "", json={"a": 1}) == 1
        assert await sent("POST", "", json={"a": 1}) == 0
        assert await sent("POST", "", json={"a": 2}) == 1
        assert await sent("GET", "?a=1&b=2", headers={"Accept-Language": "de"}) == 1
        assert await sent("GET", "?a=1&b=2", headers={"Authorization": "Bearer ann's"}) == 1
        assert await sent("GET", "?a=1&b=2", headers={"Authorization": "Bearer bob's"}) == 1
        assert await sent("GET", "?a=1&b=2", auth=("ann", "secret")) == 1
        assert await sent("GET", "?a=1&b=2", auth=("ann", "secret")) == 0


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "302 Found", "206 Partial"])
async def test_only_successes_are_stored(cache, status):
    """Failures, redirects and parts are not."""
    async with scripted(*[answer(status)] * 6) as (server, url), client(cache) as made:
        for _ in range(2):
            assert (await made.get(url, ttl="24h", attempts=1)).status_code == int(status[:3])
    assert len(server.requests) == 2


async def test_equal_requests_under_way_are_sent_once(cache):
    """The others wait for the first, and each gets a response of its own."""
    go_on = asyncio.Event()

    async def later():
        await go_on.wait()
        return answer()

    async with scripted(later) as (server, url), client(cache) as made:
        task = asyncio.ensure_future(made.gather([url] * 30, type="songs"))
        while not server.requests:
            await asyncio.sleep(0)
        go_on.set()
        answers = await task
        assert {each.text for each in answers} == {"song"}
        assert len({id(each) for each in answers}) == 30
    assert len(server.requests) == 1


async def test_a_cancelled_leader_takes_nobody_along(cache):
    """One of those who wait takes over; no slot stays behind."""
    go_on = asyncio.Event()

    async def later():
        await go_on.wait()
        return answer()

    async with scripted(later, later) as (server, url), client(cache) as made:
        tasks = [asyncio.ensure_future(made.get(url, ttl="24h")) for _ in range(3)]
        while not server.requests:
            await asyncio.sleep(0)
        tasks[0].cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert [(await each).text for each in tasks[1:]] == ["song", "song"]
        assert made.get_stats()["running"] == 0


async def test_revalidation(cache, clock):
    """Past its TTL, the server is asked whether the answer has changed; a 304 makes it fresh."""
    script = [
        answer(body=b"one", etag='"1"', last_modified="Wed, 25 Nov 2026 10:00:00 GMT"),
        answer("304 Not Modified", body=b"", etag='"1"'),
        answer(body=b"two", etag='"2"'),
    ]
    async with scripted(*script) as (server, url), client(cache) as made:
        assert (await made.get(url, ttl="24h")).text == "one"
        clock.advance(86_401)
        response = await made.get(url, ttl="24h")
        assert (response.status_code, response.text) == (200, "one")
        assert b'If-None-Match: "1"' in server.requests[1]
        assert b"If-Modified-Since: Wed, 25 Nov 2026 10:00:00 GMT" in server.requests[1]
        clock.advance(86_399)
        assert (await made.get(url, ttl="24h")).text == "one"
        assert len(server.requests) == 2
        clock.advance(2)
        assert (await made.get(url, ttl="24h")).text == "two"
        assert (await made.get(url, ttl="24h")).text == "two"
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [None, answer("503 Busy")], ids=["reset", "503"])
async def test_stale_if_error(cache, clock, fault):
    """If the server fails, and goes on failing, what is stale is served."""
    async with scripted(answer(body=b"one")) as (server, url), client(cache) as made:
        options = {"ttl": "24h", "stale_if_error": "7d"}
        await made.get(url, **options)
        clock.advance(86_401)
        server.script[:] = [fault] * 3
        assert (await made.get(url, **options)).text == "one"
        assert len(server.requests) == 4
        clock.advance(8 * 86_400)
        server.script[:] = [fault] * 3
        if fault is None:
            with pytest.raises(httpx.RemoteProtocolError):
                await made.get(url, **options)
        else:
            assert (await made.get(url, **options)).status_code == 503


async def test_rules(cache, clock):
    """What a rule names is cached, and nothing else; a rule can obey Cache-Control."""
    async with scripted() as (server, url):
        host = url.removeprefix("http://").rstrip("/")
        rules = [
            Rule(method="GET", url=f"{host}/songs/*", type="songs", ttl="24h"),
            {"method": "GET", "url": f"{host}/live/*", "type": "live", "ttl": "24h",
             "obey_cache_control": True},
        ]  # fmt: skip
        async with client(cache, rules=rules) as made:
            for _ in range(2):
                await made.get(f"{url}songs/1")
                await made.get(f"{url}other/1")
                await made.post(f"{url}songs/1")
            assert len(server.requests) == 5
            server.script[:] = [answer(cache_control="no-store")] * 2
            for _ in range(2):
                await made.get(f"{url}live/1")
            assert len(server.requests) == 7
            server.script[:] = [answer(cache_control="max-age=60")]
            await made.get(f"{url}live/2")
            clock.advance(59)
            await made.get(f"{url}live/2")
            assert len(server.requests) == 8
            clock.advance(2)
            await made.get(f"{url}live/2")
        assert len(server.requests) == 9
    assert cache.get_stats()["by_type"] == {"songs": 1, "live": 1}


async def test_rules_of_the_settings(cache):
    """The client keeps to [[http.rules]]; rules=() asks for none."""
    async with scripted() as (server, url):
        host = url.removeprefix("http://").rstrip("/")
        before = _settings.use(Settings(http_rules=(Rule(method="GET", url=f"{host}/*"),)))
        try:
            async with client(cache) as made, client(cache, rules=()) as plain:
                for _ in range(2):
                    await made.get(url)
                assert len(server.requests) == 1
                await plain.get(url)
        finally:
            _settings.use(before)
    assert len(server.requests) == 2


async def test_a_stream_is_never_cached(cache):
    """Not even if a rule names it."""
    async with (
        scripted() as (server, url),
        client(cache, rules=[Rule(method="GET", url="127.0.0.1:*/*")]) as made,
    ):
        for _ in range(2):
            async with made.stream("GET", url) as response:
                assert await response.aread() == b"song"
    assert len(server.requests) == 2


@pytest.mark.parametrize("fail_fast", [False, True])
async def test_a_rule_and_its_client_share_one_circuit(cache, clock, fail_fast):
    """A request counts once, old answers stand in for refused ones, and the probe gets through."""
    breakers = Breakers(BreakerPolicy(failures=2, open_for=60.0))
    statuses = [200, 503, 503, 200]
    mock = httpx.MockTransport(lambda request: httpx.Response(statuses.pop(0), text="song"))
    url = "https://api.example:8443/songs"
    rules = [{"method": "GET", "url": "api.example:8443/*", "ttl": 10, "breaker": True}]
    async with AsyncNetworkClient(
        transport=mock, cache=cache, rules=rules, attempts=1, breakers=breakers, fail_fast=fail_fast
    ) as made:
        assert (await made.get(url)).text == "song"
        clock.advance(11)
        for _ in range(5):
            assert (await made.get(url)).text == "song"
        ((host, stats),) = breakers.get_stats().items()
        assert (host, stats.failures, stats.circuit) == ("api.example:8443", 2, "open")
        with pytest.raises(httpx.ConnectError) as caught:
            await made.get(url + "/new")
        assert isinstance(caught.value, CircuitOpenError)
        assert statuses == [200]
        breakers.policy = BreakerPolicy(failures=2, open_for=0.0)
        assert (await made.get(url)).text == "song"
        assert breakers.get_stats()[host].circuit == "closed"
        assert statuses == []


async def test_the_circuits_of_enable_are_the_clients():
    """What fails for patched packages is refused to a client that fails fast."""
    mock = httpx.MockTransport(lambda request: httpx.Response(503))
    rules = [{"method": "GET", "url": "api.example/*", "breaker": True}]
    get_breakers().reset()
    try:
        with (
            memoleo.enable("httpx", rules=rules, cache=memoleo.Cache("memory://")),
            httpx.Client(transport=mock) as plain,
        ):
            for _ in range(get_breakers().policy.failures):
                plain.get("https://api.example/songs")
        async with AsyncNetworkClient(transport=mock, fail_fast=True) as made:
            with pytest.raises(CircuitOpenError):
                await made.get("https://api.example/other")
    finally:
        get_breakers().reset()


async def test_switches(cache):
    """`bypass` asks the server and stores nothing, `refresh` asks it and replaces."""
    script = [answer(body=text) for text in (b"1", b"2", b"3", b"4")]
    async with scripted(*script) as (_, url), client(cache) as made:
        assert (await made.get(url, ttl="24h")).text == "1"
        with memoleo.bypass():
            assert (await made.get(url, ttl="24h")).text == "2"
        assert (await made.get(url, ttl="24h")).text == "1"
        with memoleo.refresh():
            assert (await made.get(url, ttl="24h")).text == "3"
        assert (await made.get(url, ttl="24h")).text == "3"


async def test_a_hit_needs_no_slot_and_no_server(cache):
    """While every slot is taken, and when the server is gone."""
    async with client(cache, max_concurrent_requests=1) as made:
        async with scripted() as (_, url):
            await made.get(url, ttl="24h")
            async with made.stream("GET", url):
                assert (await made.get(url, ttl="24h")).text == "song"
        assert (await made.get(url, ttl="24h")).text == "song"


async def test_a_cached_post_is_sent_again(cache, waits):
    """What may be answered from a cache does no harm twice, unless the call says so."""
    async with scripted(None, answer(), None) as (server, url), client(cache) as made:
        assert (await made.post(url, json={"a": 1}, ttl="24h")).text == "song"
        assert len(server.requests) == 2
        with pytest.raises(httpx.RemoteProtocolError):
            await made.post(url, json={"a": 2}, ttl="24h", repeatable=False)
    assert len(server.requests) == 3


async def test_together_with_enable(cache):
    """With httpx enabled too, a call is answered by the client's own rules, once."""
    async with scripted() as (server, url):
        host = url.removeprefix("http://").rstrip("/")
        rule = Rule(method="GET", url=f"{host}/*", type="enabled", ttl="24h")
        with memoleo.enable("httpx", rules=[rule], cache=cache):
            async with client(cache) as made:
                for _ in range(2):
                    assert (await made.get(url)).text == "song"
                assert len(server.requests) == 1
                for _ in range(2):
                    assert (await made.get(url, type="asked", ttl="24h")).text == "song"
                assert len(server.requests) == 2
    assert cache.get_stats()["by_type"] == {"enabled": 1, "asked": 1}


@pytest.mark.parametrize(
    "wrong", [{"ttl": "soon"}, {"type": ""}, {"type": 3}, {"stale_if_error": "x"}]
)
async def test_wrong_wishes_are_named(cache, wrong):
    """An error before anything is sent."""
    async with client(cache) as made:
        with pytest.raises(ConfigError):
            await made.get("http://127.0.0.1:9", **wrong)
    with pytest.raises(ConfigError, match="rules"):
        client(cache, rules=[{"url": "x"}])


async def test_a_broken_cache_hurts_no_call(tmp_path):
    """A store that can't be had is a request that is sent."""
    folder = tmp_path / "file"
    folder.write_text("no folder")
    broken = Cache(f"sqlite:///{folder}/a.db?memory=0")
    async with scripted() as (server, url), client(broken) as made:
        for _ in range(2):
            assert (await made.get(url, ttl="24h")).text == "song"
    assert len(server.requests) == 2


FETCH = """
import asyncio, sys
from memoleo import Cache
from memoleo.http import AsyncNetworkClient
async def main():
    async with AsyncNetworkClient(trust_env=False, cache=Cache(sys.argv[1])) as client:
        print((await client.get(sys.argv[2], ttl="24h")).text)
asyncio.run(main())
"""


async def test_processes_share_entries(tmp_path):
    """What one process stored, another one is served, and a client of the same kind here."""
    store = f"sqlite:///{tmp_path / 'a.db'}"
    async with scripted() as (server, url):
        for _ in range(2):
            ran = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", FETCH, store, url],
                capture_output=True,
                text=True,
                check=True,
            )
            assert ran.stdout == "song\n"
        with Cache(store) as cache:
            async with client(cache) as made:
                assert (await made.get(url, ttl="24h")).text == "song"
            async with client(cache, proxy=url) as made:
                assert (await made.get(url, ttl="24h")).text == "song"
    assert len(server.requests) == 2
