"""HTTP rules without any HTTP library: which calls they name, what counts, what is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

import memoleo
from memoleo._exchanges.answers import Sent
from memoleo._exchanges.exchanges import Exchange, Exchanges
from memoleo.http_rules import Answer, Request, Rule
from memoleo.http_rules._judge import acceptable
from memoleo.http_rules._key import key_of, matches, meant, secrets_of
from memoleo.http_rules._presets import rules_of

URL = "https://api.example.com/v1/score"


def rule(**changes: Any) -> Rule:
    return Rule(**{"method": "POST", "url": URL, **changes})


JSON = [("content-type", "application/json")]
SPACED = b'{\n"a" :1}'


def request(body: Any = None, **changes: Any) -> Request:
    block = json.dumps({"text": "why?"} if body is None else body).encode()
    headers = [("Content-Type", "application/json"), *changes.pop("headers", ())]
    return Request(**{"method": "POST", "url": URL, "body": block, "headers": headers, **changes})


def answer(data: Any = None, status: int = 200, **headers: str) -> Answer:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    block = json.dumps({"score": 1} if data is None else data).encode()
    return Answer(status, "OK", headers=[("Content-Type", "application/json"), *named], body=block)


def key(of: Rule, to: Request) -> bytes | None:
    return key_of(of, to, lambda signs: b"|".join(signs))


@pytest.mark.parametrize(
    ("body", "is_meant"),
    [
        ({"images": ["aGk="]}, True),
        ({"messages": [{"content": "a"}, {"content": "b", "images": ["aGk="]}]}, True),
        ({"images": [], "messages": [{"images": None}]}, False),
        ({"prompt": "images"}, False),
        (["images"], False),
        ("images", False),
    ],
)
def test_a_rule_may_want_to_see_something_in_the_body(body: Any, is_meant: bool) -> None:
    """`when` means a body in which one of its pointers leads to something."""
    pictures = rule(when=["/images", "/messages/*/images"])
    assert meant(pictures, request(body)) is is_meant
    assert meant(rule(), request(body))


def test_the_first_rule_that_is_meant_decides() -> None:
    """What a rule with `when` is not meant for is left to the next one."""
    pictures, all_else = rule(when=["/images"], type="pictures"), rule(type="words")
    exchanges = Exchanges([pictures, all_else], lambda: memoleo.Cache("memory://"))
    assert exchanges.rule_for(request({"images": ["aGk="]})) is pictures
    assert exchanges.rule_for(request({"prompt": "a"})) is all_else
    assert (
        Exchanges([pictures], lambda: memoleo.Cache("memory://")).rule_for(request({"a": 1}))
        is None
    )


@pytest.mark.parametrize(
    ("pattern", "url", "named"),
    [
        (URL, URL, True),
        (URL, URL + "?verbose=1", True),
        (URL, URL + "/more", False),
        (URL, "http://api.example.com/v1/score", False),
        (URL, "HTTPS://API.Example.com:443/v1/score#part", True),
        (URL, "https://me:secret@api.example.com/v1/score", True),
        (URL, "https://api.example.com/V1/score", False),
        ("api.example.com/v1/*", "http://api.example.com/v1/a/b", True),
        ("*/v1/score", "http://anything:8080/v1/score", True),
        ("*/v1/score", "http://anything/deeper/v1/score", False),
        ("https://*.example.com/*", "https://evil.test/?.example.com/x", False),
        ("https://*.example.com/*", "https://evil.test/.example.com/x", False),
        ("https://api.example.com", "https://api.example.com/", True),
        (URL + "?mode=fast", URL + "?mode=fast", True),
        (URL + "?mode=fast", URL + "?mode=slow", False),
        (r"re:https://[a-z]+\.example\.com/v\d+/score", URL, True),
        (r"re:https://[a-z]+\.example\.com/v\d+", URL, False),
    ],
)
def test_which_urls_a_pattern_names(pattern: str, url: str, named: bool) -> None:
    """A pattern means the whole URL but for user, fragment, and a query that it doesn't have."""
    assert matches(rule(url=pattern), "POST", url) is named


def test_other_methods_are_not_named() -> None:
    """A rule for one method says nothing about another one to the same URL."""
    assert not matches(rule(), "GET", URL)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"method": "GET"}, "url: a rule needs one"),
        ({"url": URL}, "method: a rule needs one"),
        ({"method": "POST", "url": "*"}, "would match every call"),
        ({"method": "POST", "url": "https://*/*"}, "would match every call"),
        ({"method": "POST", "url": "/api"}, "name the host"),
        ({"method": "POST", "url": "re:("}, "no regular expression"),
        ({"method": "POST", "url": URL, "tll": 3}, "Did you mean ttl"),
        ({"method": "POST", "url": URL, "ttl": "soon"}, "not a duration"),
        ({"method": "POST", "url": URL, "per_caller": "no"}, "true or false"),
        ({"method": "POST", "url": URL, "statuses": [20]}, "list of numbers"),
        ({"method": "POST", "url": URL, "check": "nothing"}, "package.module:name"),
        ({"method": "POST", "url": URL, "body": [3]}, "list of names"),
        ({"preset": "olama"}, "Did you mean 'ollama'"),
        ({"preset": "ollama", "api": "other"}, "is none of"),
    ],
)
def test_wrong_rules_are_refused(table: Mapping[str, Any], message: str) -> None:
    """What is wrong in a rule is said at once, with its place in the list."""
    with pytest.raises(memoleo.ConfigError, match=r"rules\[0\]") as caught:
        rules_of([table])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "one", "other"),
    [
        ({}, request({"a": 1}), Request("POST", URL, JSON, SPACED)),
        ({}, request(), request(headers=[("User-Agent", "x"), ("Accept-Encoding", "br")])),
        ({}, request(url=URL + "?a=1&b=2"), request(url=URL + "?b=2&a=1")),
        ({"ignore_body": ["/now"]}, request({"t": 1, "now": 1}), request({"t": 1, "now": 2})),
        ({"ignore_body": ["rows/*/id"]}, request({"x": 1}), request({"x": 1})),
        ({"body": ["/inputs"]}, request({"inputs": 1, "z": 1}), request({"inputs": 1, "z": 2})),
        ({"ignore_params": ["ts"]}, request(url=URL + "?ts=1"), request(url=URL + "?ts=2")),
        ({"ignore_headers": ["X-Id"]}, request(headers=[("X-Id", "1")]), request()),
        ({"headers": ["X-A"]}, request(headers=[("X-B", "1")]), request()),
        ({"per_caller": False}, request(headers=[("Authorization", "Bearer a")]), request()),
        ({"ignore_headers": ["X-Key"]}, request(headers=[("X-Key", "1")]), request()),
    ],
)  # fmt: skip
def test_same_calls_share_a_key(changes: Any, one: Request, other: Request) -> None:
    """What has no meaning, or none by the rule, doesn't tell calls apart."""
    assert key(rule(**changes), one) == key(rule(**changes), other) is not None


@pytest.mark.parametrize(
    ("changes", "one", "other"),
    [
        ({}, request({"a": 1}), request({"a": 1.0})),
        ({}, request({"a": 1}), request({"a": True})),
        ({}, request({"a": ["x", "y"]}), request({"a": ["y", "x"]})),
        ({}, request({"a": "é"}), request({"a": "e\u0301"})),
        ({}, request(), request(url=URL + "?a=1")),
        ({}, request(url=URL + "?a=1&a=2"), request(url=URL + "?a=2&a=1")),
        ({}, request(), request(headers=[("Authorization", "Bearer a")])),
        ({}, request(headers=[("X-Api-Key", "1")]), request(headers=[("X-Api-Key", "2")])),
        ({}, request(headers=[("Cookie", "id=1")]), request(headers=[("Cookie", "id=2")])),
        ({}, request(headers=[("X-Tenant", "a")]), request(headers=[("X-Tenant", "b")])),
        ({"per_caller": False}, request(headers=[("X-Tenant", "a")]), request()),
        ({"per_caller": False}, request(url=URL + "?token=1"), request(url=URL + "?token=2")),
        ({}, request(url="https://a:1@api.example.com/v1/score"), request()),
        ({}, request(), request(verified=False)),
        ({"body": ["/a", "/b"]}, request({"a": 1}), request({"b": 1})),
    ],
)
def test_different_calls_have_different_keys(changes: Any, one: Request, other: Request) -> None:
    """Whatever may change the answer is in the key: headers that nobody listed as well."""
    assert key(rule(**changes), one) != key(rule(**changes), other)


def test_boundaries_of_forms_mean_nothing() -> None:
    """A form with files has another boundary each time, and the same key."""

    def form(mark: str) -> Request:
        body = f"--{mark}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{mark}--\r\n".encode()
        return Request(
            "POST", URL, [("Content-Type", f"multipart/form-data; boundary={mark}")], body
        )

    assert key(rule(), form("abc1")) == key(rule(), form("abc2"))


def test_what_can_not_be_read_is_not_cached() -> None:
    """A body that would be used up, or that pointers can't be applied to, has no key."""
    assert key(rule(), request(body=None).__class__("POST", URL, (), None)) is None
    assert key(rule(body=["/a"]), Request("POST", URL, (), b"a=1")) is None


@pytest.mark.parametrize(
    ("changes", "found", "stored"),
    [
        ({}, answer(), True),
        ({}, answer(status=503), False),
        ({}, answer(status=404), False),
        ({"statuses": [200, 404]}, answer(status=404), True),
        ({}, answer(status=206), False),
        ({}, answer({"error": "no"}), False),
        ({}, answer({"error": None}), True),
        ({}, Answer(200, headers=[("Content-Type", "application/json")], body=b'{"a": '), False),
        ({}, Answer(200, headers=[("Content-Type", "text/plain")], body=b'{"a": '), True),
        ({"require": {"/done": True}}, answer({"done": True}), True),
        ({"require": {"/done": True}}, answer({"done": 1}), False),
        ({"require": {"/done": True}}, answer({}), False),
        ({"require": {"/why": ["stop", "length"]}}, answer({"why": "length"}), True),
        ({"check": lambda found: found.json()["score"] > 1}, answer(), False),
        ({"obey_cache_control": True}, answer(Cache_Control="no-store"), False),
        ({}, answer(Cache_Control="no-store"), True),
        ({"obey_cache_control": True}, answer(Vary="*"), False),
        ({"obey_cache_control": True}, answer(Vary="Accept, Accept-Encoding"), True),
        ({"obey_cache_control": True}, answer(Vary="User-Agent"), False),
    ],
)
def test_which_answers_are_stored(changes: Any, found: Answer, stored: bool) -> None:
    """Failures, torn JSON, objects with an error and what the rule doesn't want are not stored."""
    assert acceptable(rule(**changes), request(), found) is stored


ZERO_SHOT = {"inputs": "a", "parameters": {"candidate_labels": ["x", "y"]}}
SIMILAR = {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}


@pytest.mark.parametrize(
    ("asked", "found", "stored"),
    [
        (ZERO_SHOT, {"sequence": "a", "labels": ["x", "y"], "scores": [0.6, 0.4]}, True),
        (ZERO_SHOT, [{"label": "x", "score": 0.6}, {"label": "y", "score": 0.4}], True),
        (ZERO_SHOT, {"labels": ["x"], "scores": [0.6]}, False),
        (ZERO_SHOT, {"labels": [], "scores": []}, False),
        (ZERO_SHOT, {"estimated_time": 20.0}, False),
        (ZERO_SHOT, {"error": "loading", "estimated_time": 20.0}, False),
        (SIMILAR, [0.1, 0.9], True),
        (SIMILAR, [0.1], False),
        (SIMILAR, [], False),
        ({"inputs": "a"}, [[0.1, 0.2], [0.3, 0.4]], True),
        ({"inputs": ["a", "b"]}, [[0.1], [0.2]], True),
        ({"inputs": "a"}, [[{"label": "x", "score": 1.0}]], True),
        ({"inputs": "a"}, [{"generated_text": "b"}], True),
        ({"inputs": "a"}, {"status": "queued"}, False),
    ],
)
def test_answers_of_an_inference_router(asked: Any, found: Any, stored: bool) -> None:
    """The preset knows the shapes of answers, and stores no other ones."""
    (hosted,) = rules_of(["huggingface"])
    assert acceptable(hosted, request(asked), answer(found)) is stored


@pytest.mark.parametrize(
    ("found", "stored"),
    [
        ({"done": True, "done_reason": "stop", "response": "a"}, True),
        ({"done": True, "done_reason": "length", "response": "a"}, True),
        ({"done": True, "done_reason": "load", "response": ""}, False),
        ({"done": True, "response": "a"}, True),
        ({"done": True, "message": {"role": "assistant", "content": "a"}}, True),
        ({"done": True, "response": ""}, False),
        ({"done": True, "done_reason": None, "response": "a"}, False),
        ({"done": False, "response": "a"}, False),
        ({"error": "no such model"}, False),
    ],
)
def test_answers_of_ollama(found: Any, stored: bool) -> None:
    """The preset stores what is done, if no reason that is given says that it is no answer."""
    (local,) = rules_of(["ollama"])
    asked = request({"model": "m", "prompt": "a"}, url="http://localhost:11434/api/generate")
    assert acceptable(local, asked, answer(found)) is stored


def test_credentials_are_found() -> None:
    """What would be a secret in a file is known, wherever it stands."""
    found = secrets_of(
        request(
            headers=[("Authorization", "Bearer hf_0123456789")],
            url="https://name:password1@api.example.com/v1/score?api_key=abcdefgh12",
        )
    )
    assert {b"hf_0123456789", b"password1", b"abcdefgh12"} <= set(found)
    found = secrets_of(
        request(
            headers=[
                ("Cookie", "sessionid=12345678; b=2"),
                ("Authorization", "Basic bWU6c2VjcmV0LXdvcmQ="),
            ]
        )
    )
    assert {b"12345678", b"secret-word"} <= set(found)
    assert b"sessionid" not in found


@pytest.fixture
def cache() -> memoleo.Cache:
    return memoleo.Cache("memory://", metrics=memoleo.Metrics())


class Server:
    """Answers with what it is given, in turn, the last one again and again."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[Mapping[str, str]] = []

    def __call__(self, extra: Mapping[str, str]) -> Sent:
        self.seen.append(extra)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return Sent(found, object())


def exchange(cache: memoleo.Cache, **changes: Any) -> Exchange:
    made = Exchanges([rule(**changes)], lambda: cache).exchange(request())
    assert made is not None
    return made


def test_second_call_is_a_hit(cache: memoleo.Cache) -> None:
    """The same call is sent once; a hit has the answer, and no response of the library."""
    server = Server(answer())
    first, second = (exchange(cache).run(server) for _ in range(2))
    assert first.answer == second.answer
    assert first.response is not None
    assert second.response is None
    assert len(server.seen) == 1


def test_nothing_of_a_failure_remains(cache: memoleo.Cache) -> None:
    """A 503 is handed on as it is, and the next call is sent again."""
    server = Server(answer(status=503), answer())
    assert exchange(cache).run(server).answer == answer(status=503)
    assert exchange(cache).run(server).answer == answer()
    assert exchange(cache).run(server).response is None


@pytest.mark.parametrize("failure", [ConnectionError("down"), answer(status=503)])
def test_stale_answer_instead_of_a_failure(failure: Any) -> None:
    """With `stale_if_error`, an expired answer is served when the server fails."""
    now = [1000.0]
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics(), clock=lambda: now[0])
    server = Server(answer(), failure)
    exchange(cache, ttl=10, stale_if_error=100).run(server)
    now[0] += 50
    assert exchange(cache, ttl=10, stale_if_error=100).run(server).answer == answer()
    assert len(server.seen) == 2


def test_an_open_breaker_serves_stale_answers_and_sends_nothing() -> None:
    """Once a host has failed often enough, it is left alone, and old answers stand in."""
    from memoleo._breaker import get_breakers

    now = [1000.0]
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics(), clock=lambda: now[0])
    server = Server(answer(), ConnectionError("down"))
    try:
        exchange(cache, ttl=10, breaker=True).run(server)
        now[0] += 50
        for _ in range(20):
            assert exchange(cache, ttl=10, breaker=True).run(server).answer == answer()
        assert len(server.seen) == 1 + get_breakers().policy.failures
        other = Exchanges([rule(breaker=True)], lambda: cache).exchange(request({"text": "new"}))
        assert other is not None
        with pytest.raises(memoleo.errors.CircuitOpenError):
            other.run(server)
    finally:
        get_breakers().reset()


def test_revalidated_answers_are_renewed() -> None:
    """A stale answer with an ETag is asked about, and a 304 makes it fresh again."""
    now = [1000.0]
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics(), clock=lambda: now[0])
    server = Server(answer(ETag='"1"'), Answer(304))
    exchange(cache, ttl=10, revalidate=True).run(server)
    now[0] += 11
    for _ in range(2):
        assert exchange(cache, ttl=10, revalidate=True).run(server).answer == answer(ETag='"1"')
    assert server.seen == [{}, {"If-None-Match": '"1"'}]


def test_an_answer_says_how_long_it_is_fresh() -> None:
    """Where a rule obeys `Cache-Control`, `max-age` shortens the TTL."""
    now = [1000.0]
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics(), clock=lambda: now[0])
    server = Server(answer(Cache_Control="max-age=5"))
    for later, sent in ((0, 1), (4, 1), (6, 2)):
        now[0] = 1000.0 + later
        exchange(cache, ttl=100, obey_cache_control=True).run(server)
        assert len(server.seen) == sent


@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_too_large_are_large(cache: memoleo.Cache, digits: int) -> None:
    """A `max-age` or `Age` that no number holds makes no difference to the call."""
    header = "max-age=" + "9" * digits
    server = Server(answer(Cache_Control=header), answer(Cache_Control=header, Age="9" * digits))
    for _ in range(2):
        exchange(cache, ttl=100, obey_cache_control=True).run(server)
    assert len(server.seen) == 1
    other = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    for _ in range(2):
        exchange(other, ttl=100, obey_cache_control=True).run(server)
    assert len(server.seen) == 3  # it is as old as it may be, and asked for once a call


def test_an_answer_that_is_stale_by_its_own_account_excuses_a_failure() -> None:
    """Past its `max-age` an answer is asked for anew, and stands in if that fails."""
    now = [1000.0]
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics(), clock=lambda: now[0])
    server = Server(answer(Cache_Control="max-age=5"), ConnectionError("down"))
    options: dict[str, Any] = {"ttl": 100, "obey_cache_control": True}
    exchange(cache, **options).run(server)
    now[0] += 6
    with pytest.raises(ConnectionError):
        exchange(cache, **options).run(server)
    excused = exchange(cache, **options, stale_if_error=10).run(server)
    assert excused.answer is not None
    assert excused.answer.body == answer().body
    now[0] += 10
    with pytest.raises(ConnectionError):
        exchange(cache, **options, stale_if_error=10).run(server)


def test_cookies_and_repeated_credentials_are_not_stored(cache: memoleo.Cache) -> None:
    """A cookie is stripped from what is stored, and an echo of a token is not stored at all."""
    server = Server(answer(Set_Cookie="id=1"))
    exchange(cache).run(server)
    found = exchange(cache).run(server).answer
    assert found is not None
    assert found.headers == [("Content-Type", "application/json")]
    echo = Server(answer({"you sent": "hf_0123456789"}))
    asked = request({"t": 2}, headers=[("Authorization", "Bearer hf_0123456789")])
    for _ in range(2):
        made = Exchanges([rule()], lambda: cache).exchange(asked)
        assert made is not None
        made.run(echo)
    assert len(echo.seen) == 2
