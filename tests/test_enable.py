"""`enable`, `disable` and `proxy`: who is patched, for how long, and what is put back."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
import wrapt
from scripted_ollama import ScriptedOllama

import memoleo
from memoleo.patches._enable import _check_options
from memoleo.patches._patch import Patch

ORIGINAL = vars(ollama.Client)["_request"]
AORIGINAL = vars(ollama.AsyncClient)["_request"]
RAW = vars(ollama.Client)["_request_raw"]
ASK: list[dict[str, str]] = [{"role": "user", "content": "why?"}]


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as script:
        yield script


@pytest.fixture
def cache() -> memoleo.Cache:
    return memoleo.Cache("memory://", metrics=memoleo.Metrics())


@pytest.fixture
def client(server: ScriptedOllama) -> Iterator[ollama.Client]:
    with ollama.Client(server.url, verify=False) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    memoleo.disable()
    assert untouched()


def untouched() -> bool:
    return (
        vars(ollama.Client)["_request"] is ORIGINAL
        and vars(ollama.AsyncClient)["_request"] is AORIGINAL
        and vars(ollama.Client)["_request_raw"] is RAW
    )


def test_disable_restores_the_identical_objects(cache: memoleo.Cache) -> None:
    """After `disable` every attribute is the original object."""
    memoleo.enable("ollama", cache=cache)
    assert not untouched()
    memoleo.disable()
    assert untouched()


def test_enabling_twice_patches_once(cache: memoleo.Cache) -> None:
    """A second `enable` finds the patch of the first."""
    memoleo.enable(cache=cache)
    patched = ollama.Client._request
    memoleo.enable(cache=cache)
    assert ollama.Client._request is patched


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_handles_close_in_any_order(cache: memoleo.Cache, order: tuple[int, int]) -> None:
    """The patch stays until the last handle is closed, whichever that is."""
    handles = [memoleo.enable(cache=cache), memoleo.enable(cache=cache)]
    handles[order[0]].close()
    assert not untouched()
    handles[order[1]].close()
    assert untouched()


def test_inner_block_decides_which_cache(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """The innermost block's cache answers, and on leaving it the outer one's again."""
    inner = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with memoleo.enable(cache=cache):
        outside = client.chat("m", ASK)
        with memoleo.enable(cache=inner):
            assert client.chat("m", ASK) != outside
        assert client.chat("m", ASK) == outside
    assert server.asked == 2
    assert untouched()


def test_closing_twice_is_harmless(cache: memoleo.Cache) -> None:
    """A handle that is closed again takes no other handle's patch with it."""
    first = memoleo.enable(cache=cache)
    second = memoleo.enable(cache=cache)
    first.close()
    first.close()
    assert not untouched()
    second.close()


def test_a_patch_on_top_survives(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """Somebody else's later patch stays in place, works, and what lies below it does nothing."""
    seen: list[Any] = []
    memoleo.enable(cache=cache)
    below = ollama.Client._request

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(args[2])
        return below(self, *args, **kwargs)

    ollama.Client._request = theirs  # type: ignore[method-assign]
    try:
        client.chat("m", ASK)
        memoleo.disable()
        assert ollama.Client._request is theirs
        client.chat("m", ASK)
        assert server.asked == 2
        assert seen == ["/api/chat", "/api/chat"]
        with memoleo.enable(cache=cache):
            client.chat("m", ASK)
            assert server.asked == 2
    finally:
        ollama.Client._request = below  # type: ignore[method-assign]
        memoleo.enable(cache=cache).close()


def test_a_patch_below_survives(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """What somebody patched before is called for what isn't cached, and put back afterwards."""
    seen: list[Any] = []

    @wrapt.decorator
    def spy(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(args[2])
        return wrapped(*args, **kwargs)

    theirs = spy(ORIGINAL)
    ollama.Client._request = theirs
    try:
        with memoleo.enable(cache=cache):
            client.chat("m", ASK)
            client.chat("m", ASK)
        assert vars(ollama.Client)["_request"] is theirs
        assert seen == ["/api/chat", "/api/tags"]
    finally:
        ollama.Client._request = ORIGINAL  # type: ignore[method-assign]


def test_a_changed_seam_is_refused(monkeypatch: pytest.MonkeyPatch, cache: memoleo.Cache) -> None:
    """A client whose private method takes other arguments is left alone, with a clear error."""

    def other(self: Any, method: str, url: str) -> None: ...

    monkeypatch.setattr(ollama.AsyncClient, "_request", other)
    with pytest.raises(memoleo.ConfigError, match=r"AsyncClient\._request is not what it was"):
        memoleo.enable(cache=cache)
    assert ollama.AsyncClient._request is other
    assert vars(ollama.Client)["_request"] is ORIGINAL


def test_a_missing_seam_is_refused(monkeypatch: pytest.MonkeyPatch, cache: memoleo.Cache) -> None:
    """A client without the private method is refused, and nothing stays enabled."""
    monkeypatch.delattr(ollama.Client, "_request")
    with pytest.raises(memoleo.ConfigError, match="can't be patched"):
        memoleo.enable(cache=cache)
    monkeypatch.undo()
    assert untouched()


def test_unknown_targets_are_refused() -> None:
    """A name that memoleo doesn't know is an error that lists those it knows."""
    with pytest.raises(memoleo.ConfigError, match="'ollama'"):
        memoleo.enable("olama")


@pytest.mark.parametrize(
    "before", ["import ollama", "from ollama import chat, Client", "import ollama._client"]
)
def test_import_order_does_not_matter(server: ScriptedOllama, before: str) -> None:
    """The package is patched whether it is imported before or after `enable`."""
    program = """
import sys, memoleo
{before}
memoleo.enable(cache="memory://")
{after}
import ollama
client = ollama.Client(sys.argv[1])
first = client.chat("m", [dict(role="user", content="why?")])
assert client.chat("m", [dict(role="user", content="why?")]) == first
client._client.close()
memoleo.disable()
assert "memoleo" not in ollama.Client._request.__code__.co_filename
"""
    for order in ({"before": before, "after": ""}, {"before": "", "after": before}):
        run = [sys.executable, "-W", "error", "-c", program.format(**order), server.url]
        subprocess.run(run, check=True)
    assert server.asked == 2


def test_enable_imports_nothing_that_is_not_there() -> None:
    """`enable` doesn't import the package that it patches."""
    program = "import sys, memoleo; memoleo.enable(); assert 'ollama' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_disabled_before_the_import(server: ScriptedOllama) -> None:
    """An import hook that is no longer wanted does nothing."""
    program = """
import memoleo
memoleo.enable()
memoleo.disable()
import ollama
assert "memoleo" not in ollama.Client._request.__code__.co_filename
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_early_bound_names(
    server: ScriptedOllama, cache: memoleo.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions and bound methods that were taken out before `enable` are answered too."""
    with ollama.Client(server.url, verify=False) as other:
        monkeypatch.setattr(ollama._client, "_client", other._client)
        from ollama import chat

        bound = other.chat
        with memoleo.enable(cache=cache):
            assert chat("m", ASK) == ollama.chat("m", ASK) == bound("m", ASK)
    assert server.asked == 1


def test_signature_and_name_stay(cache: memoleo.Cache) -> None:
    """Who inspects the client sees what was there before."""
    with memoleo.enable(cache=cache):
        assert inspect.signature(ollama.Client._request) == inspect.signature(ORIGINAL)
        assert inspect.iscoroutinefunction(ollama.AsyncClient._request)
        assert ollama.Client._request.__qualname__ == "Client._request"


def test_switched_off_calls_are_plain(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """`bypass` makes the plain call: no listing of models, nothing stored."""
    with memoleo.enable(cache=cache), memoleo.bypass():
        client.chat("m", ASK)
        client.chat("m", ASK)
    assert server.requests == {"/api/chat": 2}
    assert cache.get_stats()["total_entries"] == 0


def test_observe_and_refresh(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """`observe` serves and stores nothing, `refresh` replaces what is stored."""
    with memoleo.enable(cache=cache):
        with memoleo.observe():
            client.chat("m", ASK)
            client.embed("m", ["a", "b"])
            client.embed("m", ["a", "b"])
        assert cache.get_stats()["total_entries"] == 0
        client.chat("m", ASK)
        with memoleo.refresh():
            new = client.chat("m", ASK)
            client.embed("m", ["a", "b"])
        assert client.chat("m", ASK) == new
    assert server.asked == 6


def test_config_holds_until_the_handle_is_closed(
    tmp_path: Path, client: ollama.Client, server: ScriptedOllama
) -> None:
    """A settings file given to `enable` is in force inside the block only."""
    file = tmp_path / "memoleo.toml"
    file.write_text("[caching]\nenabled = false\n")
    memoleo.configure("memory://")
    try:
        with memoleo.enable():
            client.chat("m", ASK)
            with memoleo.enable(config=file):
                client.chat("m", ASK)
                assert server.asked == 2
            client.chat("m", ASK)
            assert server.asked == 2
    finally:
        memoleo.configure()


def test_proxy_leaves_the_client_alone(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """A proxy answers from the cache, passes for its client, and the client stays as it was."""
    stand_in = memoleo.proxy(client, cache=cache)
    assert isinstance(stand_in, ollama.Client)
    assert stand_in.chat("m", ASK) == stand_in.chat("m", ASK)
    assert server.asked == 1
    assert "_request" not in vars(client)
    client.chat("m", ASK)
    assert server.asked == 2
    assert untouched()


def test_proxy_and_enable_cache_once(
    client: ollama.Client, server: ScriptedOllama, cache: memoleo.Cache
) -> None:
    """A proxied client under `enable` asks one cache, and counts one lookup a call."""
    other = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    stand_in = memoleo.proxy(client, cache=cache)
    with memoleo.enable(cache=other):
        stand_in.chat("m", ASK)
        stand_in.chat("m", ASK)
        list(stand_in.generate("m", "why?", stream=True))
    assert server.asked == 2
    assert other.get_stats()["total_entries"] == 0
    assert cache.get_stats()["total_entries"] == 2


async def test_proxy_of_an_async_client(server: ScriptedOllama, cache: memoleo.Cache) -> None:
    """An asynchronous client is proxied too, as a context manager as well."""
    async with memoleo.proxy(ollama.AsyncClient(server.url, verify=False), cache=cache) as stand_in:
        first = await stand_in.chat("m", ASK)
        assert await stand_in.chat("m", ASK) == first
        parts = [part async for part in await stand_in.chat("m", ASK, stream=True)]
    assert "".join(part.message.content for part in parts) == first.message.content
    assert server.asked == 1


def test_proxy_refuses_what_it_does_not_know() -> None:
    """Only clients can be proxied, and the error says what to do for the rest."""
    with pytest.raises(memoleo.ConfigError, match="content_cached"):
        memoleo.proxy(object())


class Base:
    def method(self) -> str:
        return "base"


class Child(Base):
    pass


def test_what_was_inherited_is_inherited_again() -> None:
    """Restoring an inherited attribute removes it, instead of pinning the parent's."""
    patch = Patch(Child, "method", lambda original: lambda self: original(self) + "!")
    patch.apply()
    assert Child().method() == "base!"
    assert Base().method() == "base"
    assert patch.restore()
    assert "method" not in vars(Child)


def test_threads_enable_and_disable(cache: memoleo.Cache) -> None:
    """Handles opened and closed by many threads leave nothing behind."""

    def work() -> None:
        for _ in range(50):
            with memoleo.enable(cache=cache):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert untouched()


def test_options_that_nobody_heeds_are_refused() -> None:
    """An option of a package that isn't enabled is an error, not a silence."""
    with pytest.raises(memoleo.ConfigError, match="has no effect"):
        _check_options({}, {"share_by_digest": True})


def test_import_hook_leaves_nothing_behind() -> None:
    """The loader, the spec and `sys.meta_path` are what they are without the hook."""
    program = """
import sys, memoleo
finders = list(sys.meta_path)
handle = memoleo.enable()
assert sys.meta_path != finders
import ollama
assert "_imports" not in type(ollama.__loader__).__module__
assert ollama.__spec__.loader is ollama.__loader__
assert "memoleo" in ollama.Client._request.__code__.co_filename
handle.close()
assert sys.meta_path == finders
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
