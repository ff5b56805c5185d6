"""Digests of models: how they are found, how long they hold, and what makes them doubtful."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from ollama_asking import opened
from scripted_ollama import ScriptedOllama

import memoleo
from memoleo.patches import _ollama_models
from memoleo.patches._ollama_models import LIFETIME, Models

ASK: list[dict[str, str]] = [{"role": "user", "content": "why?"}]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_ollama_models.models, "_clock", clock)
    monkeypatch.setattr(_ollama_models.models, "_listings", {})
    return clock


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as script:
        yield script


@pytest.fixture
def client(server: ScriptedOllama) -> Iterator[ollama.Client]:
    with opened(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def cache() -> Iterator[memoleo.Cache]:
    opened = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with memoleo.enable("ollama", cache=opened):
        yield opened


def test_a_listing_holds_for_a_while(
    clock: Clock, client: ollama.Client, server: ScriptedOllama
) -> None:
    """The server is asked for its models once in a while, whatever is asked of them."""
    for number in range(5):
        client.chat("m", ASK)
        client.generate("other", f"{number}")
    assert server.requests["/api/tags"] == 1
    clock.now += LIFETIME
    client.chat("m", ASK)
    client.generate("other", "0")
    assert server.requests["/api/tags"] == 2
    assert server.asked == 6


def test_the_first_question_goes_before_the_listing(
    clock: Clock, client: ollama.Client, server: ScriptedOllama
) -> None:
    """Nothing is sent ahead of a question that can't have an answer yet."""
    server.fail = [500]
    with pytest.raises(ollama.ResponseError):
        client.chat("m", ASK)
    assert server.requests == {"/api/chat": 1}


def test_a_new_digest_is_noticed(
    clock: Clock, client: ollama.Client, server: ScriptedOllama
) -> None:
    """A model that was replaced elsewhere is a miss as soon as the listing is asked for again."""
    first = client.chat("m", ASK)
    server.digests["m:latest"] = "d9"
    clock.now += LIFETIME
    assert client.chat("m", ASK) != first
    server.digests["m:latest"] = "d1"
    clock.now += LIFETIME
    assert client.chat("m", ASK) == first


CHANGES: list[tuple[str, Any]] = [
    ("pull", lambda client: client.pull("m")),
    ("pull stream", lambda client: list(client.pull("m", stream=True))),
    ("create", lambda client: client._request(dict, "POST", "/api/create", json={"model": "m"})),
    ("copy", lambda client: client.copy("other", "m")),
    ("delete", lambda client: client.delete("m")),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_a_model_changed_by_this_process_is_a_miss_at_once(
    clock: Clock, client: ollama.Client, server: ScriptedOllama, name: str, change: Any
) -> None:
    """After pull, create, copy and delete the next question asks for the digest again."""
    client.chat("m", ASK)
    server.digests["m:latest"] = "d9"
    change(client)
    client.chat("m", ASK)
    assert server.asked == 2
    client.chat("m", ASK)
    assert server.asked == 2


async def test_a_model_changed_by_async_calls_is_a_miss_at_once(
    clock: Clock, server: ScriptedOllama
) -> None:
    """The asynchronous client notices changes as well."""
    client = ollama.AsyncClient(server.url, verify=False)
    for number in range(2):
        await client.chat("m", ASK)
        server.digests["m:latest"] = f"e{number}"
        if number:
            await client.copy("other", "m")
        else:
            assert [part async for part in await client.pull("m", stream=True)]
        await client.chat("m", ASK)
        assert server.asked == number + 2
    await client._client.aclose()


@pytest.mark.parametrize("status", [404, 500])
def test_without_listings_nothing_is_cached(
    clock: Clock, client: ollama.Client, server: ScriptedOllama, status: int
) -> None:
    """A server that doesn't tell its digests is asked every question, and not for digests again."""
    server.tags_status = status
    for _ in range(3):
        client.chat("m", ASK)
        assert len(list(client.chat("m", ASK, stream=True))) == 4
    assert server.asked == 6
    assert server.requests["/api/tags"] == 1


def test_a_model_that_is_not_listed_is_not_cached(
    clock: Clock, client: ollama.Client, server: ScriptedOllama
) -> None:
    """Without a digest there is no key."""
    client.chat("unlisted", ASK)
    client.chat("unlisted", ASK)
    assert server.asked == 2


def test_a_revoked_key_is_not_answered(
    clock: Clock, client: ollama.Client, server: ScriptedOllama
) -> None:
    """If the server refuses to list its models, what was stored is not handed out."""
    client.chat("m", ASK)
    clock.now += LIFETIME
    server.tags_status = 401
    server.fail = [401]
    with pytest.raises(ollama.ResponseError):
        client.chat("m", ASK)


def test_an_overloaded_server_counts_as_down(
    clock: Clock, client: ollama.Client, server: ScriptedOllama
) -> None:
    """While the server fails, the last known digest stands in."""
    first = client.chat("m", ASK)
    clock.now += LIFETIME
    server.tags_status = 503
    server.fail = [503]
    assert client.chat("m", ASK) == first


def test_models_that_run_elsewhere_are_kept_shortly(
    clock: Clock, client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """The digest of a remote model proves nothing, so its answers live for an hour at most."""
    server.extra = {"remote_model": "big"}
    client.generate("other", "first")
    client.chat("m", ASK)
    (entry,) = cache.entries(type="ollama.chat")
    assert entry.ttl == 3600


def test_digests_survive_in_the_store(
    clock: Clock, server: ScriptedOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process finds what an earlier one stored, without a question to the model."""
    url = f"sqlite:///{tmp_path}/answers.db"
    answers = []
    for _ in range(2):
        monkeypatch.setattr(_ollama_models.models, "_listings", {})
        with (
            memoleo.Cache(url, metrics=memoleo.Metrics()) as stored,
            memoleo.enable(cache=stored),
            opened(server.url) as client,
        ):
            answers.append((client.chat("m", ASK), client.embed("m", ["a", "b"])))
    assert answers[0] == answers[1]
    assert server.requests["/api/chat"] == server.requests["/api/embed"] == 1


def test_a_listing_older_than_a_change_does_not_count(clock: Clock) -> None:
    """What was listed while a model was being replaced is not believed."""
    from memoleo.patches._ollama_server import Server

    models, server = Models(clock), Server("http://localhost", b"")
    before = models.changes(server)
    models.forget(server)
    rows = {"models": [{"model": "m:latest", "digest": "old"}]}
    models.listed(server, rows, before)
    assert models.fresh(server, "m:latest") is None
    models.listed(server, rows, models.changes(server))
    assert models.fresh(server, "m:latest") is not None


def test_only_one_asks_unless_there_is_doubt(clock: Clock, cache: memoleo.Cache) -> None:
    """While one call asks for the models the others go on, but not after a change."""
    from memoleo.patches._ollama_models import Model, Unsure
    from memoleo.patches._ollama_server import Server

    models, server = Models(clock), Server("http://localhost", b"")
    rows = {"models": [{"model": "m:latest", "digest": "d"}]}
    models.listed(server, rows, models.changes(server))
    assert models.find(server, "m:latest", cache) == Model("d")
    clock.now += LIFETIME
    assert models.find(server, "m:latest", cache) is Unsure.ASK
    assert models.find(server, "m:latest", cache) == Model("d")
    models.forget(server)
    assert models.find(server, "m:latest", cache) is Unsure.ASK
    assert models.find(server, "m:latest", cache) is Unsure.ASK


def test_a_model_that_became_known_meanwhile_is_looked_up(
    clock: Clock, server: ScriptedOllama
) -> None:
    """A first question that another has asked in the meantime is not asked again."""

    class Late(memoleo.Cache):
        late = True

        def call(self, *args: Any, **kwargs: Any) -> Any:
            if self.late:
                self.late = False
                with opened(server.url) as other:
                    other.chat("m", ASK)
            return super().call(*args, **kwargs)

    late = Late("memory://", metrics=memoleo.Metrics())
    with memoleo.enable(cache=late), opened(server.url) as client:
        client.chat("m", ASK)
    assert server.asked == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_batches_ask_only_for_what_is_new(
    clock: Clock, server: ScriptedOllama, cache: memoleo.Cache, kind: str
) -> None:
    """Inputs that are known are not sent, the rest goes in one request, and counts add up."""
    client = ollama.Client(server.url, verify=False)
    aclient = ollama.AsyncClient(server.url, verify=False)
    loop = asyncio.new_event_loop()

    def embed(texts: Any) -> ollama.EmbedResponse:
        if kind == "sync":
            return client.embed("m", texts, truncate=False)
        return loop.run_until_complete(aclient.embed("m", texts, truncate=False))

    first = embed(["aa", "b"])
    assert first.prompt_eval_count == 3
    mixed = embed(["ccc", "b", "aa", "ccc", "dddd"])
    assert server.bodies[-1]["input"] == ["ccc", "dddd"]
    assert server.bodies[-1]["truncate"] is False
    assert mixed.prompt_eval_count == 3 + 1 + 2 + 3 + 4
    single = [embed(text).embeddings[0] for text in ("ccc", "b", "aa", "ccc", "dddd")]
    assert mixed.embeddings == single
    assert embed(["aa", "b"]) == first
    assert embed(["ccc", "b", "aa", "ccc", "dddd"]) == mixed
    assert server.asked == 2
    assert cache.get_stats()["by_type"] == {"ollama.embed": 4}
    client._client.close()
    loop.run_until_complete(aclient._client.aclose())
    loop.close()


def test_an_odd_number_of_vectors_is_not_stored(
    clock: Clock, client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """If the server doesn't answer each input with a vector, its answer passes as it is."""
    whole = type(server).answer

    def short(self: Any, path: str, body: Any) -> Any:
        (part,) = whole(self, path, body)
        return [{**part, "embeddings": part["embeddings"][:1]}]

    client.embed("m", "known")
    monkeypatch.setattr(ScriptedOllama, "answer", short)
    assert len(client.embed("m", ["a", "b"]).embeddings) == 1
    assert len(client.embed("m", ["known", "a", "b"]).embeddings) == 1
    assert cache.get_stats()["total_entries"] == 1
