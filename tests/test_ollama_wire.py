"""What is stored is what went over the wire, whichever client reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
import requests
from ollama_asking import opened
from scripted_ollama import ScriptedOllama, whole

import memoleo
from memoleo.errors import CodecError
from memoleo.patches._ollama_models import models
from memoleo.patches._ollama_parts import Stored, complete, parts_of
from memoleo.patches._ollama_request import read, split
from memoleo.patches._ollama_server import server_at, server_of

ASK: list[dict[str, str]] = [{"role": "user", "content": "why?"}]
NEW: dict[str, Any] = {"energy": 2**70, "details": {"b": 1.5, "a": [None, True]}}


@pytest.fixture(autouse=True)
def _own_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoleo._exchanges.fingerprint._secrets", [b"s" * 32])
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as script:
        yield script


@pytest.fixture
def cache() -> Iterator[memoleo.Cache]:
    opened = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with memoleo.enable("ollama", cache=opened):
        yield opened


def stored(cache: memoleo.Cache) -> Stored:
    ((_, entry),) = cache.backend.entries()
    return Stored.unpack(entry.payload, "m")


@pytest.mark.parametrize("stream", [False, True])
def test_fields_that_the_client_drops_are_kept(
    cache: memoleo.Cache, server: ScriptedOllama, stream: bool
) -> None:
    """An entry has every field that the server sent, also what this client doesn't know."""
    server.final = NEW
    with opened(server.url) as client:
        answer = client.chat("m", ASK, stream=stream)
        first = list(answer) if stream else [answer]
        found = stored(cache)
        again = client.chat("m", ASK, stream=stream)
        assert (list(again) if stream else [again]) == first
    sent = server.sent[-1]
    assert found.parts == (sent if stream else [whole(sent)])
    assert found.kept_by == ""
    assert parts_of(found.body(streamed=True))[-1]["energy"] == 2**70
    assert list(found.whole()["details"]) == ["b", "a"]


def test_each_text_of_a_batch_keeps_all_fields(
    cache: memoleo.Cache, server: ScriptedOllama
) -> None:
    """What a server says beside vectors is kept with each of them."""
    server.final = NEW
    with opened(server.url) as client:
        client.embed("m", "why?")
        client.embed("m", ["why?"])
    assert server.asked == 1
    assert stored(cache).whole()["details"] == NEW["details"]


def test_behind_a_foreign_patch_the_kept_fields_are_stored(
    server: ScriptedOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's own patch below gets the classes it expects, and the entry says what it lacks."""
    seen = []
    original = ollama.Client._request

    @functools.wraps(original)
    def foreign(self: Any, cls: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(cls)
        return original(self, cls, *args, **kwargs)  # type: ignore[misc]

    monkeypatch.setattr(ollama.Client, "_request", foreign)
    server.final = NEW
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with memoleo.enable("ollama", cache=cache), opened(server.url) as client:
        assert client.chat("m", ASK) == client.chat("m", ASK)
        found = stored(cache)
        assert found.kept_by
        assert "energy" not in found.parts[0]
        # A client that knows more than what was kept doesn't get the half of it.
        ((key, entry),) = cache.backend.entries()
        other = Stored(found.parts, streamed=False, asked="m", kept_by="another")
        cache.backend.set(key, type(entry)(other.pack(), entry.codec, entry.created, entry.ttl))
        assert client.chat("m", ASK).done
    assert seen[0] is ollama.ChatResponse
    assert server.asked == 2


def test_a_proxy_keeps_all_fields_too(server: ScriptedOllama) -> None:
    """Through a proxy, with and without `enable`, entries are as complete as ever."""
    server.final = NEW
    for also in (False, True):
        cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
        with opened(server.url) as client:
            handle = memoleo.enable("ollama", cache=cache) if also else None
            memoleo.proxy(client, cache=cache).chat("m", ASK)
            if handle is not None:
                handle.close()
        assert stored(cache).whole()["energy"] == 2**70


CREDENTIALS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"headers": {"Authorization": "Bearer a", "X-Api-Key": "b"}}, ""),
    ({"headers": {"Authorization": "Bearer a"}, "auth": ("u", "p:q")}, ""),
    ({}, "u:p%40@"),
    ({"params": {"token": "a"}}, ""),
]


@pytest.mark.parametrize(("kwargs", "user"), CREDENTIALS)
@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_other_libraries_ask_the_same_question(
    cache: memoleo.Cache, server: ScriptedOllama, library: str, kwargs: Any, user: str
) -> None:
    """A request of another library has the key under which the client's answer is stored."""
    url = server.url.replace("//", f"//{user}")
    with opened(url, **kwargs) as client:
        client._client.base_url = url  # the class drops user and password
        client.chat("m", ASK, options={"seed": 1})
        assert server_of(client) is not None
    body = {"messages": ASK, "model": "m:latest", "options": {"seed": 1.0}}
    if library == "httpx":
        with httpx.Client(verify=False, **kwargs) as other:
            sent = other.build_request("POST", f"{url}/api/chat", json=body)
            auth: Any = kwargs.get("auth") or (("u", "p@") if user else None)
            if auth:
                sent = next(httpx.BasicAuth(*auth).auth_flow(sent))
            address, headers, query = str(sent.url), sent.headers.raw, sent.url.query.decode()
    else:
        prepared = requests.Request("POST", f"{url}/api/chat", json=body, **kwargs).prepare()
        address, headers = str(prepared.url), list(prepared.headers.items())
        query = httpx.URL(address).query.decode()
    found = split(httpx.URL(address).path)
    assert found is not None
    base, path = found
    question = read(path, body)
    authority = httpx.URL(address).copy_with(path=base or "/", query=None)
    place = server_at(str(authority), headers, query=query)
    assert question is not None
    model = models.find(place, question.model, cache)
    key = question.key(place.here, model.digest)  # type: ignore[union-attr]
    assert [found for found, _ in cache.backend.entries()] == [key]


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (b'{"a": 1}\n{"done": true, "done_reason": "stop"}\n', True),
        (b'{"a": 1}\n{"done": true, "done_reason": "load"}', False),
        (b'{"done": true,\n "done_reason": "length"}', True),
        (b'{"a": 1, "done": true}', True),
        (b'{"a": 1, "done": true, "done_reason": null}', False),
        (b'{"error": "no", "done": true, "done_reason": "stop"}', False),
        (b'{"embeddings": [[1.0]]}', True),
        (b'{"embeddings": []}', False),
        (b'{"answers": {"a": {}}}', True),
    ],
)
def test_bodies_are_read_and_judged(body: bytes, last: bool) -> None:
    """Whatever carried a body, its last part tells whether anything is missing."""
    assert complete(parts_of(body)[-1], limited=True) is last


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"a"', b"{}\n[]"])
def test_other_bodies_are_refused(body: bytes) -> None:
    """What isn't an answer is no answer."""
    with pytest.raises(CodecError, match="Ollama"):
        parts_of(body)


def test_a_body_is_made_as_the_caller_asked() -> None:
    """One entry makes a JSON body and a stream, with the name that each caller used."""
    parts = [
        {"model": "m", "message": {"role": "assistant", "content": "é "}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": "b"}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True},
    ]
    payload = Stored(parts, streamed=True, asked="m").pack()
    single = json.loads(Stored.unpack(payload, "m:latest").body(streamed=False))
    assert single["message"]["content"] == "é b"
    assert single["model"] == "m:latest"
    assert parts_of(Stored.unpack(payload, "m").body(streamed=True)) == parts
    again = Stored.unpack(Stored([single], streamed=False, asked="m:latest").pack(), "m")
    assert [part["message"]["content"] for part in again.pieces()] == ["é b", ""]


def test_no_client_library_is_needed(tmp_path: Path) -> None:
    """Requests are read and answers are built where the ollama package isn't even imported."""
    import subprocess
    import sys

    program = (
        "import memoleo.patches._ollama_request, memoleo.patches._ollama_parts\n"
        "import memoleo.patches._ollama_server, memoleo.patches._ollama_models, sys\n"
        "assert not {'ollama', 'httpx', 'requests', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
