"""What a patched ollama client answers: the same as the server, and only where it may."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import ollama
import pytest
from ollama_asking import asking, exact, opened
from scripted_ollama import ScriptedOllama

import memoleo

ASK: list[dict[str, str]] = [{"role": "user", "content": "why?"}]
TOOL_CALL = {"function": {"name": "add", "arguments": {"b": 1, "a": [1.5, None, {"x": True}]}}}


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as script:
        yield script


@pytest.fixture
def cache() -> Iterator[memoleo.Cache]:
    opened = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with memoleo.enable("ollama", cache=opened):
        yield opened


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: ScriptedOllama) -> Iterator[Callable[..., Any]]:
    """A method by name, called on a client of either kind; streams as lists of their parts."""
    with asking(request.param, server.url) as call:
        yield call


CALLS = [
    ("chat", ("m", ASK)),
    ("generate", ("m", "why?")),
    ("embed", ("m", "why?")),
    ("embed", ("m", ["why?", "how?", "why?"])),
    ("embeddings", ("m", "why?")),
]
if hasattr(ollama.Client, "systemone"):
    JUDGE = {"ok": {"type": "noul", "instructions": "Is it?"}}
    CALLS.append(("systemone", ("m", "state", JUDGE)))


@pytest.mark.parametrize(("name", "args"), CALLS)
def test_a_hit_equals_its_miss(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, name: str, args: Any
) -> None:
    """The second answer has the types, fields and set fields of the first, without a request."""
    first = ask(name, *args)
    second = ask(name, *args)
    assert exact(second) == exact(first)
    assert second is not first
    assert server.asked == 1


@pytest.mark.parametrize("name", ["chat", "generate"])
def test_a_stream_replays_the_same_parts(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, name: str
) -> None:
    """A streamed hit yields the parts of the miss, in their order."""
    args = ("m", ASK if name == "chat" else "why?")
    first = ask(name, *args, stream=True)
    assert len(first) == 4
    assert exact(ask(name, *args, stream=True)) == exact(first)
    assert server.asked == 1


@pytest.mark.parametrize("known", [False, True])
def test_vectors_that_were_cleared_while_they_were_computed(
    cache: memoleo.Cache, server: ScriptedOllama, known: bool
) -> None:
    """What the server was asked before its entries were removed is not stored after it."""
    with opened(server.url) as client, ThreadPoolExecutor() as pool:
        if known:
            client.generate("m", "other")
        server.gate.clear()
        answer = pool.submit(client.embed, "m", ["why?", "how?"])
        while not server.requests["/api/embed"]:
            threading.Event().wait(0.001)
        cache.clear()
        server.gate.set()
        answer.result(30)
    assert list(cache.entries()) == []


MESSAGES: list[dict[str, Any]] = [
    {},
    {"thinking": "hm"},
    {"tool_calls": [TOOL_CALL, TOOL_CALL]},
    {"thinking": "hm", "tool_calls": [TOOL_CALL]},
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("name", ["chat", "generate"])
def test_a_streamed_answer_serves_the_unstreamed_call(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, name: str, message: Any
) -> None:
    """Parts are joined as the server joins them: the answer equals the one it would have sent."""
    server.message = message
    args = ("m", ASK if name == "chat" else "why?")
    with memoleo.bypass():
        wanted = exact(ask(name, *args))
    server.bodies.clear()
    ask(name, *args, stream=True)
    found = ask(name, *args)
    assert exact(found) == wanted
    assert server.asked == 1


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("name", ["chat", "generate"])
def test_an_unstreamed_answer_serves_the_stream(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, name: str, message: Any
) -> None:
    """An answer in one piece streams as text, then an end without text, as real streams do."""
    server.message = message
    args = ("m", ASK if name == "chat" else "why?")
    whole = ask(name, *args)
    parts = ask(name, *args, stream=True)
    assert server.asked == 1
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    if name == "generate":
        assert "".join(part.response for part in parts) == whole.response
        assert parts[-1].context == whole.context
        assert parts[-1].response == ""
    else:
        assert "".join(part.message.content for part in parts) == whole.message.content
        thinking = "".join(getattr(part.message, "thinking", None) or "" for part in parts)
        assert thinking == (getattr(whole.message, "thinking", None) or "")
        calls = [call for part in parts for call in part.message.tool_calls or ()]
        assert calls == list(whole.message.tool_calls or ())
        assert all(part.message.role == "assistant" for part in parts)
    assert {part.model for part in parts} == {"m"}
    assert parts[-1].eval_count == whole.eval_count
    assert exact(ask(name, *args)) == exact(whole)


def test_changing_an_answer_changes_no_other(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any
) -> None:
    """What a caller does to its answer, a miss or a hit, is seen by nobody else."""
    server.message = {"tool_calls": [TOOL_CALL]}
    first = ask("chat", "m", ASK)
    wanted = copy.deepcopy(first)
    for answer in (first, ask("chat", "m", ASK)):
        answer.message.content = "changed"
        answer.message.tool_calls[0].function.arguments["a"].append("changed")
    assert ask("chat", "m", ASK) == wanted
    parts = ask("generate", "m", "why?", stream=True)
    before = exact(copy.deepcopy(parts))
    for part in parts:
        part.response = "changed"
    assert exact(ask("generate", "m", "why?", stream=True)) == before


def test_spelling_of_the_model_is_echoed(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """`name` and `name:latest` share an answer, each with the name that was asked for."""
    with opened(server.url) as client:
        short = client.chat("m", ASK)
        long = client.chat("m:latest", ASK)
        parts = list(client.chat("m:latest", ASK, stream=True))
    assert server.asked == 1
    assert (short.model, long.model) == ("m", "m:latest")
    assert {part.model for part in parts} == {"m:latest"}


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("chat", ("m", []), {}),
        ("chat", ("m",), {"keep_alive": 0}),
        ("generate", ("m",), {}),
        ("generate", ("m", ""), {"keep_alive": 0}),
        ("generate", ("m", ""), {"keep_alive": "0s", "system": "x"}),
    ],
)
def test_loading_and_unloading_pass_through(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, name: str, args: Any, kwargs: Any
) -> None:
    """A call that asks nothing reaches the server each time."""
    for _ in range(2):
        answer = ask(name, *args, **kwargs)
        assert answer.done_reason in ("load", "unload")
    assert server.requests == {f"/api/{name}": 2}
    assert cache.get_stats()["total_entries"] == 0


@pytest.mark.parametrize(
    "final",
    [
        {"done_reason": "load"},
        {"done_reason": "unload"},
        {"done_reason": ""},
        {"done_reason": "cancelled"},
        {"done_reason": None},
        {"done": False},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_unfinished_answers_are_not_stored(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, final: Any, stream: bool
) -> None:
    """Only an answer that says it is complete, and why, is kept."""
    server.final = final
    for name, args in CALLS[:2]:
        ask(name, *args, stream=stream)
        ask(name, *args, stream=stream)
    assert server.asked == 4
    assert cache.get_stats()["total_entries"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_by_length_is_an_answer_if_it_was_asked_for(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, stream: bool
) -> None:
    """Stopping at `num_predict` is what was asked for; at the end of the context it isn't."""
    server.final = {"done_reason": "length"}
    for _ in range(2):
        ask("chat", "m", ASK, stream=stream, options={"num_predict": 3})
    assert server.asked == 1
    for options in ({}, {"num_predict": -1}):
        for _ in range(2):
            ask("chat", "m", ASK, stream=stream, options=options)
    assert server.asked == 5


@pytest.mark.parametrize("switch", ["cut_after", "error_after"])
def test_broken_streams_are_not_stored(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, switch: str
) -> None:
    """A stream that stops or fails in the middle does so as before, and leaves nothing."""
    ask("chat", "m", [*ASK, *ASK])  # the model is known from here on
    for known in (ASK, [{"role": "user", "content": "how?"}]):
        setattr(server, switch, 2)
        if switch == "error_after":
            with pytest.raises(ollama.ResponseError, match="broke"):
                ask("chat", "m", known, stream=True)
        else:
            assert len(ask("chat", "m", known, stream=True)) == 2
        setattr(server, switch, None)
        assert len(ask("chat", "m", known, stream=True)) == 4


@pytest.mark.parametrize("status", [400, 404, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_failures_pass_through_unchanged(
    cache: memoleo.Cache, server: ScriptedOllama, ask: Any, status: int, stream: bool
) -> None:
    """An error is the client's own, is not stored, and the next call is made."""
    server.fail = [status]
    with pytest.raises(ollama.ResponseError, match="made to fail") as caught:
        ask("chat", "m", ASK, stream=stream)
    assert caught.value.status_code == status
    assert isinstance(caught.value.__context__, httpx.HTTPStatusError)
    ask("chat", "m", ASK, stream=stream)
    assert server.asked == 1


def test_a_server_that_is_down_fails_as_before(cache: memoleo.Cache) -> None:
    """Without a server the client's own errors appear, streamed and unstreamed."""
    with ScriptedOllama() as gone:
        url = gone.url
    with opened(url) as client:
        with pytest.raises((ConnectionError, httpx.ConnectError), match=r"(?i)connect|refused"):
            client.chat("m", ASK)
        with pytest.raises(httpx.ConnectError):
            list(client.chat("m", ASK, stream=True))


def test_warm_questions_are_answered_while_the_server_is_down(cache: memoleo.Cache) -> None:
    """What was asked before is answered without the server; what wasn't fails."""
    with ScriptedOllama() as server, opened(server.url) as client:
        first = client.chat("m", ASK)
        server.stop()
        with memoleo.enable(cache=cache):
            from memoleo.patches._ollama_models import models

            models.clear()  # as a new process, that only has the cache
            assert client.chat("m", ASK) == first
            assert list(client.chat("m", ASK, stream=True))[-1].done
            with pytest.raises((ConnectionError, httpx.ConnectError)):
                client.chat("m", [*ASK, *ASK])


def test_an_abandoned_stream_stores_nothing(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """Closing a stream half way ends the request and keeps nothing of it."""
    with opened(server.url) as client:
        client.generate("m", "other")
        for leave in (lambda it: it.close(), lambda it: None):
            stream = client.chat("m", ASK, stream=True)
            assert next(stream).message.content == "word "
            leave(stream)
            del stream
        never = client.chat("m", ASK, stream=True)
        assert inspect.isgenerator(never)
        never.close()
        assert server.asked == 3
        assert cache.get_stats()["by_type"] == {"ollama.generate": 1}


def test_leaving_after_the_last_part_is_reading_to_the_end(
    cache: memoleo.Cache, server: ScriptedOllama
) -> None:
    """A consumer that breaks at `done` has seen everything: the answer is stored."""
    with opened(server.url) as client:
        for _ in range(2):
            for part in client.chat("m", ASK, stream=True):
                if part.done:
                    break
    assert server.asked == 1


async def test_abandoned_and_finished_async_streams(
    cache: memoleo.Cache, server: ScriptedOllama
) -> None:
    """Async streams that are closed, or cancelled, store nothing; those that reach the end do."""
    client = ollama.AsyncClient(server.url, verify=False)
    await client.generate("m", "other")
    stream = await client.chat("m", ASK, stream=True)
    assert inspect.isasyncgen(stream)
    assert (await stream.__anext__()).message.content == "word "
    await stream.aclose()
    assert cache.get_stats()["by_type"] == {"ollama.generate": 1}

    async def read() -> None:
        async for _ in await client.chat("m", ASK, stream=True):
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    while server.asked < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cache.get_stats()["by_type"] == {"ollama.generate": 1}
    for _ in range(2):
        async for part in await client.chat("m", ASK, stream=True):
            if part.done:
                break
    assert server.asked == 4
    await client._client.aclose()


@pytest.mark.parametrize("retries", [False, 2])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_leaving_a_stream_as_the_loop_ends(server: ScriptedOllama, retries: Any) -> None:
    """A stream that is left behind when its loop ends is closed without a word, as ever."""
    failures: list[dict[str, Any]] = []

    async def leave(parts: int, way: str) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        client = ollama.AsyncClient(server.url, verify=False)
        if way == "pull":
            stream = await client.pull("m", stream=True)
        else:
            stream = await client.chat("m", ASK, stream=True)
        assert inspect.isasyncgen(stream)
        async for _ in stream:
            parts -= 1
            if not parts:
                break

    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with memoleo.enable("ollama", cache=cache, retries=retries):
        for parts, way in [(1, "new"), (2, "known"), (1, "pull"), (4, "whole"), (1, "replayed")]:
            asyncio.run(leave(parts, way))
    gc.collect()  # of connections that nobody closed, as without a cache
    assert not failures


async def test_a_cancelled_replay_leaves_the_answer_whole(
    cache: memoleo.Cache, server: ScriptedOllama
) -> None:
    """Replay can be cancelled or closed in the middle, and the next one has all parts."""
    client = ollama.AsyncClient(server.url, verify=False)
    wanted = [part async for part in await client.chat("m", ASK, stream=True)]
    reached = asyncio.Event()

    async def read() -> None:
        async for _ in await client.chat("m", ASK, stream=True):
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stream = await client.chat("m", ASK, stream=True)
    assert await stream.__anext__() == wanted[0]
    await stream.aclose()
    assert [part async for part in await client.chat("m", ASK, stream=True)] == wanted
    assert server.asked == 1
    await client._client.aclose()


def test_two_readers_of_one_question(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """A stream that is read half, another read whole meanwhile: each gets its own, unmixed."""
    with opened(server.url) as client:
        client.generate("m", "other")
        slow = client.chat("m", ASK, stream=True)
        first = next(slow)
        whole = list(client.chat("m", ASK, stream=True))
        slowly = [first, *slow]
        again = list(client.chat("m", ASK, stream=True))
    assert [len(parts) for parts in (whole, slowly, again)] == [4, 4, 4]
    assert again in (whole, slowly)
    assert server.asked == 3


@pytest.mark.parametrize("known", [False, True])
def test_one_request_for_many_threads(
    cache: memoleo.Cache, server: ScriptedOllama, known: bool
) -> None:
    """Threads that ask the same at once cost one request, also before the model is known."""
    if known:
        with opened(server.url) as client:
            client.generate("m", "other")
    server.gate.clear()
    with opened(server.url) as client, ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(client.chat, "m", ASK) for _ in range(20)]
        while not server.requests["/api/chat"]:
            threading.Event().wait(0.001)
        server.gate.set()
        found = [answer.result() for answer in answers]
    assert all(answer == found[0] for answer in found)
    assert server.requests["/api/chat"] == 1


@pytest.mark.parametrize("known", [False, True])
async def test_one_request_for_many_tasks(
    cache: memoleo.Cache, server: ScriptedOllama, known: bool
) -> None:
    """Tasks that ask the same at once cost one request; a cancelled leader costs nobody else."""
    client = ollama.AsyncClient(server.url, verify=False)
    if known:
        await client.generate("m", "other")
    server.gate.clear()
    leader = asyncio.create_task(client.chat("m", ASK))
    while not server.requests["/api/chat"]:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(client.chat("m", ASK)) for _ in range(20)]
    await asyncio.sleep(0)
    leader.cancel()
    server.gate.set()
    found = await asyncio.gather(*others)
    assert all(answer == found[0] for answer in found)
    assert server.requests["/api/chat"] == 2
    await client._client.aclose()


def test_other_verbs_pass_through(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """What isn't a question to a model reaches the server each time."""
    with opened(server.url) as client:
        for _ in range(2):
            assert [model.model for model in client.list().models] == list(server.digests)
            assert client.pull("m").status == "success"
            assert [part.status for part in client.pull("m", stream=True)][-1] == "success"
            client.delete("m")
    assert server.requests == {"/api/tags": 2, "/api/pull": 4, "/api/delete": 2}


def test_a_subclass_with_its_own_request(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """A subclass that overrides the seam and calls its parent is answered."""
    seen = []

    class Mine(ollama.Client):
        def _request(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args[2])
            return super()._request(*args, **kwargs)

    client = Mine(server.url, verify=False)
    assert client.chat("m", ASK) == client.chat("m", ASK)
    client._client.close()
    assert server.asked == 1
    assert seen == ["/api/chat", "/api/chat"]


def test_counters_and_entries(cache: memoleo.Cache, server: ScriptedOllama) -> None:
    """Hits, misses and saved tokens are counted by verb, and entries name their model."""
    with opened(server.url) as client:
        client.chat("m", ASK)
        client.chat("m", ASK)
    counted = cache.metrics.get_stats()["cache"]["ollama.chat"]
    assert (counted["misses"], counted["hits"], counted["tokens_saved"]) == (1, 1, 8)
    (entry,) = cache.entries()
    assert entry.label == "m:latest"
    assert "model:m:latest" in entry.tags
    assert cache.clear(tag="model:m:latest") == 1


def test_a_broken_cache_costs_nothing_but_time(server: ScriptedOllama) -> None:
    """If the cache fails in an unforeseen way, the answer is the server's."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")

    def broken() -> memoleo.Cache:
        cache = memoleo.Cache("memory://")
        cache.calls.call = cache.calls.acall = fail  # type: ignore[method-assign]
        return cache

    with opened(server.url) as client, memoleo.enable(cache=broken()):
        assert client.chat("m", ASK).done
        assert len(list(client.chat("m", ASK, stream=True))) == 4
    with memoleo.enable(cache=broken()):

        async def run() -> None:
            aclient = ollama.AsyncClient(server.url, verify=False)
            assert (await aclient.chat("m", ASK)).done
            assert len([part async for part in await aclient.chat("m", ASK, stream=True)]) == 4
            await aclient._client.aclose()

        asyncio.run(run())


def test_an_answer_that_was_tampered_with_is_not_served(
    cache: memoleo.Cache, server: ScriptedOllama
) -> None:
    """A stored answer that can't be read is a miss."""
    with opened(server.url) as client:
        client.chat("m", ASK)
        for key, entry in list(cache.backend.entries()):
            other = type(entry)(b"\x93\x01\xc2\x90", entry.codec, entry.created, entry.ttl)
            cache.backend.set(key, other)
        assert client.chat("m", ASK).done
    assert server.asked == 2
