"""What of a request, and of who sends it, is in the key of an ollama answer."""

from __future__ import annotations

import base64
import enum
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama_asking import opened
from scripted_ollama import ScriptedOllama

import memoleo
from memoleo.patches._ollama_request import APART, Question, content_of, full_name, read
from memoleo.patches._ollama_server import server_of

ASK: list[dict[str, Any]] = [{"role": "user", "content": "why?"}]


@pytest.fixture(autouse=True)
def _own_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoleo._exchanges.fingerprint._secrets", [b"s" * 32])
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)


def takes(name: str, field: str) -> bool:
    """Whether a verb of the installed client has a field."""
    return field in inspect.signature(getattr(ollama.Client, name)).parameters


def sent(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """What a verb hands to the seam."""
    kwargs = {field: value for field, value in kwargs.items() if takes(name, field)}
    seen: list[tuple[Any, Any]] = []
    client = ollama.Client("http://localhost", verify=False)
    client._request = lambda *args, **kwargs: seen.append((args, kwargs))  # type: ignore
    getattr(client, name)(*args, **kwargs)
    client._client.close()
    return seen[0]


def asks(name: str, *args: Any, **kwargs: Any) -> Question:
    """What a verb asks."""
    arguments, keywords = sent(name, *args, **kwargs)
    question = read(arguments[2], keywords["json"])
    assert question is not None
    return question


def key(name: str, *args: Any, **kwargs: Any) -> bytes:
    question = asks(name, *args, **kwargs)
    return question.key(b"server", "digest")


CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "why?"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}}],
    "think": False,
    "format": {"type": "object", "properties": {"a": {"type": "string"}}},
    "logprobs": True,
    "top_logprobs": 2,
    "options": {"temperature": 0.5, "seed": 1, "stop": ["a", "b"], "num_ctx": 512, "mine": "x"},
}  # fmt: skip
GENERATE: dict[str, Any] = {
    "model": "m",
    "prompt": "why?",
    "suffix": "s",
    "system": "sys",
    "template": "t",
    "context": [1, 2],
    "raw": False,
    "images": [base64.b64encode(b"image").decode()],
    "format": "json",
    "options": {"temperature": 0.5},
    "width": 1,
    "height": 2,
    "steps": 3,
}
EMBED: dict[str, Any] = {
    "model": "m", "input": "why?", "truncate": True, "dimensions": 8, "options": {"num_ctx": 512},
}  # fmt: skip

OLD: dict[str, Any] = {"model": "m", "prompt": "why?", "options": {"num_ctx": 512}}
JUDGE: dict[str, Any] = {
    "model": "m", "state": "state", "questions": {"ok": {"type": "noul", "instructions": "Is it?"}},
}  # fmt: skip

CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *[("chat", CHAT, change) for change in [
        {"model": "n"},
        {"messages": [{"role": "system", "content": "why?"}]},
        {"messages": [{"role": "user", "content": "why? "}]},
        {"messages": [*ASK, *ASK]},
        {"messages": [{"role": "user", "content": "why?", "images": ["aW1hZ2U="]}]},
        {"messages": [{"role": "user", "content": "why?", "thinking": "hm"}]},
        {"messages": [{"role": "user", "content": "why?", "tool_name": "f"}]},
        {"tools": None},
        {"tools": [*CHAT["tools"], *CHAT["tools"]]},
        {"think": True},
        {"think": "high"},
        {"think": None},
        {"format": "json"},
        {"format": None},
        {"format": {"properties": {"a": {"type": "string"}}, "type": "object"}},
        {"logprobs": False},
        {"top_logprobs": 3},
        {"options": None},
    ]],
    *[("chat", CHAT, {"options": {**CHAT["options"], **change}}) for change in [
        {"temperature": 0.6},
        {"seed": 2},
        {"seed": "1"},
        {"seed": True},
        {"stop": ["b", "a"]},
        {"stop": ["a"]},
        {"num_ctx": 1024},
        {"mine": "y"},
        {"mine": None},
        {"num_thread": 2},
        {"unknown": 1},
    ]],
    *[("generate", GENERATE, change) for change in [
        {"model": "n"},
        {"prompt": "Why?"},
        {"suffix": "t"},
        {"system": "other"},
        {"template": "u"},
        {"context": [2, 1]},
        {"context": None},
        {"raw": True},
        {"images": None},
        {"images": [base64.b64encode(b"other").decode()]},
        {"format": ""},
        {"options": {"temperature": 0.25}},
        {"think": True},
        {"logprobs": True},
        {"width": 2},
        {"height": 1},
        {"steps": 4},
    ]],
    *[("embed", EMBED, change) for change in [
        {"model": "n"},
        {"input": "how?"},
        {"input": ["why?", "why?"]},
        {"truncate": False},
        {"dimensions": 16},
        {"options": {"num_ctx": 256}},
    ]],
    *[("embeddings", OLD, change) for change in [
        {"model": "n"},
        {"prompt": "how?"},
        {"options": {"num_ctx": 256}},
    ]],
    *[("systemone", JUDGE, change) for change in [
        {"model": "n"},
        {"state": "other"},
        {"questions": {"other": {"type": "noul", "instructions": "Is it?"}}},
        {"questions": {"ok": {"type": "noul", "instructions": "Is it not?"}}},
    ] if hasattr(ollama.Client, "systemone")],
]  # fmt: skip


@pytest.mark.parametrize(("name", "base", "change"), CHANGES)
def test_changing_any_field_changes_the_key(
    name: str, base: dict[str, Any], change: dict[str, Any]
) -> None:
    """Every single field of a request counts, known to memoleo or not."""
    if not takes(name, *change):
        pytest.skip(f"ollama {version('ollama')} has no such field")
    for message in change.get("messages", ()):
        if not message.keys() <= ollama.Message.model_fields.keys():
            pytest.skip(f"messages of ollama {version('ollama')} have no such field")
    assert key(name, **base) == key(name, **base)
    assert key(name, **{**base, **change}) != key(name, **base)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {**CHAT, "new_field": [1]}),
        ("/api/generate", {**GENERATE, "new_field": {"a": None}}),
        ("/api/embed", {**EMBED, "new_field": "x"}),
        ("/api/embeddings", {**OLD, "new_field": True}),
        ("/v1/systemone", {**JUDGE, "new_field": 1.5}),
    ],
)
def test_each_field_of_a_body_counts(path: str, body: dict[str, Any]) -> None:
    """Without any single one of its fields, known or new, a body asks something else."""
    bodies = [body, *({key: body[key] for key in body if key != name} for name in body)]
    bodies += [{**body, name: [body[name], "changed"]} for name in body if name != "model"]
    found = [read(path, each) for each in bodies]
    keys = [question.key(b"server", "digest") for question in found if question is not None]
    assert len(set(keys)) == len(keys) >= 2 * len(body) - 2
    for left_out in ({"stream": True}, {"keep_alive": -1}, {"keep_alive": "1h", "stream": False}):
        again = read(path, {**body, **left_out})
        assert again is not None
        assert again.key(b"server", "digest") == keys[0]


@pytest.mark.parametrize("name", ["chat", "generate"])
@pytest.mark.parametrize(
    "change", [{"stream": True}, {"keep_alive": 5}, {"keep_alive": "5m"}, {"keep_alive": 0}]
)
def test_two_fields_have_no_effect(name: str, change: dict[str, Any]) -> None:
    """Streaming and how long the model stays loaded don't change the answer."""
    base = CHAT if name == "chat" else GENERATE
    assert key(name, **base, **change) == key(name, **base)


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"options": {"temperature": 0}}, {"options": {"temperature": 0.0}}),
    ({"options": {"top_k": 40.0}}, {"options": {"top_k": 40}}),
    ({"options": {"a": 1, "b": 2}}, {"options": {"b": 2, "a": 1}}),
    ({"options": {"stop": ("a",)}}, {"options": {"stop": ["a"]}}),
    ({"options": {"seed": 1}}, {"options": ollama.Options(seed=1)}),
    ({"model": "m"}, {"model": "m:latest"}),
    ({"messages": ASK}, {"messages": [ollama.Message(role="user", content="why?")]}),
    ({"messages": [{"role": "user", "content": "x"}]},
     {"messages": [{"content": "x", "role": "user"}]}),
    ({"tools": []}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_spellings_of_the_same_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Spellings that mean the same have the same key."""
    base = {"model": "m", "messages": ASK}
    assert key("chat", **{**base, **one}) == key("chat", **{**base, **other})


def test_what_other_libraries_leave_out() -> None:
    """Fields without a value, and a message's fields in another order, change nothing."""
    plain = {"messages": [{"role": "user", "content": "x"}]}
    for other in (
        {**plain, "tools": []},
        {**plain, "system": None, "options": None},
        {"messages": [{"content": "x", "role": "user"}]},
    ):
        assert content_of(other) == content_of(plain)
    assert content_of({**plain, "tools": [{}]}) != content_of(plain)


def test_an_image_however_it_is_given(tmp_path: Path) -> None:
    """A path, bytes and base64 of the same image have the same key."""
    file = tmp_path / "image.png"
    file.write_bytes(b"image")
    forms: list[Any] = [file, str(file), b"image", base64.b64encode(b"image").decode()]
    if hasattr(ollama, "Image"):
        forms.append(ollama.Image(value=file))
    keys = {key("generate", "m", "why?", images=[form]) for form in forms}
    in_chat = {
        key("chat", "m", [{"role": "user", "content": "x", "images": [form]}]) for form in forms
    }
    assert len(keys) == len(in_chat) == 1


def test_verbs_and_servers_are_kept_apart() -> None:
    """The same text asked by other verbs, of other servers or digests, has other keys."""
    questions = [
        asks("generate", "m", "why?"),
        asks("embeddings", "m", "why?"),
        asks("embed", "m", "why?"),
    ]
    keys = {
        question.key(server, digest)
        for question in questions
        for server in (b"a", b"b")
        for digest in ("1", "2")
    }
    assert len(keys) == 12


def test_a_single_text_is_a_batch_of_one() -> None:
    """`embed` gives the same answer to a text and to a list of it."""
    assert key("embed", "m", "why?") == key("embed", "m", ["why?"])


def test_keys_do_not_depend_on_the_process() -> None:
    """Another process, with another hash seed, computes the same keys."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_ollama_keys as t;"
        "print(t.key('chat', **t.CHAT).hex(), t.key('generate', **t.GENERATE).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{key('chat', **CHAT).hex()} {key('generate', **GENERATE).hex()}\n"}


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("value", [Color.RED, {1, 2}, float("nan"), object(), 1j])
def test_what_cannot_be_sent_has_no_key(value: Any) -> None:
    """A body that the client will refuse is left to the client, even if it looks like another."""
    assert content_of({"options": {"x": value}}) is None


@pytest.mark.parametrize(
    "value", [2**70, "\ud800", {1: "a"}, (1, (2,)), [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]
)
def test_unusual_bodies_have_keys(value: Any) -> None:
    """Huge numbers, odd text, deep lists and tuples count as they go over the wire."""
    assert content_of({"format": value}) == content_of({"format": value}) != content_of({})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
def test_bodies_share_bytes_only_if_the_wire_does(one: Any, other: Any) -> None:
    """Outside `options`, bodies have the same bytes exactly if their JSON is the same."""

    def wire(body: dict[str, Any]) -> str:
        names = [name for name in sorted(body) if name not in APART and body[name] is not None]
        return json.dumps([[name, body[name]] for name in names])

    one.pop("options", None)
    other.pop("options", None)
    assert (content_of(one) == content_of(other)) is (wire(one) == wire(other))


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("m", "m:latest"),
        ("m:7b", "m:7b"),
        ("user/m", "user/m:latest"),
        ("host:5000/user/m", "host:5000/user/m:latest"),
        ("host:5000/user/m:1", "host:5000/user/m:1"),
    ],
)
def test_names_get_their_tag(name: str, full: str) -> None:
    """A colon belongs to the tag only in the last part of a name."""
    assert full_name(name) == full


def place(**kwargs: Any) -> bytes | None:
    host = kwargs.pop("host", "http://localhost")
    with opened(host, **kwargs) as client:
        server = server_of(client)
        return None if server is None else server.here


WHO: list[dict[str, Any]] = [
    {},
    {"host": "http://localhost:1234"},
    {"host": "http://127.0.0.1"},
    {"host": "https://localhost"},
    {"host": "http://localhost/prefix"},
    {"headers": {"Authorization": "Bearer a"}},
    {"headers": {"Authorization": "Bearer b"}},
    {"headers": {"X-Api-Key": "a"}},
    {"headers": {"Cookie": "a"}},
    {"auth": ("u", "a")},
    {"auth": ("u", "b")},
    {"auth": httpx.DigestAuth("u", "a")},
    {"auth": httpx.DigestAuth("u", "b")},
    {"params": {"token": "a"}},
    {"cookies": {"session": "a"}},
    {"cookies": {"session": "b"}},
    {"proxy": "http://proxy:1"},
    {"proxy": "http://proxy:2"},
    {"proxy": "http://user:a@proxy:1"},
    {"transport": httpx.HTTPTransport(uds="/tmp/a", verify=False)},
    {"transport": httpx.HTTPTransport(uds="/tmp/b", verify=False)},
]


def test_servers_and_callers_are_kept_apart() -> None:
    """Another address, or other credentials in whatever form, is another server."""
    places = [place(**who) for who in WHO]
    assert len(set(places)) == len(WHO)
    assert places == [place(**who) for who in WHO]


def test_harmless_headers_do_not_split() -> None:
    """What says nothing about who asks doesn't keep answers apart."""
    assert place(headers={"traceparent": "00-1", "X-Request-Id": "1"}) == place()


def test_changed_credentials_are_noticed() -> None:
    """Headers, cookies and addresses that change on a client change who asks."""
    with opened("http://localhost") as client:
        seen = [server_of(client)]
        client._client.headers["authorization"] = "Bearer a"
        seen.append(server_of(client))
        client._client.headers["authorization"] = "Bearer b"
        seen.append(server_of(client))
        client._client.cookies.set("session", "a")
        seen.append(server_of(client))
        client._client.base_url = "http://elsewhere"
        seen.append(server_of(client))
    assert len({server.here for server in seen if server is not None}) == 5


def test_credentials_cannot_be_guessed_from_what_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fingerprint depends on the user's own secret, and holds nothing of the credentials."""
    first = place(headers={"Authorization": "Bearer a"})
    monkeypatch.setattr("memoleo._exchanges.fingerprint._secrets", [b"t" * 32])
    assert place(headers={"Authorization": "Bearer a"}) != first
    assert place() == place()


def test_a_way_to_authenticate_does_not_hide_a_header() -> None:
    """Somebody's own `httpx.Auth` may leave the headers as they are, so these count beside it."""

    class Signed(httpx.Auth):
        def __init__(self, name: str) -> None:
            self.name = name

    places = {
        place(auth=Signed(name), headers={"Authorization": f"Bearer {token}"})
        for name in "ab"
        for token in "ab"
    }
    assert len(places) == 4
    basic = {place(auth=("u", "p"), headers={"Authorization": f"Bearer {token}"}) for token in "ab"}
    assert len(basic) == 1


def test_unreadable_credentials_are_not_cached() -> None:
    """Somebody's own way to authenticate, whose content can't be compared, is not guessed at."""

    class Mine(httpx.Auth):
        def __init__(self) -> None:
            self.lock = iter([1])

    assert place(auth=Mine()) is None


def _answer(text: str) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"models": [{"model": "m:latest", "digest": "d"}]})
        part = {"model": "m", "response": text, "done": True, "done_reason": "stop"}
        return httpx.Response(200, json=part)

    return httpx.MockTransport(handle)


def test_transports_of_ones_own_share_only_with_themselves() -> None:
    """What answers instead of the network isn't known: each such transport is its own server."""
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    first, second = _answer("first"), _answer("second")
    with memoleo.enable(cache=cache):
        for _ in range(2):
            for transport, text in ((first, "first"), (second, "second")):
                with opened("http://h", transport=transport) as client:
                    assert client.generate("m", "why?").response == text
    assert cache.metrics.get_stats()["cache"]["ollama.generate"]["hits"] == 2


def test_hooks_that_change_requests_keep_a_client_apart() -> None:
    """A hook may sign requests, so answers stay with the client that has it."""
    with opened("http://localhost") as client:
        plain = server_of(client)
        client._client.event_hooks["request"].append(lambda request: None)
        hooked = server_of(client)
        again = server_of(client)
    assert plain is not None
    assert hooked is not None
    assert again is not None
    assert plain.here != hooked.here == again.here


@pytest.fixture
def server() -> Iterator[ScriptedOllama]:
    with ScriptedOllama() as script:
        yield script


def test_callers_and_hosts_do_not_share_answers(server: ScriptedOllama) -> None:
    """Through real clients: each caller, and each server, gives its own answer."""
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with ScriptedOllama() as second, memoleo.enable(cache=cache):
        clients = [
            ollama.Client(server.url, verify=False),
            ollama.Client(server.url, verify=False, headers={"Authorization": "Bearer a"}),
            ollama.Client(second.url, verify=False),
        ]
        for _ in range(2):
            for client in clients:
                client.chat("m", ASK)
        assert (server.asked, second.asked) == (2, 1)
        for client in clients:
            client._client.close()


def test_sharing_by_digest_is_an_option(server: ScriptedOllama) -> None:
    """Where it is asked for, servers share answers of the same digest, callers still don't."""
    cache = memoleo.Cache("memory://", metrics=memoleo.Metrics())
    with ScriptedOllama() as second, memoleo.enable(cache=cache, share_by_digest=True):
        with opened(server.url) as one:
            first = one.chat("m", ASK)
        with opened(second.url) as two:
            two.chat("other", ASK)
            assert two.chat("m", ASK) == first
        with opened(second.url, headers={"Cookie": "a"}) as three:
            three.chat("other", ASK)
            assert three.chat("m", ASK) != first
        assert second.asked == 3
