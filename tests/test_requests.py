"""`enable("requests")`: real responses of the library, for the calls that rules name."""

from __future__ import annotations

import gc
import io
import pickle
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.auth import AuthBase, HTTPBasicAuth
from scripted_http import ScriptedHttp

import memoleo

SEND = vars(requests.Session)["send"]
REQUEST = vars(requests.Session)["request"]


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
    assert vars(requests.Session)["send"] is SEND
    assert vars(requests.Session)["request"] is REQUEST


@pytest.fixture
def on(server: ScriptedHttp, cache: memoleo.Cache) -> memoleo.patches._enable.Enabled:  # type: ignore[name-defined]
    return memoleo.enable("requests", rules=[rule(server, "*")], cache=cache)


def rule(server: ScriptedHttp, path: str, **more: Any) -> dict[str, Any]:
    url = f"{server.url}/{path}" if path != "*" else f"{server.url}/*"
    return {"method": ["GET", "POST", "PUT", "HEAD"], "url": url, "type": "test", **more}


def same(one: requests.Response, other: requests.Response) -> None:
    """Two responses are equal in all that a user can see of them."""
    assert type(one) is type(other) is requests.Response
    for name in ("status_code", "reason", "url", "encoding", "apparent_encoding", "elapsed", "ok"):
        assert getattr(one, name) == getattr(other, name), name
    assert dict(one.headers) == dict(other.headers)
    assert list(one.headers) == list(other.headers)
    assert one.content == other.content
    assert one.text == other.text
    assert [*one.iter_lines()] == [*other.iter_lines()]
    assert one.links == other.links
    assert [each.url for each in one.history] == [each.url for each in other.history]
    assert [each.status_code for each in one.history] == [e.status_code for e in other.history]
    assert one.request.method == other.request.method
    assert one.request.url == other.request.url
    assert one.request.body == other.request.body
    assert dict(one.request.headers) == dict(other.request.headers)
    assert one.raw.version == other.raw.version
    assert one.raw.status == other.raw.status


@pytest.mark.parametrize(
    ("path", "kwargs"),
    [
        ("echo", {"json": {"a": [1, 2.5, None, "é"]}}),
        ("echo", {"data": {"a": "1", "b": "é"}}),
        ("echo", {"data": b"\x00\xff"}),
        ("echo", {"data": '["LPUSH", "q", 1]'}),
        ("echo", {"params": {"q": "a b", "n": [1, 2]}, "headers": {"X-Mine": "1"}}),
        ("echo", {"json": {"a": 1}, "auth": ("me", "secret-word"), "timeout": 5}),
        ("echo", {"json": {"a": 1}, "cookies": {"id": "1"}}),
        ("moved", {"json": {"a": 1}}),
        ("gzip", {"json": {"a": 1}}),
        ("bytes", {"json": {"a": 1}}),
        ("echo", {}),
    ],
)
def test_a_hit_equals_what_was_first_received(
    server: ScriptedHttp, on: Any, path: str, kwargs: dict[str, Any]
) -> None:
    """Whatever is asked how: the second time nothing is sent, and the response is the same."""
    first = requests.post(f"{server.url}/{path}", **kwargs)
    asked = server.asked
    for _ in range(3):
        again = requests.post(f"{server.url}/{path}", **kwargs)
        same(first, again)
        assert again.from_cache  # type: ignore[attr-defined]
    assert server.asked == asked
    assert not hasattr(first, "from_cache")


def test_only_what_a_rule_names_is_cached(server: ScriptedHttp, cache: memoleo.Cache) -> None:
    """Counters behind GET and commands behind POST go through, whatever else is cached."""
    with memoleo.enable("requests", rules=[rule(server, "score")], cache=cache):
        for _ in range(3):
            requests.get(f"{server.url}/count")
            requests.post(server.url, json=["LPOP", "queue"])
            requests.delete(f"{server.url}/score")
            requests.post(f"{server.url}/score", json={"a": 1})
    assert server.requests == {"/count": 3, "/": 3, "/score": 4}
    assert cache.get_stats()["total_entries"] == 1


def test_every_hit_is_a_fresh_object(server: ScriptedHttp, on: Any) -> None:
    """What a caller does to a response, its headers or its data reaches nobody else."""
    for _ in range(3):
        response = requests.post(f"{server.url}/echo", json={"a": 1}, headers={"X-Mine": "1"})
        data = response.json()
        assert data["number"] == 1
        assert response.headers["Content-Type"] == "application/json"
        assert response.request.headers["X-Mine"] == "1"
        data.clear()
        response.headers.clear()
        response.request.headers.clear()
        response.request.body = b"changed"
        response._content = b"changed"


def test_a_failure_leaves_nothing(server: ScriptedHttp, on: Any, cache: memoleo.Cache) -> None:
    """A 503 once, then recovery: the failure is handed on, and never seen again."""
    server.fail = [503, 429]
    codes = [requests.post(f"{server.url}/echo", json={"a": 1}).status_code for _ in range(5)]
    assert codes == [503, 429, 200, 200, 200]
    assert server.asked == 3
    assert cache.get_stats()["total_entries"] == 1


def test_errors_are_the_librarys_own(server: ScriptedHttp, on: Any) -> None:
    """Refused connections, timeouts and bad URLs raise what they always did."""
    server.fail = [500]
    with pytest.raises(requests.HTTPError):
        requests.post(f"{server.url}/echo", json={}).raise_for_status()
    with pytest.raises(requests.ConnectionError):
        requests.post("http://127.0.0.1:9/echo", json={})
    server.gate.clear()
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{server.url}/echo", json={}, timeout=0.05)
    server.gate.set()
    with pytest.raises(requests.exceptions.MissingSchema):
        requests.post("nowhere", json={})


def test_streams_are_recorded_while_they_are_read(server: ScriptedHttp, on: Any) -> None:
    """A stream is stored once it was read to its end, and read again in any way."""

    def lines(**kwargs: Any) -> list[Any]:
        with requests.post(f"{server.url}/lines", json={}, stream=True) as response:
            return list(response.iter_lines(**kwargs))

    with requests.post(f"{server.url}/lines", json={}, stream=True) as response:
        next(response.iter_lines())  # and leaves
    assert server.asked == 1
    first = lines()
    assert len(first) == 5
    assert server.asked == 2
    assert lines() == lines(chunk_size=1) == first
    assert lines(decode_unicode=True) == first  # no encoding is declared: nothing to decode
    response = requests.post(f"{server.url}/lines", json={}, stream=True)
    assert response.raw.read() == b"\n".join(first) + b"\n"
    assert requests.post(f"{server.url}/lines", json={}).content.splitlines() == first
    assert server.asked == 2


def test_the_body_of_a_stream_may_be_read_at_once(server: ScriptedHttp, on: Any) -> None:
    """``stream=True`` and then ``.content`` or ``.json()`` is stored too."""
    first = requests.post(f"{server.url}/gzip", json={}, stream=True)
    assert first.json() == {"number": 1}
    again = requests.post(f"{server.url}/gzip", json={}, stream=True)
    assert again.json() == {"number": 1}
    assert again.headers["Content-Encoding"] == "gzip"
    assert server.asked == 1


def test_sessions_subclasses_and_prepared_requests(server: ScriptedHttp, on: Any) -> None:
    """Whatever way a call takes through the library, it is one call; overrides still run."""
    calls: list[str] = []

    class Signed(requests.Session):
        def send(self, request: Any, **kwargs: Any) -> Any:
            calls.append(request.method)
            return super().send(request, **kwargs)

    url = f"{server.url}/echo"
    first = requests.post(url, json={"a": 1})
    with requests.Session() as session, Signed() as signed:
        prepared = session.prepare_request(requests.Request("POST", url, json={"a": 1}))
        same(first, session.send(prepared))
        same(first, session.post(url, json={"a": 1}))
        same(first, session.request("post", url, None, None, None, json={"a": 1}))
        for _ in range(2):
            same(first, signed.post(url, json={"a": 1}))
    assert calls == ["POST", "POST"]
    assert server.asked == 1


def test_who_asks_counts(server: ScriptedHttp, on: Any) -> None:
    """Another token, password or cookie is another caller, however it is given."""

    class Token(AuthBase):
        def __init__(self, token: str) -> None:
            self.token = token

        def __call__(self, request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {self.token}"
            return request

    url = f"{server.url}/echo"
    for _ in range(2):
        numbers = [
            requests.post(url, json={}, **kwargs).json()["number"]
            for kwargs in (
                {},
                {"auth": ("me", "one")},
                {"auth": ("me", "two")},
                {"auth": HTTPBasicAuth("me", "one")},
                {"headers": {"Authorization": "Bearer one"}},
                {"auth": Token("one")},
                {"auth": Token("two")},
                {"cookies": {"id": "1"}},
                {"headers": {"X-Api-Key": "1"}},
            )
        ]
        assert numbers == [1, 2, 3, 2, 4, 4, 5, 6, 7]
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer one"
        assert session.post(url, json={}).json()["number"] == 4
        session.headers["Authorization"] = "Bearer new"
        assert session.post(url, json={}).json()["number"] == 8


def test_a_password_file_counts(
    server: ScriptedHttp, on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has another password in ``.netrc`` than before is another caller."""
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    for password, number in (("one", 1), ("one", 1), ("three", 2), ("three", 2)):
        file.write_text(f"machine 127.0.0.1 login me password {password}\n")
        found = requests.post(f"{server.url}/echo", json={}).json()["number"]
        assert found == number


def test_a_rotated_token_may_keep_the_hits(server: ScriptedHttp, cache: memoleo.Cache) -> None:
    """Where a rule says that the answer doesn't depend on who asks, a new token hits."""
    rules = [rule(server, "*", per_caller=False)]
    with memoleo.enable("requests", rules=rules, cache=cache):
        for token in ("one", "two", "three"):
            headers = {"Authorization": f"Bearer {token}"}
            requests.post(f"{server.url}/echo", json={}, headers=headers)
    assert server.asked == 1


def test_nothing_secret_is_in_the_file(server: ScriptedHttp, tmp_path: Path) -> None:
    """Tokens, passwords and cookies are in no file of the cache, in no form."""
    file = tmp_path / "cache.db"
    secrets = ["hf_A1b2C3d4E5f6", "pass-word-123", "key-in-query-99", "oven-ready-secret"]
    with memoleo.Cache(f"sqlite:///{file}") as cache:
        with memoleo.enable("requests", rules=[rule(server, "*")], cache=cache):
            for _ in range(2):
                headers = {"Authorization": f"Bearer {secrets[0]}", "X-Api-Key": secrets[2]}
                requests.post(f"{server.url}/echo", json={}, headers=headers)
                requests.post(f"{server.url}/echo", json={}, auth=("me", secrets[1]))
                requests.get(f"{server.url}/echo", params={"api_key": secrets[2]})
                requests.get(f"{server.url}/cookie")
                requests.get(f"{server.url}/moved", headers={"X-Token": secrets[2]})
        assert cache.get_stats()["total_entries"] == 5
    assert server.asked == 6
    for path in tmp_path.iterdir():
        block = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in block


def test_hooks_run_for_hits_too(server: ScriptedHttp, on: Any) -> None:
    """Hooks see every response, hits included, and what they change is not stored."""
    seen: list[int] = []

    def hook(response: Any, **kwargs: Any) -> Any:
        seen.append(response.status_code)
        assert "timeout" in kwargs
        response._content = b"hooked"
        return response

    url = f"{server.url}/echo"
    for _ in range(3):
        found = requests.post(url, json={}, hooks={"response": hook})
        assert found.content == b"hooked"
    assert seen == [200, 200, 200]
    assert requests.post(url, json={}).json()["number"] == 1
    assert server.asked == 1
    with requests.Session() as session:
        session.hooks["response"].append(lambda response, **_: response.raise_for_status())
        assert session.post(url, json={}).from_cache  # type: ignore[attr-defined]


def test_redirects_may_be_left_alone(server: ScriptedHttp, on: Any) -> None:
    """Who doesn't follow redirects gets the redirect, whatever is stored of its end."""
    url = f"{server.url}/moved"
    followed = requests.get(url)
    assert [each.status_code for each in followed.history] == [302]
    assert requests.get(url, allow_redirects=False).status_code == 302
    same(followed, requests.get(url))


def test_bodies_that_are_used_up_pass_through(server: ScriptedHttp, on: Any) -> None:
    """Files and generators are sent as they are, each time."""
    for _ in range(2):
        assert requests.post(f"{server.url}/echo", data=io.BytesIO(b"abc")).json()["sent"] == "abc"
    assert server.asked == 2


def test_uploads_are_known_again(server: ScriptedHttp, on: Any) -> None:
    """A form with files has another boundary each time, and is the same call."""
    for _ in range(2):
        requests.post(f"{server.url}/echo", files={"f": ("a.txt", b"abc")})
    assert server.asked == 1


def test_arguments_that_look_alike_are_told_apart(server: ScriptedHttp, on: Any) -> None:
    """1, 1.0 and True are different JSON, and a set is none: it fails as it always does."""
    url = f"{server.url}/echo"
    numbers = [requests.post(url, json={"a": a}).json()["number"] for a in (1, 1.0, True, 1)]
    assert numbers == [1, 2, 3, 1]
    assert requests.post(url, json={"a": [1]}).json()["number"] == 4
    assert requests.post(url, json={"a": (1,)}).json()["number"] == 4
    with pytest.raises(TypeError):
        requests.post(url, json={"a": {1}})


def test_switches(server: ScriptedHttp, on: Any, cache: memoleo.Cache) -> None:
    """`bypass`, `refresh` and `observe` mean for HTTP calls what they mean everywhere."""

    def number(**kwargs: Any) -> int:
        found: int = requests.post(f"{server.url}/echo", json={}, **kwargs).json()["number"]
        return found

    with memoleo.observe():
        assert [number(), number()] == [1, 2]
    assert cache.get_stats()["total_entries"] == 0
    assert [number(), number()] == [3, 3]
    with memoleo.bypass():
        assert number() == 4
    with memoleo.refresh():
        assert number() == 5
    assert number() == 5
    counts = cache.metrics.get_stats()["cache"]["test"]
    assert (counts["hits"], counts["misses"]) == (2, 2)


def test_responses_and_errors_are_let_go(server: ScriptedHttp, on: Any) -> None:
    """Nothing of a call is held on to when its caller has let go: no response, no connection."""

    def ask() -> weakref.ref[Any]:
        return weakref.ref(requests.post(f"{server.url}/echo", json={"a": 1}))

    class Asks(requests.Session):
        pass

    def fail() -> weakref.ref[Any]:
        session = Asks()
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                session.post("http://127.0.0.1:9/echo", json={"a": 1})
        return weakref.ref(session)

    found = [ask() for _ in range(3)]
    with memoleo.enable(
        "requests", rules=[{"method": "POST", "url": "127.0.0.1:9/*"}], cache="memory://"
    ):
        found.append(fail())
        gc.collect()
        assert [each() for each in found] == [None] * 4


def test_threads_share_a_session(server: ScriptedHttp, on: Any) -> None:
    """Eight threads that ask the same at once send it once; each gets a response of its own."""
    server.pause = 0.05
    found: list[Any] = []
    with requests.Session() as session:

        def work() -> None:
            for text in ("a", "b", "c"):
                response = session.post(f"{server.url}/echo", json={"t": text})
                found.append(response)
                response.json().clear()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.asked == 3
    assert len({id(each) for each in found}) == 24


def test_a_broken_cache_hurts_no_call(server: ScriptedHttp) -> None:
    """With a store that raises at every turn, calls are made as if it weren't there."""

    class Broken:
        remote = False
        shared = False

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    cache = memoleo.Cache(backend=Broken(), metrics=memoleo.Metrics())  # type: ignore[arg-type]
    with memoleo.enable("requests", rules=[rule(server, "*")], cache=cache):
        for number in (1, 2):
            assert requests.post(f"{server.url}/echo", json={}).json()["number"] == number


def test_an_open_breaker_raises_what_callers_expect(server: ScriptedHttp) -> None:
    """A call that isn't made fails with an error of the library's own kind, at once."""
    from memoleo._breaker import get_breakers

    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    try:
        with memoleo.enable("requests", rules=[rule(server, "*", breaker=True)], cache=cache):
            server.fail = [503] * 50
            codes = [requests.post(f"{server.url}/echo").status_code for _ in range(5)]
            assert codes == [503] * 5
            with pytest.raises(requests.ConnectionError) as caught:
                requests.post(f"{server.url}/echo")
            assert isinstance(caught.value, memoleo.errors.CircuitOpenError)
            assert caught.value.request.url == f"{server.url}/echo"
            assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
        assert server.asked == 5
    finally:
        get_breakers().reset()


def test_inner_rules_go_first_and_outer_ones_still_hold(
    server: ScriptedHttp, cache: memoleo.Cache
) -> None:
    """Nested blocks add to one another, and close in any order."""
    inner = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    outer = memoleo.enable("requests", rules=[rule(server, "a")], cache=cache)
    nested = memoleo.enable("requests", rules=[rule(server, "b")], cache=inner)
    for path in ("a", "a", "b", "b"):
        requests.get(f"{server.url}/{path}")
    assert server.requests == {"/a": 1, "/b": 1}
    assert inner.get_stats()["total_entries"] == cache.get_stats()["total_entries"] == 1
    outer.close()
    requests.get(f"{server.url}/a")
    requests.get(f"{server.url}/b")
    assert server.requests == {"/a": 2, "/b": 1}
    nested.close()


def test_rules_from_a_file(server: ScriptedHttp, tmp_path: Path) -> None:
    """With rules in the settings, a bare `enable` answers both libraries."""
    file = tmp_path / "memoleo.toml"
    file.write_text(
        f"""
[caching]
url = "memory://"

[[http.rules]]
method = "POST"
url = "{server.url}/echo"
type = "scores"
ttl = "30d"
ignore_body = ["/timestamp"]
require = {{ "/method" = "POST" }}
"""
    )
    with memoleo.enable(config=file) as handle:
        assert handle.targets == ("ollama", "requests", "httpx")
        for timestamp in range(3):
            requests.post(f"{server.url}/echo", json={"a": 1, "timestamp": timestamp})
    assert server.asked == 1


def test_a_wrong_rule_in_a_file_is_named(tmp_path: Path) -> None:
    """The error names file, rule and key, and what was meant."""
    file = tmp_path / "memoleo.toml"
    file.write_text('[[http.rules]]\nmethod = "GET"\nurl = "https://a.test/x"\ntll = 3\n')
    with pytest.raises(memoleo.ConfigError, match=r"http\.rules\[0\]\.tll.*Did you mean ttl"):
        memoleo.enable(config=file)


def test_pickled_responses(server: ScriptedHttp, on: Any) -> None:
    """A hit can be pickled, as any response can."""
    first = requests.post(f"{server.url}/echo", json={})
    again = requests.post(f"{server.url}/echo", json={})
    assert pickle.loads(pickle.dumps(again)).json() == first.json()
