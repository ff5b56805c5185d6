"""What a user may ask of `enable("ollama")`: profiles, policies, retries and timeouts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from ollama_asking import asking, opened
from scripted_ollama import ScriptedOllama

import memoleo
from memoleo import ConfigError
from memoleo._platform.processors import performance_cores, physical_cores
from memoleo.patches import _ollama_answers
from memoleo.patches._ollama_call import UNSEEDED
from memoleo.patches._ollama_policies import is_sampled
from memoleo.testing import FakeClock

ASK: list[dict[str, Any]] = [{"role": "user", "content": "why?"}]
FAST: dict[str, Any] = {"backoff_ms": 0, "jitter": False}


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as script:
        yield script


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: ScriptedOllama) -> Iterator[Callable[..., Any]]:
    with asking(request.param, server.url) as call:
        yield call


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


@pytest.fixture
def cache(clock: FakeClock) -> memoleo.Cache:
    return memoleo.Cache("memory://", metrics=memoleo.Metrics(), clock=clock)


def settings(folder: Path, text: str) -> Path:
    file = folder / "memoleo.toml"
    file.write_text(text, encoding="utf-8")
    return file


# Profiles.

STAGES: dict[str, dict[str, Any]] = {
    "stage1": {"model": "m"},
    "stage2": {"model": "other"},
}


def sent(server: ScriptedOllama) -> dict[str, Any]:
    """The options of the last request."""
    found: dict[str, Any] = server.bodies[-1].get("options", {})
    return found


def test_profiles_are_off_by_default(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """Without being asked, nothing is added to a request."""
    with memoleo.enable(cache=cache):
        ask("chat", "m", ASK)
    assert server.bodies[-1].keys() <= {"model", "messages", "tools", "stream"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_profile_fills_in_what_was_left_out(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, stream: bool
) -> None:
    """Each model gets the options of its stage, the threads of this machine and 30 minutes."""
    with memoleo.enable(cache=cache, profiles=STAGES):
        ask("chat", "m", ASK, stream=stream)
        threads = min(performance_cores(), 6)
        assert sent(server) == {"num_predict": 120, "temperature": 0.3, "num_thread": threads}
        assert server.bodies[-1]["keep_alive"] == "30m"
        ask("generate", "other:latest", "why?", stream=stream)
        assert sent(server) == {"num_predict": 160, "temperature": 0.7, "num_thread": threads}
        ask("embed", "m", "why?")
        assert sent(server) == {}
        for _ in range(2):
            ask("chat", "m", ASK, stream=stream)
    assert server.asked == 3


@pytest.mark.parametrize("own", [
    {"temperature": 0}, {"temperature": 0.0, "num_predict": -1}, ollama.Options(temperature=0),
    {"num_thread": 1, "seed": 3},
])  # fmt: skip
def test_what_a_caller_says_is_never_overridden(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, own: Any
) -> None:
    """Every option that a caller set, 0 included, reaches the server as it was."""
    given = own if isinstance(own, dict) else own.model_dump(exclude_unset=True)
    with memoleo.enable(cache=cache, profiles=STAGES):
        ask("chat", "m", ASK, options=own, keep_alive=0)
    assert sent(server).items() >= given.items()
    assert sent(server).keys() >= {"num_predict", "temperature", "num_thread"}
    assert server.bodies[-1]["keep_alive"] == 0
    assert isinstance(own, ollama.Options) or own == given


def test_options_of_a_profile_are_in_the_key(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """Another profile is another question; saying the same by hand is the same one."""
    with memoleo.enable(cache=cache, profiles={"mine": {"model": "m", "num_predict": 5}}):
        ask("chat", "m", ASK)
    with memoleo.enable(cache=cache, profiles={"mine": {"model": "m", "num_predict": 6}}):
        ask("chat", "m", ASK)
    assert server.asked == 2
    with memoleo.enable(cache=cache):
        ask("chat", "m", ASK, options=sent(server))
    assert server.asked == 2


def test_images_get_the_vision_profile(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """With the three profiles on, a question with images is one for `vision`."""
    with memoleo.enable(cache=cache, profiles=True):
        ask("generate", "m", "what?", images=[b"image"])
        assert sent(server)["num_predict"] == 150
        assert "temperature" not in sent(server)
        ask("chat", "m", [{"role": "user", "content": "what?", "images": [b"image"]}])
        assert sent(server)["num_predict"] == 150
        ask("chat", "m", ASK)
        assert sent(server) == {}


def test_profiles_are_found_by_type_and_predicate(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """A policy's type chooses the profile of that name; a predicate sees the request."""
    profiles: dict[str, dict[str, Any]] = {
        "long": {"when": lambda body: len(body["prompt"]) > 10, "verb": "generate", "num_ctx": 512},
        "stage2": {},
    }
    policies = {"second": {"model": "oth*", "type": "stage2"}}
    with memoleo.enable(cache=cache, profiles=profiles, policies=policies):
        ask("generate", "m", "a long question")
        assert sent(server).keys() == {"num_ctx", "num_thread"}
        ask("generate", "m", "short")
        assert sent(server) == {}
        ask("generate", "other", "short")
        assert sent(server)["num_predict"] == 160
    assert cache.get_stats()["by_type"] == {"ollama.generate": 2, "stage2": 1}


def test_a_predicate_that_fails_fills_in_nothing(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a user's predicate is said and costs the profile, not the call."""
    with memoleo.enable(cache=cache, profiles={"x": {"when": lambda body: body["no"], "top_k": 1}}):
        ask("chat", "m", ASK)
        ask("chat", "m", ASK)
    assert sent(server) == {}
    assert "a profile failed" in caplog.text


def test_one_line_of_config_turns_profiles_on(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, tmp_path: Path
) -> None:
    """`ollama.profiles = true`, and the section `inference` says what they fill in."""
    file = settings(tmp_path, "ollama.profiles = true\n")
    with memoleo.enable(cache=cache, config=file):
        ask("generate", "m", "what?", images=[b"image"])
        assert sent(server)["num_predict"] == 150
    file = settings(tmp_path, """\
        [inference]
        num_threads = 3
        num_ctx = 1024
        text_max_new_tokens_stage1 = 33
        temperature_stage1 = 0
        vision_max_tokens = 44
        [ollama]
        keep_alive = "90s"
        [ollama.profiles.stage1]
        model = "m"
        [ollama.profiles.vision]
        [ollama.profiles.mine]
        model = "other"
        stop = ["a", "b"]
        options.new_option = 1
        """)  # fmt: skip
    with memoleo.enable(cache=cache, config=file):
        ask("chat", "m", ASK)
        machine = {"num_thread": 3, "num_ctx": 1024}
        assert sent(server) == {"num_predict": 33, "temperature": 0, **machine}
        assert server.bodies[-1]["keep_alive"] == 90
        ask("chat", "other", ASK)
        assert sent(server) == {"stop": ["a", "b"], "new_option": 1, **machine}
        ask("chat", "other", [{**ASK[0], "images": [b"image"]}])
        assert sent(server) == {"num_predict": 44, **machine}


def test_another_machine_chooses_its_threads(cache: memoleo.Cache) -> None:
    """The cores of this machine say nothing about a server elsewhere."""
    bodies = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={"model": "m", "message": {"role": "user", "content": "x"}})

    with (
        memoleo.enable(cache=cache, profiles=STAGES),
        opened("http://far.test", transport=httpx.MockTransport(handle)) as client,
    ):
        client.chat("m", ASK)
    assert b"num_predict" in bodies[-1]
    assert b"num_thread" not in bodies[-1]


def test_switched_off_fills_in_nothing(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`enabled = false` is the plain call, without profiles."""
    with memoleo.enable(cache=cache, profiles=STAGES):
        monkeypatch.setattr("memoleo._switch.on", False)
        ask("chat", "m", ASK)
    assert sent(server) == {}


def test_loading_is_not_touched_by_profiles(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """A call that only unloads a model does that, and keeps no model alive."""
    seen = []
    with memoleo.enable(cache=cache, profiles={"x": {"when": seen.append, "model": "m"}}):
        assert ask("generate", "m", keep_alive=0).done_reason == "unload"
    assert seen == []


def test_there_are_fast_cores() -> None:
    """At least one core counts as fast, and no more than there are."""
    assert 1 <= performance_cores() <= physical_cores()


# Policies.


def test_types_and_ttls_by_verb_model_and_predicate(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, clock: FakeClock
) -> None:
    """The first policy that says something decides it, and others fill in the rest."""
    policies: dict[str, dict[str, Any]] = {
        "urgent": {"when": lambda body: "now" in str(body), "ttl": "10s"},
        "chats": {"verb": "chat", "model": "m", "type": "talk", "ttl": "1h"},
        "vectors": {"verb": ["embed", "embeddings"], "ttl": "forever"},
    }
    now = [{"role": "user", "content": "now"}]
    with memoleo.enable(cache=cache, policies=policies):
        for messages in (ASK, now):
            ask("chat", "m", messages)
        ask("chat", "other", ASK)
        ask("embed", "m", "why?")
        ttls = {entry.tags[1] + str(entry.ttl): entry.type for entry in cache.entries()}
        assert ttls == {
            "model:m:latest3600.0": "talk",
            "model:m:latest10.0": "talk",
            "model:other:latest2592000.0": "ollama.chat",
            "model:m:latestinf": "ollama.embed",
        }
        clock.advance(11)
        asked = server.asked
        ask("chat", "m", ASK)
        assert server.asked == asked
        ask("chat", "m", now)
        assert server.asked == asked + 1


@pytest.mark.parametrize("stream", [False, True])
def test_sampled_answers_can_be_skipped(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, stream: bool
) -> None:
    """Calls that would vary are made each time, counted as refused; others are cached."""
    with memoleo.enable(cache=cache, policies={"all": {"unseeded": "skip"}}):
        for _ in range(2):
            ask("chat", "m", ASK, stream=stream)
            ask("chat", "m", ASK, stream=stream, options={"seed": 1})
            ask("chat", "m", ASK, stream=stream, options={"temperature": 0})
            ask("embed", "m", "why?")
    assert server.asked == 5
    assert cache.metrics.get_stats()["cache"]["ollama.chat"]["refused"] == 2


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_served_in_turn(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, stream: bool
) -> None:
    """With `variants=3` the first three calls compute, and further ones get these in turn."""
    with memoleo.enable(cache=cache, policies={"all": {"variants": 3}}):
        answers = [ask("generate", "m", "why?", stream=stream) for _ in range(7)]
        seeded = [ask("generate", "m", "why?", options={"seed": 1}) for _ in range(3)]
    assert server.asked == 4
    assert answers[3:] == [*answers[:3], answers[0]]
    assert answers[0] != answers[1] != answers[2]
    assert seeded[0] == seeded[1] == seeded[2]


def test_freezing_what_varies_is_said_once(
    cache: memoleo.Cache,
    server: ScriptedOllama,
    ask: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program learns that its first answer is kept, unless it said what it wants."""
    monkeypatch.setattr(_ollama_answers, "_said", [])
    with caplog.at_level(logging.WARNING, "memoleo"):
        with memoleo.enable(cache=cache, policies={"all": {"unseeded": "store"}}):
            ask("chat", "m", ASK)
        with memoleo.enable(cache=cache):
            ask("chat", "m", ASK, options={"seed": 2})
            assert caplog.messages == []
            for number in range(3):
                ask("generate", "m", f"why {number}?")
    assert len(caplog.messages) == 1
    assert "m:latest is asked without a seed" in caplog.text
    assert len([*cache.entries(tag=UNSEEDED)]) == 4
    counted = cache.metrics.get_stats()["cache"]
    assert [counted[f"ollama.{verb}"]["unseeded"] for verb in ("chat", "generate")] == [1, 3]


@pytest.mark.parametrize(("options", "sampled"), [
    (None, True), ({}, True), ({"temperature": 0}, False), ({"temperature": 0.1}, True),
    ({"seed": 0}, False), ({"seed": -1}, True), ({"top_k": 1}, False), ({"num_ctx": 1}, True),
])  # fmt: skip
def test_what_counts_as_sampled(options: Any, sampled: bool) -> None:
    """A seed, temperature 0 or a choice of one make an answer repeatable."""
    assert is_sampled({"options": options}) is sampled


@pytest.mark.parametrize("stream", [False, True])
def test_stale_answers_excuse_a_failing_server(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, clock: FakeClock, stream: bool
) -> None:
    """Past its TTL an answer serves only if the call fails; what was never asked fails."""
    with memoleo.enable(cache=cache, policies={"all": {"ttl": "1m", "stale_if_error": "1h"}}):
        first = ask("chat", "m", ASK, stream=stream)
        vectors = ask("embed", "m", ["a", "b"])
        clock.advance(100)
        server.fail = [503, 503, 503]
        assert ask("chat", "m", ASK, stream=stream) == first
        assert ask("embed", "m", ["b", "a"]).embeddings == vectors.embeddings[::-1]
        with pytest.raises(ollama.ResponseError):
            ask("embed", "m", ["b", "new"])
        assert ask("chat", "m", ASK, stream=stream) != first
        server.stop()
        clock.advance(100)
        again = ask("chat", "m", ASK, stream=stream)
        assert again != first
        with pytest.raises((ConnectionError, httpx.ConnectError)):
            ask("chat", "m", [*ASK, *ASK], stream=stream)
        clock.advance(4000)
        with pytest.raises((ConnectionError, httpx.ConnectError)):
            ask("chat", "m", ASK, stream=stream)
    counted = cache.metrics.get_stats()["cache"]
    assert counted["ollama.chat"]["stale_if_error"] == 2
    assert counted["ollama.embed"]["stale_if_error"] == 2


def test_policies_in_the_config(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, tmp_path: Path
) -> None:
    """The same settings stand in a file, after those of the call."""
    file = settings(
        tmp_path,
        '[ollama.policies.a]\nmodel = "m"\ntype = "filed"\nttl = "5m"\n'
        '[ollama.policies.b]\nverb = ["chat"]\nunseeded = "skip"\n',
    )
    with memoleo.enable(cache=cache, config=file, policies={"c": {"ttl": 60}}):
        ask("chat", "m", ASK)
        ask("chat", "m", ASK, options={"seed": 1})
    (entry,) = cache.entries()
    assert (entry.type, entry.ttl) == ("filed", 60.0)


# Retries and timeouts.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_busy_server_is_asked_again(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, stream: bool, known: bool
) -> None:
    """A full queue and a model that loads pass; the caller sees one answer, stored once."""
    with memoleo.enable(cache=cache, retries=FAST):
        if known:
            ask("chat", "m", [*ASK, *ASK])
        before = server.requests["/api/chat"]
        server.fail = [503, 500]
        counted = memoleo.get_metrics().get_stats().get("ollama", {}).get("retries", 0)
        answer = ask("chat", "m", ASK, stream=stream)
        assert ask("chat", "m", ASK, stream=stream) == answer
    assert server.requests["/api/chat"] - before == 3
    assert memoleo.get_metrics().get_stats()["ollama"]["retries"] == counted + 2


def test_a_failure_that_lasts_is_the_clients_own(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """After the last attempt, and for what won't pass, the error is raised as it was."""
    with memoleo.enable(cache=cache, retries={**FAST, "attempts": 2}):
        server.fail = [503, 503, 404]
        with pytest.raises(ollama.ResponseError, match="made to fail") as caught:
            ask("chat", "m", ASK)
        assert caught.value.status_code == 503
        assert "2 attempts" in caught.value.__notes__[0]  # type: ignore[attr-defined]
        with pytest.raises(ollama.ResponseError) as caught:
            ask("chat", "m", ASK)
        assert caught.value.status_code == 404
    assert server.requests["/api/chat"] == 3


def test_without_being_asked_nothing_is_repeated(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """The default is the client's own behaviour."""
    with memoleo.enable(cache=cache):
        server.fail = [503]
        with pytest.raises(ollama.ResponseError):
            ask("chat", "m", ASK)
    assert server.requests["/api/chat"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_starting_is_awaited(
    cache: memoleo.Cache, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is tried again until the server listens."""
    server = ScriptedOllama()
    with server:
        url = server.url
    tries = []
    port = server.port

    def wait() -> Iterator[float]:
        while True:
            tries.append(1)
            if len(tries) == 2:
                server.start(port)
            yield 0

    with memoleo.enable(cache=cache, retries={"attempts": 5, "backoff_ms": wait, "jitter": False}):
        try:
            with asking("sync", url) as ask:
                answer = ask("chat", "m", ASK, stream=stream)
        finally:
            server.stop()
    assert answer
    assert len(tries) == 2


def test_a_stream_that_has_begun_is_not_repeated(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """What was handed to the caller can't be taken back, so a later failure is its own."""
    server.error_after = 2
    with (
        memoleo.enable(cache=cache, retries=FAST),
        pytest.raises(ollama.ResponseError, match="broke"),
    ):
        ask("chat", "m", ASK, stream=True)
    assert server.asked == 1


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_are_not_cached_are_retried_too(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, stream: bool
) -> None:
    """Loading a model, bypassed and skipped calls only compute: repeating them is safe."""
    with memoleo.enable(cache=cache, retries=FAST):
        for args in (("generate", "m"), ("generate", "m", "why?")):
            server.fail = [503]
            with memoleo.bypass():
                assert ask(*args, stream=stream)
        server.fail = [503]
        with pytest.raises(ollama.ResponseError):
            ask("show", "m")


def test_a_timeout_ends_a_call_that_hangs(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """A client that would wait for ever doesn't; one with its own timeout keeps that."""
    server.gate.clear()
    with memoleo.enable(cache=cache, timeout=(5, 0.05)):
        with pytest.raises(httpx.ReadTimeout):
            ask("chat", "m", ASK)
        with pytest.raises(httpx.ReadTimeout):
            ask("chat", "m", ASK, stream=True)
        with asking("sync", server.url, timeout=20) as patient:
            threading.Timer(0.3, server.gate.set).start()
            assert patient("chat", "m", ASK)


def test_retries_and_timeouts_in_the_config(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, tmp_path: Path
) -> None:
    """Two lines of a file turn both on, with the waits of the section `networking`."""
    file = settings(
        tmp_path,
        "ollama.retries = true\nollama.timeout = true\n"
        "[networking]\nretry_attempts = 2\nretry_backoff_ms = [0]\ntimeout_read = 0.05\n",
    )
    with memoleo.enable(cache=cache, config=file):
        server.fail = [503]
        ask("chat", "m", ASK)
        server.gate.clear()
        with pytest.raises(httpx.ReadTimeout):
            ask("chat", "m", [*ASK, *ASK])


def test_a_proxy_takes_the_same_options(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """A single client can have profiles, policies and retries of its own."""
    with opened(server.url) as plain:
        client = memoleo.proxy(
            plain, cache=cache, profiles=STAGES, policies={"a": {"type": "mine"}}, retries=FAST
        )
        server.fail = [503]
        client.chat("m", ASK)
        assert sent(server)["num_predict"] == 120
        plain.chat("m", ASK)
        assert sent(server) == {}
    assert cache.get_stats()["by_type"] == {"mine": 1}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"profiles": 3}, "give True for vision, stage1, stage2"),
    ({"profiles": {"a": 1}}, "profile 'a': expected its settings"),
    ({"profiles": {"a": {"temperatur": 1}}}, "Did you mean 'temperature'"),
    ({"profiles": {"a": {"temperature": [1]}}}, "temperature=.*expected a number"),
    ({"profiles": {"a": {"when": 1}}}, r"when=1: expected f\(body\)"),
    ({"profiles": {"a": {"verb": "chats"}}}, "expected chat, generate, embed"),
    ({"profiles": {"a": {"keep_alive": "soon"}}}, "profile 'a': keep_alive"),
    ({"policies": [{"ttl": 1}]}, "give the settings of each policy by a name"),
    ({"policies": {"a": {"tll": 1}}}, "policy 'a': there is no setting 'tll'"),
    ({"policies": {"a": {"ttl": "soon"}}}, "policy 'a'"),
    ({"policies": {"a": {"unseeded": "no"}}}, 'expected "store" or "skip"'),
    ({"policies": {"a": {"unseeded": "skip", "variants": 2}}}, "keep one"),
    ({"policies": {"a": {"variants": 0}}}, "policy 'a'"),
    ({"retries": 0}, "retries=0"),
    ({"retries": {"attempt": 3}}, "the keywords of retried"),
    ({"timeout": "soon"}, "timeout='soon'"),
    ({"timeout": 0}, "timeout=0"),
    ({"timeout": (1, 2, 3)}, "two, to connect and to read"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    """A mistake is an error at once that says what was expected, and nothing is patched."""
    before = ollama.Client._request
    with pytest.raises(ConfigError, match=message):
        memoleo.enable("ollama", **options)
    assert ollama.Client._request is before


@pytest.mark.parametrize(("text", "message"), [
    ("ollama.profiles = 3", "ollama.profiles: expected true or false"),
    ("[ollama.profiles.a]\ntemperatur = 1", "memoleo.toml: profile 'a': .*'temperature'"),
    ("[ollama.policies.a]\nttl = 'soon'", "memoleo.toml: policy 'a'"),
    ("[ollama.policies]\na = 3", "ollama.policies.a: expected a table"),
    ("[ollama.policies.a.b.c]\nd = 3", "there is no such setting"),
    ("ollama.retries = 'often'", "ollama.retries: expected true or false, or a whole number"),
])  # fmt: skip
def test_wrong_settings_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    """The same mistakes in a file are errors that name it."""
    file = settings(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        memoleo.enable("ollama", config=file)
