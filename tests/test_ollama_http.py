"""Ollama asked through requests, httpx and the official client: one entry for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import ollama
import pytest
import requests
from ollama_asking import opened
from scripted_http import ScriptedHttp
from scripted_ollama import ScriptedOllama

import memoleo
from memoleo.patches._ollama_models import models

ASK = [{"role": "user", "content": "why?"}]


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    models.clear()
    with ScriptedOllama() as script:
        yield script


@pytest.fixture
def cache() -> memoleo.Cache:
    return memoleo.Cache("memory://", metrics=memoleo.Metrics())


@pytest.fixture
def on(cache: memoleo.Cache, monkeypatch: pytest.MonkeyPatch) -> Iterator[memoleo.Cache]:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with memoleo.enable("ollama", "requests", "httpx", rules=["ollama"], cache=cache):
        yield cache


def by_requests(url: str, body: dict[str, Any]) -> Any:
    return requests.post(f"{url}/api/chat", json=body).json()


def by_text(url: str, body: dict[str, Any]) -> Any:
    return requests.post(f"{url}/api/chat", data=json.dumps(body, indent=1)).json()


def by_httpx(url: str, body: dict[str, Any]) -> Any:
    with httpx.Client(verify=False) as client:
        return client.post(f"{url}/api/chat", json=body).json()


def by_client(url: str, body: dict[str, Any]) -> Any:
    with ollama.Client(url, verify=False) as client:
        options = body.get("options")
        answer = client.chat(body["model"], body["messages"], options=options)
        return json.loads(answer.model_dump_json(exclude_unset=True))


WAYS = [by_requests, by_text, by_httpx, by_client]


@pytest.mark.parametrize("first", WAYS)
def test_one_entry_whoever_asks_first(
    server: ScriptedOllama, on: memoleo.Cache, first: Callable[..., Any]
) -> None:
    """The same question through every library is asked once, stored once, and answered alike."""
    body = {"model": "m", "messages": ASK, "stream": False, "options": {"temperature": 0}}
    found = first(server.url, body)
    for way in WAYS:
        assert way(server.url, {**body, "keep_alive": "5m"}) == found
    assert server.asked == 1
    assert on.get_stats()["by_type"] == {"ollama.chat": 1}


def test_streams_and_whole_answers_share_an_entry(
    server: ScriptedOllama, on: memoleo.Cache
) -> None:
    """A stream is stored, joined for who asks for the whole, and replayed for who streams."""
    body = {"model": "m", "messages": ASK, "stream": True}
    with requests.post(f"{server.url}/api/chat", json=body, stream=True) as response:
        lines = [json.loads(line) for line in response.iter_lines()]
    text = "".join(line["message"]["content"] for line in lines)
    for _ in range(2):
        assert by_httpx(server.url, {**body, "stream": False})["message"]["content"] == text
        with requests.post(f"{server.url}/api/chat", json=body, stream=True) as response:
            assert [json.loads(line) for line in response.iter_lines()] == lines
            assert response.headers["Content-Type"] == "application/x-ndjson"
        with httpx.Client(verify=False) as client:
            again = client.post(f"{server.url}/api/chat", json=body).text.splitlines()
            assert [json.loads(line) for line in again] == lines
        with ollama.Client(server.url, verify=False) as official:
            parts = official.chat("m", ASK, stream=True)
            assert "".join(part.message.content for part in parts) == text
    assert server.asked == 1


def test_who_leaves_with_the_last_part_leaves_the_answer(
    server: ScriptedOllama, on: memoleo.Cache
) -> None:
    """A reader that stops at `done` has read everything; one that stops earlier has not."""
    body = {"model": "m", "messages": ASK, "stream": True}
    for wanted, asked in ((False, 1), (True, 2), (True, 2)):
        with requests.post(f"{server.url}/api/chat", json=body, stream=True) as response:
            for line in response.iter_lines(chunk_size=1):
                if json.loads(line)["done"] is wanted:
                    break
        assert server.asked == asked


def test_a_model_that_changed_is_another_model(server: ScriptedOllama, on: memoleo.Cache) -> None:
    """After a pull the old answers are not served, through requests either."""
    body = {"model": "m", "messages": ASK, "stream": False}
    first = by_requests(server.url, body)
    server.digests["m:latest"] = "d9"
    models.clear()
    assert by_requests(server.url, body) != first
    assert server.asked == 2


def test_loading_and_failures_are_never_stored(server: ScriptedOllama, on: memoleo.Cache) -> None:
    """Loads and unloads go through each time; a failure once leaves nothing."""
    for _ in range(2):
        by_requests(server.url, {"model": "m", "messages": [], "keep_alive": 0})
    assert server.requests["/api/chat"] == 2
    server.fail = [500]
    body = {"model": "m", "messages": ASK, "stream": False}
    found = [requests.post(f"{server.url}/api/chat", json=body).status_code for _ in range(3)]
    assert found == [500, 200, 200]
    assert server.requests["/api/chat"] == 4


def test_texts_to_embed(server: ScriptedOllama, on: memoleo.Cache) -> None:
    """One text is an entry for every client; a batch is one of its own."""
    url = f"{server.url}/api/embed"
    one = requests.post(url, json={"model": "m", "input": "a"}).json()["embeddings"]
    with ollama.Client(server.url, verify=False) as client:
        assert [list(row) for row in client.embed("m", ["a"]).embeddings] == one
    assert server.asked == 1
    for _ in range(2):
        rows = requests.post(url, json={"model": "m", "input": ["a", "b"]}).json()["embeddings"]
        assert rows[0] == one[0]
    assert server.asked == 2


def test_answers_are_there_while_the_server_is_down(cache: memoleo.Cache) -> None:
    """What was asked before is answered after the server has gone."""
    models.clear()
    body = {"model": "m", "messages": ASK, "stream": False}
    with memoleo.enable("requests", rules=["ollama"], cache=cache):
        with ScriptedOllama() as server:
            found = by_requests(server.url, body)
            url = server.url
        assert by_requests(url, body) == found
        models.clear()  # as in a new process
        assert by_requests(url, body) == found
        with pytest.raises(requests.ConnectionError):
            by_requests(url, {**body, "messages": [{"role": "user", "content": "new"}]})


@pytest.mark.parametrize(
    "listing",
    [{"nothing": "here"}, {"models": []}, {"models": [{"name": "m:latest"}]}, {"models": None}, []],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_tells_no_digests(cache: memoleo.Cache, listing: Any, stream: bool) -> None:
    """Servers that only speak like Ollama are answered for by what was sent to them."""
    models.clear()
    with ScriptedHttp() as server, memoleo.enable("requests", rules=["ollama"], cache=cache):
        server.answers["/api/generate"] = lambda body: {
            "model": body["model"], "response": body["prompt"].upper(), "done": True,
            "number": server.number(),
        }  # fmt: skip
        url = f"{server.url}/api/generate"
        body = {"model": "m", "prompt": "a", "stream": stream}
        server.answers["/api/tags"] = listing
        found = [requests.post(url, json=body).json() for _ in range(3)]
        with requests.post(url, json=body, stream=True) as response:
            found.append(json.loads(response.content))
        assert found[0] == found[1] == found[2] == found[3]
        models.clear()
        assert requests.post(url, json=body).json() == found[0]
        with requests.post(url, json={**body, "prompt": "b"}, stream=True) as response:
            first = response.content
        with requests.post(url, json={**body, "prompt": "b"}, stream=True) as response:
            assert response.content == first
        assert server.requests["/api/generate"] == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_hit_has_the_bytes_and_headers_that_came(cache: memoleo.Cache, stream: bool) -> None:
    """Who asks in the same way gets what the server sent, to the byte; others what it means."""
    models.clear()
    line = {"model": "m", "response": "é", "done": True, "done_reason": "stop"}
    body = {"model": "m", "prompt": "a", "stream": stream}
    with ScriptedHttp() as server, memoleo.enable("requests", rules=["ollama"], cache=cache):
        server.answers["/api/generate"] = line  # with spaces and escapes, as Python writes it
        server.answers["/api/tags"] = {"models": [{"name": "m:latest", "digest": "d1"}]}
        server.headers = [("X-Served-By", "one"), ("Set-Cookie", "sid=abcdefgh")]
        url = f"{server.url}/api/generate"
        first = requests.post(url, json=body)
        for again in (requests.post(url, json=body), requests.post(url, json=body, stream=True)):
            assert again.from_cache
            assert again.content == first.content
            assert again.elapsed == first.elapsed
            kept = {name for name in first.headers if name != "Set-Cookie"}
            assert {name: first.headers[name] for name in kept} == dict(again.headers)
        other = requests.post(url, json={**body, "model": "m:latest"})
        parts = [json.loads(part) for part in other.iter_lines()]
        assert "".join(part["response"] for part in parts) == "é"
        assert {part["model"] for part in parts} == {"m:latest"}
        assert "X-Served-By" not in other.headers
        assert server.requests["/api/generate"] == 1


def test_an_answer_that_repeats_a_credential_is_not_stored(cache: memoleo.Cache) -> None:
    """A server that echoes the token is asked each time."""
    models.clear()
    with ScriptedHttp() as server, memoleo.enable("requests", rules=["ollama"], cache=cache):
        server.answers["/api/tags"] = {"models": [{"name": "m:latest", "digest": "d1"}]}
        server.answers["/api/generate"] = {
            "model": "m", "response": "Bearer token_0123456789", "done": True,
        }  # fmt: skip
        headers = {"Authorization": "Bearer token_0123456789"}
        body = {"model": "m", "prompt": "a", "stream": False}
        for _ in range(2):
            requests.post(f"{server.url}/api/generate", json=body, headers=headers)
        assert server.requests["/api/generate"] == 2
        assert cache.get_stats()["total_entries"] == 0


def test_the_official_client_of_a_server_that_tells_no_digests(
    server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """Its answers are cached by a rule for httpx, which was asked for, and by nothing else."""
    server.tags_status = 404
    with opened(server.url) as client:
        for packages, asked in [(("ollama",), 2), (("httpx",), 3)]:
            models.clear()
            rules = {"rules": ["ollama"]} if "httpx" in packages else {}
            with memoleo.enable(*packages, cache=cache, **rules):
                for _ in range(2):
                    client.chat("m", ASK)
            assert server.asked == asked


async def test_asynchronous_clients(server: ScriptedOllama, on: memoleo.Cache) -> None:
    """An asynchronous client learns the model as a synchronous one does."""
    body = {"model": "m", "messages": ASK, "stream": False}
    async with httpx.AsyncClient(verify=False) as client:
        first = (await client.post(f"{server.url}/api/chat", json=body)).json()
        assert (await client.post(f"{server.url}/api/chat", json=body)).json() == first
        async with client.stream(
            "POST", f"{server.url}/api/chat", json={**body, "stream": True}
        ) as r:
            assert json.loads([line async for line in r.aiter_lines()][-1])["done"]
    assert by_client(server.url, body) == first
    assert server.asked == 1


def test_without_rules_the_presets_are_in_force(
    server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """`enable` with nothing but names answers what the presets name, for each of the packages."""
    body = {"model": "m", "messages": [{"role": "user", "content": "why?"}], "stream": False}
    with memoleo.enable("ollama", "requests", "httpx", cache=cache):
        for way in WAYS:
            way(server.url, body)
    assert server.asked == 1


def test_observing_counts_from_the_first_call_on(server: ScriptedOllama, on: memoleo.Cache) -> None:
    """The second of two equal questions would be a hit, also to a model seen for the first time."""
    body = {"model": "m", "messages": ASK, "stream": False}
    with memoleo.observe():
        for _ in range(3):
            by_requests(server.url, body)
    counts = on.metrics.get_stats()["cache"]["ollama.chat"]
    assert (counts["would_hit"], counts["would_miss"]) == (2, 1)
    assert server.asked == 3
