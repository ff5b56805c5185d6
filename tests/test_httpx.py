"""`enable("httpx")`: real responses of the library, sync and async, for the calls rules name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
from scripted_http import ScriptedHttp

import memoleo

SEND = vars(httpx.Client)["send"]
ASEND = vars(httpx.AsyncClient)["send"]


@pytest.fixture
def server() -> Iterator[ScriptedHttp]:
    with ScriptedHttp() as script:
        yield script


@pytest.fixture
def cache() -> memoleo.Cache:
    return memoleo.Cache("memory://", metrics=memoleo.Metrics())


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    memoleo.disable()
    assert vars(httpx.Client)["send"] is SEND
    assert vars(httpx.AsyncClient)["send"] is ASEND


@pytest.fixture
def on(server: ScriptedHttp, cache: memoleo.Cache) -> Any:
    return memoleo.enable("httpx", "requests", rules=[rule(server)], cache=cache)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as opened:
        yield opened


def rule(server: ScriptedHttp, **more: Any) -> dict[str, Any]:
    return {"method": ["GET", "POST"], "url": f"{server.url}/*", "type": "test", **more}


def same(one: httpx.Response, other: httpx.Response) -> None:
    """Two responses are equal in all that a user can see of them."""
    assert type(one) is type(other) is httpx.Response
    names = (
        "status_code", "reason_phrase", "http_version", "url", "encoding", "charset_encoding",
        "elapsed", "is_success", "is_closed", "is_stream_consumed", "headers", "content", "text",
        "has_redirect_location",
    )  # fmt: skip
    for name in names:
        assert getattr(one, name) == getattr(other, name), name
    assert one.headers.raw == other.headers.raw
    assert [*one.iter_lines()] == [*other.iter_lines()]
    assert [each.url for each in one.history] == [each.url for each in other.history]
    assert one.request.method == other.request.method
    assert one.request.url == other.request.url
    assert one.request.content == other.request.content
    assert one.request.headers == other.request.headers


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"json": {"a": [1, 2.5, None, "é"]}}),
    ("echo", {"data": {"a": "1", "b": "é"}}),
    ("echo", {"content": b"\x00\xff"}),
    ("echo", {"params": {"q": "a b"}, "headers": {"X-Mine": "1"}}),
    ("echo", {"json": {"a": 1}, "auth": ("me", "secret-word")}),
    ("moved", {"json": {"a": 1}, "follow_redirects": True}),
    ("gzip", {"json": {"a": 1}}),
    ("bytes", {"json": {"a": 1}}),
]


@pytest.mark.parametrize(("path", "kwargs"), CALLS)
def test_a_hit_equals_what_was_first_received(
    server: ScriptedHttp, on: Any, client: httpx.Client, path: str, kwargs: dict[str, Any]
) -> None:
    """Whatever is asked how: the second time nothing is sent, and the response is the same."""
    first = client.post(f"{server.url}/{path}", **kwargs)
    asked = server.asked
    for _ in range(2):
        again = client.post(f"{server.url}/{path}", **kwargs)
        same(first, again)
        assert again.from_cache  # type: ignore[attr-defined]
    assert server.asked == asked
    assert not hasattr(first, "from_cache")


@pytest.mark.parametrize(("path", "kwargs"), CALLS)
async def test_asynchronous_clients_share_the_answers(
    server: ScriptedHttp, on: Any, client: httpx.Client, path: str, kwargs: dict[str, Any]
) -> None:
    """An asynchronous client gets what a synchronous one stored, equal in all respects."""
    first = client.post(f"{server.url}/{path}", **kwargs)
    asked = server.asked
    async with httpx.AsyncClient(verify=False) as other:
        again = await other.post(f"{server.url}/{path}", **kwargs)
        same(first, again)
    assert server.asked == asked


async def test_asynchronous_calls_at_once_are_sent_once(server: ScriptedHttp, on: Any) -> None:
    """Eight tasks that ask the same share one request, and each has a response of its own."""
    server.pause = 0.05
    async with httpx.AsyncClient(verify=False) as client:
        found = await asyncio.gather(
            *(client.post(f"{server.url}/echo", json={"a": 1}) for _ in range(8))
        )
    assert server.asked == 1
    assert len({id(each) for each in found}) == 8
    assert {each.json()["number"] for each in found} == {1}


def test_both_libraries_share_the_answers(
    server: ScriptedHttp, on: Any, client: httpx.Client
) -> None:
    """The same request through requests and httpx is one entry, credentials included."""
    kwargs: dict[str, Any] = {"json": {"b": 1, "a": ["é"]}, "auth": ("me", "secret-word")}
    first = requests.post(f"{server.url}/echo", **kwargs)
    again = client.post(f"{server.url}/echo", **kwargs)
    assert again.json() == first.json()
    assert again.from_cache  # type: ignore[attr-defined]
    assert dict(again.headers) == {name.lower(): first.headers[name] for name in first.headers}
    assert client.get(f"{server.url}/gzip").json() == requests.get(f"{server.url}/gzip").json()
    assert server.asked == 2


def test_only_what_a_rule_names_is_cached(
    server: ScriptedHttp, cache: memoleo.Cache, client: httpx.Client
) -> None:
    """Counters and commands go through, whatever else is cached."""
    rules = [{"method": "POST", "url": f"{server.url}/score"}]
    with memoleo.enable("httpx", rules=rules, cache=cache):
        for _ in range(3):
            client.get(f"{server.url}/count")
            client.post(server.url, json=["LPOP", "queue"])
            client.get(f"{server.url}/score")
            client.post(f"{server.url}/score", json={"a": 1})
    assert server.requests == {"/count": 3, "/": 3, "/score": 4}


def test_a_failure_leaves_nothing(server: ScriptedHttp, on: Any, client: httpx.Client) -> None:
    """A 503 once, then recovery; and connection errors are the library's own."""
    server.fail = [503]
    codes = [client.post(f"{server.url}/echo", json={}).status_code for _ in range(3)]
    assert codes == [503, 200, 200]
    assert server.asked == 2
    with pytest.raises(httpx.ConnectError):
        client.post("http://127.0.0.1:9/echo")


Lines = Callable[[], list[str]]


def test_streams_are_recorded_while_they_are_read(
    server: ScriptedHttp, on: Any, client: httpx.Client
) -> None:
    """A stream is stored once it was read to its end, and read again in any way."""
    with client.stream("POST", f"{server.url}/lines", json={}) as response:
        next(response.iter_lines())  # and leaves
    assert server.asked == 1
    for _ in range(2):
        with client.stream("POST", f"{server.url}/lines", json={}) as response:
            first = list(response.iter_lines())
    assert server.asked == 2
    assert len(first) == 5
    with client.stream("POST", f"{server.url}/lines", json={}) as response:
        assert "".join(response.iter_text()).splitlines() == first
    with client.stream("POST", f"{server.url}/lines", json={}) as response:
        assert b"".join(response.iter_raw()).decode().splitlines() == first
    for _ in range(2):
        with client.stream("POST", f"{server.url}/gzip", json={}) as response:
            response.read()
            assert response.json() == {"number": 3}
            assert response.headers["Content-Encoding"] == "gzip"
    assert server.asked == 3


def test_a_stream_that_was_cleared_while_it_was_read(
    server: ScriptedHttp, on: Any, client: httpx.Client, cache: memoleo.Cache
) -> None:
    """What a stream began to say before its entries were removed is not stored after it."""
    with client.stream("POST", f"{server.url}/lines", json={}) as response:
        lines = response.iter_lines()
        next(lines)
        cache.clear(type="test")
        list(lines)
    assert list(cache.entries()) == []


async def test_asynchronous_streams(server: ScriptedHttp, on: Any) -> None:
    """The same for asynchronous streams, which replay what synchronous ones stored."""
    async with httpx.AsyncClient(verify=False) as client:
        found = []
        for _ in range(2):
            async with client.stream("POST", f"{server.url}/lines", json={}) as response:
                found.append([line async for line in response.aiter_lines()])
        async with client.stream("POST", f"{server.url}/lines", json={}) as response:
            await response.aread()
            found.append(response.text.splitlines())
    assert found[0] == found[1] == found[2]
    assert requests.post(f"{server.url}/lines", json={}).text.splitlines() == found[0]
    assert server.asked == 1


def test_who_asks_counts(server: ScriptedHttp, on: Any, client: httpx.Client) -> None:
    """Another token or password is another caller; who can't be told apart is not cached."""

    class Token(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
            request.headers["Authorization"] = "Bearer late"
            yield request

    url = f"{server.url}/echo"

    def number(**kwargs: Any) -> int:
        found: int = client.post(url, json={}, **kwargs).json()["number"]
        return found

    for _ in range(2):
        assert number() == 1
        assert number(auth=("me", "one")) == 2
        assert number(auth=httpx.BasicAuth("me", "two")) == 3
        assert number(headers={"Authorization": "Bearer one"}) == 4
        assert number(cookies=None, headers={"Cookie": "id=1"}) == 5
    assert number(auth=Token()) == 6
    assert number(auth=Token()) == 7


def test_hooks_and_transports_of_ones_own(server: ScriptedHttp, on: Any) -> None:
    """Response hooks run for hits; what may change a request on its way is not cached."""
    seen: list[int] = []
    hooks: dict[str, Any] = {"response": [lambda response: seen.append(response.status_code)]}
    with httpx.Client(verify=False, event_hooks=hooks) as client:
        for _ in range(3):
            client.post(f"{server.url}/echo", json={})
    assert seen == [200, 200, 200]
    assert server.asked == 1
    hooks = {"request": [lambda request: request.headers.update({"X-Signed": "1"})]}
    with httpx.Client(verify=False, event_hooks=hooks) as client:
        for _ in range(2):
            client.post(f"{server.url}/echo", json={})
    assert server.asked == 3
    mocked = httpx.MockTransport(lambda request: httpx.Response(200, json={"mocked": True}))
    with httpx.Client(transport=mocked) as client:
        assert client.post(f"{server.url}/echo", json={}).json() == {"mocked": True}


def test_generators_are_sent_as_they_are(
    server: ScriptedHttp, on: Any, client: httpx.Client
) -> None:
    """A body that would be used up is not read, and the call not cached."""
    for _ in range(2):
        client.post(f"{server.url}/echo", content=iter([b"a", b"b"]))
    assert server.asked == 2


async def test_asynchronous_generators_are_sent_as_they_are(server: ScriptedHttp, on: Any) -> None:
    """The same for asynchronous bodies."""

    async def body() -> AsyncIterator[bytes]:
        yield b"ab"

    async with httpx.AsyncClient(verify=False) as client:
        for _ in range(2):
            await client.post(f"{server.url}/echo", content=body())
    assert server.asked == 2


def test_redirects_may_be_left_alone(server: ScriptedHttp, on: Any, client: httpx.Client) -> None:
    """Who doesn't follow redirects gets the redirect, whatever is stored of its end."""
    assert client.get(f"{server.url}/moved", follow_redirects=True).status_code == 200
    assert client.get(f"{server.url}/moved").status_code == 302


def test_a_closed_client_says_so(server: ScriptedHttp, on: Any) -> None:
    """A client that was closed raises what it always does, answer at hand or not."""
    with httpx.Client(verify=False) as client:
        client.post(f"{server.url}/echo", json={})
    with pytest.raises(RuntimeError, match="closed"):
        client.post(f"{server.url}/echo", json={})


def test_an_open_breaker_raises_what_callers_expect(
    server: ScriptedHttp, client: httpx.Client
) -> None:
    """A call that isn't made fails with an error of the library's own kind."""
    from memoleo._breaker import get_breakers

    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    try:
        with memoleo.enable("httpx", rules=[rule(server, breaker=True)], cache=cache):
            server.fail = [503] * 50
            for _ in range(5):
                assert client.post(f"{server.url}/echo").status_code == 503
            with pytest.raises(httpx.ConnectError) as caught:
                client.post(f"{server.url}/echo")
            assert isinstance(caught.value, memoleo.errors.CircuitOpenError)
            assert caught.value.request.url == f"{server.url}/echo"
    finally:
        get_breakers().reset()


async def test_a_cancelled_call_leaves_the_others_alone(server: ScriptedHttp, on: Any) -> None:
    """Who waits for a call whose maker is cancelled makes it himself."""
    server.gate.clear()
    async with httpx.AsyncClient(verify=False) as client:
        tasks = [
            asyncio.ensure_future(client.post(f"{server.url}/echo", json={})) for _ in range(3)
        ]
        while not server.requests["/echo"]:
            await asyncio.sleep(0.005)
        tasks[0].cancel()
        server.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [each.status_code for each in found[1:]] == [200, 200]  # type: ignore[union-attr]
