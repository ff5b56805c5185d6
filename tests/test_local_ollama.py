"""The local server: the official client meets what it would meet at a real Ollama server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

pytest.importorskip("xllamacpp", reason="needs memoleo[local]", exc_type=ImportError)

from memoleo.errors import MemoleoError
from memoleo.testing import _model_file
from memoleo.testing._local_ollama import LocalOllama

pytestmark = pytest.mark.model

MODEL = "smollm2:135m"
SHORT: dict[str, Any] = {"temperature": 0, "num_predict": 6}
SKY = "Why is the sky blue?"
HELLO = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def server(local_ollama: LocalOllama) -> Iterator[LocalOllama]:
    """The session's server, counting from zero, and well-behaved again afterwards."""
    local_ollama.reset_counts()
    yield local_ollama
    local_ollama.switch_all_off()


@pytest.fixture
def client(server: LocalOllama) -> Iterator[ollama.Client]:
    """The official client."""
    with ollama.Client(server.url, trust_env=False) as client:
        yield client


@pytest.fixture
def http(server: LocalOllama) -> Iterator[httpx.Client]:
    """A bare HTTP client, for what the official one hides."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


# -- answers


def test_a_generate_answer_has_every_field_of_the_real_one(client: ollama.Client) -> None:
    """Text, reason, counts, durations in nanoseconds, the context, and a moment in UTC."""
    answer = client.generate(MODEL, SKY, options=SHORT)
    assert answer.response
    assert (answer.model, answer.done, answer.done_reason) == (MODEL, True, "length")
    assert answer.eval_count == 6
    assert answer.prompt_eval_count
    assert answer.prompt_eval_count > 6
    assert answer.context
    assert len(answer.context) >= answer.prompt_eval_count + 5
    for duration in (answer.total_duration, answer.eval_duration, answer.prompt_eval_duration):
        assert duration
        assert 100_000 < duration < 60e9
    assert datetime.fromisoformat((answer.created_at or "").replace("Z", "+00:00")).tzinfo


def test_a_stream_has_the_same_text_part_by_part(client: ollama.Client) -> None:
    """Only the last part is done, has the counts, and has no text."""
    whole = client.generate(MODEL, SKY, options=SHORT)
    parts = list(client.generate(MODEL, SKY, options=SHORT, stream=True))
    assert len(parts) == 7
    assert "".join(part.response or "" for part in parts) == whole.response
    assert [part.done for part in parts] == [False] * 6 + [True]
    assert all("eval_count" not in part for part in parts[:-1])
    assert (parts[-1].response, parts[-1].eval_count) == ("", 6)
    assert parts[-1].context == whole.context


def test_a_chat_streams_messages_of_the_assistant(client: ollama.Client) -> None:
    """Each part of a chat carries a message, and together they are the unstreamed one."""
    whole = client.chat(MODEL, HELLO, options=SHORT)
    parts = list(client.chat(MODEL, HELLO, options=SHORT, stream=True))
    assert whole.message.role == "assistant"
    assert {part.message.role for part in parts} == {"assistant"}
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert parts[-1].done_reason == whole.done_reason == "length"
    assert "context" not in parts[-1].model_dump(exclude_unset=True)


def test_a_stop_word_ends_the_answer_and_is_left_out(client: ollama.Client) -> None:
    """done_reason says "stop", and the word itself isn't in the text."""
    free = client.generate(MODEL, SKY, options=SHORT)
    words = (free.response or "").split()
    stopped = client.generate(MODEL, SKY, options={**SHORT, "stop": [f" {words[2]}"]})
    assert stopped.done_reason == "stop"
    assert (stopped.response or "").split() == words[:2]


def test_the_async_client_gets_the_same_answers(server: LocalOllama) -> None:
    """Sync or async, streamed or not: one text."""

    async def ask() -> tuple[str, str]:
        async with ollama.AsyncClient(server.url, trust_env=False) as client:
            whole = await client.chat(MODEL, HELLO, options=SHORT)
            parts = await client.chat(MODEL, HELLO, options=SHORT, stream=True)
            text = "".join([part.message.content or "" async for part in parts])
            return whole.message.content or "", text

    with ollama.Client(server.url, trust_env=False) as client:
        expected = client.chat(MODEL, HELLO, options=SHORT).message.content
    assert asyncio.run(ask()) == (expected, expected)


def test_the_same_request_has_the_same_answer_also_in_company(server: LocalOllama) -> None:
    """At a fixed seed nothing changes when other requests come in between or at once."""
    options = {"seed": 7, "temperature": 0.9, "num_predict": 8}

    async def ask() -> list[str]:
        async with ollama.AsyncClient(server.url, trust_env=False) as client:
            answers = await asyncio.gather(
                client.generate(MODEL, SKY, options=options),
                client.generate(MODEL, "Tell me about rain.", options=options),
                client.generate(MODEL, SKY, options=options),
                client.generate(MODEL, SKY, options={**options, "seed": 8}),
            )
            return [answer.response or "" for answer in answers]

    first, other, again, other_seed = asyncio.run(ask())
    assert first == again
    assert len({first, other, other_seed}) == 3


def test_a_schema_shapes_the_answer(client: ollama.Client) -> None:
    """An answer by JSON schema has the fields, the types and the bounds of the schema."""
    schema = {
        "type": "object",
        "properties": {
            "mood": {"type": "string", "enum": ["good", "bad"]},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
        },
        "required": ["mood", "score"],
        "additionalProperties": False,
    }
    answer = client.chat(MODEL, HELLO, format=schema, options={**SHORT, "num_predict": 40})
    value = json.loads(answer.message.content or "")
    assert set(value) == {"mood", "score"}
    assert value["mood"] in ("good", "bad")
    assert 1 <= value["score"] <= 5
    assert answer.done_reason == "stop"


def test_json_mode_writes_an_object(client: ollama.Client) -> None:
    """``format="json"`` begins an object, whatever the prompt says."""
    answer = client.generate(MODEL, SKY, format="json", options=SHORT)
    assert (answer.response or "").startswith("{")


def test_options_change_the_answer(client: ollama.Client) -> None:
    """System prompt, context, raw mode and a short num_ctx all reach the model."""
    plain = client.generate(MODEL, SKY, options=SHORT)
    others = [
        client.generate(MODEL, SKY, system="You are a pirate. Arr!", options=SHORT),
        client.generate(MODEL, SKY, context=plain.context, options=SHORT),
        client.generate(MODEL, SKY, raw=True, options=SHORT),
        client.generate(MODEL, SKY * 8, options={**SHORT, "num_ctx": 24}),
        client.generate(MODEL, SKY, template="{{ .Prompt }} Because", options=SHORT),
    ]
    evaluated = [answer.prompt_eval_count for answer in (plain, *others)]
    assert len(set(evaluated)) == 6
    assert evaluated[4] == 18
    assert others[2].context is None


def test_embeddings_are_normalised_and_independent_of_the_batch(client: ollama.Client) -> None:
    """A batch has the vectors that its texts have alone, in order, of length one."""
    batch = client.embed(MODEL, ["rain", "sunshine", "rain"])
    alone = client.embed(MODEL, "sunshine")
    assert batch.embeddings[0] == batch.embeddings[2] != batch.embeddings[1]
    assert batch.embeddings[1] == alone.embeddings[0]
    assert len(alone.embeddings[0]) == 576
    assert sum(value * value for value in alone.embeddings[0]) == pytest.approx(1)
    assert len(client.embed(MODEL, "rain", dimensions=64).embeddings[0]) == 64
    assert client.embed(MODEL, []).embeddings == []
    old = client.embeddings(MODEL, "sunshine").embedding
    length = sum(value * value for value in old) ** 0.5
    assert [value / length for value in old[:9]] == pytest.approx(alone.embeddings[0][:9])


def test_logprobs_are_told_on_request(client: ollama.Client) -> None:
    """One entry a token, with as many alternatives as asked for."""
    answer = client.generate(MODEL, SKY, logprobs=True, top_logprobs=3, options=SHORT)
    assert answer.logprobs
    assert "".join(entry.token for entry in answer.logprobs) == answer.response
    assert all(len(entry.top_logprobs or ()) == 3 for entry in answer.logprobs)


# -- models and memory


def test_loading_and_unloading_follow_the_requests(
    server: LocalOllama, client: ollama.Client
) -> None:
    """An empty request loads, keep_alive 0 unloads, and neither is a call of the model."""
    loaded = client.generate(MODEL)
    assert (loaded.done_reason, loaded.response) == ("load", "")
    running = client.ps().models
    assert [model.model for model in running] == [MODEL]
    assert running[0].digest == server.digest
    for off in (0, "0", "0s", 0.0):
        assert client.chat(MODEL, [], keep_alive=off).done_reason == "unload"
        assert client.ps().models == []
    assert client.chat(MODEL, []).done_reason == "load"
    assert server.model_calls == 0


def test_keep_alive_is_heeded_after_an_answer(client: ollama.Client) -> None:
    """A negative one keeps the model for ever, 0 frees it once the answer is given."""
    client.generate(MODEL, SKY, options=SHORT, keep_alive=-1)
    assert client.ps().models[0].expires_at.year > 2300  # type: ignore[union-attr]
    assert client.generate(MODEL, SKY, options=SHORT, keep_alive=0).response
    assert client.ps().models == []


def test_the_model_is_listed_and_shown(server: LocalOllama, client: ollama.Client) -> None:
    """Tags tell the digest, show tells the capabilities."""
    digests = {model.model: model.digest for model in client.list().models}
    assert digests[MODEL] == server.digest
    shown = client.show(MODEL)
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo
    assert shown.modelinfo["general.architecture"] == "llama"


def test_models_are_copied_and_deleted(client: ollama.Client) -> None:
    """A copy answers under its name, with and without its tag, until it is deleted."""
    client.copy(MODEL, "leo")
    for name in ("leo", "leo:latest", "LEO"):
        answer = client.generate(name, SKY, options={**SHORT, "num_predict": 1})
        assert answer.model == name
    assert [part.status for part in client.pull("leo", stream=True)][-1] == "success"
    client.delete("leo")
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.generate("leo", SKY)
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        list(client.pull("leo", stream=True))


# -- errors


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/generate", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/embed", {"model": "nope", "input": "a"}, 404, "model 'nope' not found"),
        ("/api/show", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/show", {}, 400, "model is required"),
        ("/api/embed", {"model": MODEL, "input": 3}, 400, "invalid input type"),
        ("/api/generate", {"model": MODEL, "prompt": 3}, 400, "json: cannot unmarshal"),
        ("/api/chat", {"model": MODEL, "messages": [3]}, 400, "json: cannot unmarshal"),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "think": True},
            400,
            f'"{MODEL}" does not support thinking',
        ),
        (
            "/api/chat",
            {"model": MODEL, "messages": HELLO, "tools": [{"type": "function"}]},
            400,
            f"registry.ollama.ai/library/{MODEL} does not support tools",
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "suffix": "b"},
            400,
            f"registry.ollama.ai/library/{MODEL} does not support insert",
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "raw": True, "system": "b"},
            400,
            "raw mode does not support",
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "options": {"seed": "b"}},
            500,
            'option "seed" must be of type integer',
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "format": "yaml"},
            500,
            "invalid format",
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "format": {"type": "thing"}},
            500,
            "invalid JSON schema in format",
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "keep_alive": "soon"},
            400,
            'time: invalid duration "soon"',
        ),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "a", "top_logprobs": 21},
            400,
            "top_logprobs must be between 0 and 20",
        ),
    ],
)
def test_a_bad_request_is_refused_as_the_real_server_does(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    """The status, and ``{"error": …}`` as JSON, streamed or not."""
    for stream in (True, False):
        answer = http.post(path, json={**body, "stream": stream})
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert answer.json()["error"].startswith(message)
        assert answer.headers["content-type"].startswith("application/json")


def test_what_is_no_request_is_refused(http: httpx.Client) -> None:
    """No body, no JSON, no object, no such path."""
    assert http.post("/api/chat").json() == {"error": "missing request body"}
    assert http.post("/api/chat", content=b"{").status_code == 400
    assert http.post("/api/chat", json=[]).status_code == 400
    assert http.get("/api/nothing").status_code == 404


def test_the_greeting_and_the_version_are_there(http: httpx.Client) -> None:
    """What a client pings to see whether Ollama runs."""
    assert http.get("/").text == "Ollama is running"
    assert http.head("/").status_code == 200
    assert http.get("/api/version").json()["version"].count(".") == 2


def test_streams_are_ndjson(http: httpx.Client) -> None:
    """Without ``stream`` the server streams, as the real one does."""
    answer = http.post("/api/generate", json={"model": MODEL, "prompt": SKY, "options": SHORT})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[-1]["done"] is True


# -- counts and switches


def test_requests_and_model_calls_are_counted_for_any_process(
    server: LocalOllama, client: ollama.Client, http: httpx.Client
) -> None:
    """The object and the address tell the same; only computing counts as a model call."""
    client.generate(MODEL, SKY, options=SHORT)
    client.generate(MODEL)
    client.embed(MODEL, ["a", "b"])
    client.list()
    counts = http.get("/memoleo/counts").json()
    assert counts == server.counts
    assert server.requests == {"/api/generate": 2, "/api/embed": 1, "/api/tags": 1}
    assert server.model_calls == 2
    assert (counts["embedded_inputs"], counts["eval_count"]) == (2, 6)


def test_the_next_calls_fail_on_request(server: LocalOllama, client: ollama.Client) -> None:
    """So many calls fail with the status and the header asked for, and then it works again."""
    server.switch(fail_next=2, fail_status=503, retry_after=2)
    with pytest.raises(ollama.ResponseError, match="server busy") as caught:
        client.generate(MODEL, SKY, options=SHORT)
    assert caught.value.status_code == 503
    assert caught.value.__context__.response.headers["Retry-After"] == "2"  # type: ignore[union-attr]
    with pytest.raises(ollama.ResponseError):
        next(client.generate(MODEL, SKY, options=SHORT, stream=True))
    assert client.generate(MODEL, SKY, options=SHORT).done
    assert server.model_calls == 1


def test_a_stream_can_be_cut_or_end_in_an_error(server: LocalOllama, client: ollama.Client) -> None:
    """Cut, it just ends undone; with an error part the client raises in mid-stream."""
    server.switch(cut_after=3)
    parts = list(client.generate(MODEL, SKY, options=SHORT, stream=True))
    assert [part.done for part in parts] == [False] * 3
    server.switch(cut_after=None, error_after=2)
    stream = client.generate(MODEL, SKY, options=SHORT, stream=True)
    assert [next(stream).done, next(stream).done] == [False, False]
    with pytest.raises(ollama.ResponseError, match="asked for") as caught:
        next(stream)
    assert caught.value.status_code == -1


def test_the_digest_changes_on_request(server: LocalOllama, client: ollama.Client) -> None:
    """As if the model had been pulled anew."""
    server.switch(digest="f" * 64)
    client.generate(MODEL)
    assert client.list().models[0].digest == "f" * 64
    assert client.ps().models[0].digest == "f" * 64


def test_an_answer_is_delayed_on_request(server: LocalOllama) -> None:
    """A client with a shorter patience runs into its timeout."""
    server.switch(delay=30)
    hasty = ollama.Client(server.url, timeout=0.2, trust_env=False)
    with hasty, pytest.raises(httpx.ReadTimeout):
        hasty.generate(MODEL, SKY, options=SHORT)


def test_an_unknown_switch_is_refused(server: LocalOllama) -> None:
    """With a message that lists the known ones."""
    with pytest.raises(ValueError, match=r"unknown switch 'speed'.*delay"):
        server.switch(speed=3)
    with pytest.raises(ValueError, match="can't be"):
        server.switch(fail_next="two")


def test_a_client_that_leaves_cancels_the_computation(
    server: LocalOllama, client: ollama.Client
) -> None:
    """The next call is answered long before the abandoned one could have been finished."""
    endless = {"num_predict": 1500, "temperature": 1.5, "seed": 1, "stop": []}
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 700}
    stream = client.generate(MODEL, SKY, options=endless, format=schema, stream=True)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    hasty = ollama.Client(server.url, timeout=0.3, trust_env=False)
    with hasty, pytest.raises(httpx.ReadTimeout):
        hasty.generate(MODEL, SKY, options=endless, format=schema)
    assert client.generate(MODEL, SKY, options=SHORT).done
    assert server.counts["eval_count"] == 6


# -- processes


def test_it_comes_back_at_the_same_address() -> None:
    """Killed, it is gone; started again, it answers where it did."""
    server = LocalOllama(aliases=["leo"], digest="a" * 64, delay=0.0)
    with server:
        address = server.url
        with ollama.Client(address, trust_env=False) as client:
            assert [model.model for model in client.list().models] == ["leo:latest", MODEL]
            assert client.list().models[0].digest == "a" * 64
            server.kill()
            with pytest.raises(ConnectionError):
                client.list()
            with pytest.raises(MemoleoError, match="isn't running"):
                server.requests
            server.start()
            assert client.list().models
    assert server.url == address


def test_a_server_that_cannot_start_says_why() -> None:
    """A port that is taken is an error with the server's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = LocalOllama(port=taken.getsockname()[1])
        with pytest.raises(MemoleoError, match=r"(?s)ended with status 1:.*ddress"):
            server.start()
    with pytest.raises(MemoleoError, match="unknown switch 'speed'"):
        LocalOllama(speed=3).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send")
def test_the_command_serves_until_a_signal(number: signal.Signals) -> None:
    """``python -m memoleo.testing.local_ollama`` says its address and ends cleanly, status 0."""
    command = [sys.executable, "-W", "error", "-m", "memoleo.testing.local_ollama", "--port=0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        assert process.stderr
        address = process.stdout.readline().split()[3].rstrip(",")
        with httpx.Client(trust_env=False) as client:
            assert client.get(address).text == "Ollama is running"
            if number == signal.SIGTERM:
                client.post(f"{address}/api/generate", json={"model": MODEL}, timeout=30)
        process.send_signal(number)
        assert process.wait(15) == 0
        assert process.stderr.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_server_does_not_outlive_its_owner() -> None:
    """Kill the process that started it, and it goes away by itself."""
    program = (
        "from memoleo.testing._local_ollama import LocalOllama\n"
        "server = LocalOllama().start(); print(server.pid, flush=True); input()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 15
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return sys.platform != "linux"
    return state != "Z"


# -- the model file


def test_the_model_file_is_verified_and_shared(tmp_path: Path) -> None:
    """Its folder can be named, a copy there is used, and threads that ask at once all get it."""
    source = _model_file.model_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMOLEO_MODEL_DIR", str(tmp_path))
        shutil.copyfile(source, tmp_path / _model_file.GGUF_NAME)
        found: list[Path] = []
        threads = [
            threading.Thread(target=lambda: found.append(_model_file.model_file()))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [tmp_path / _model_file.GGUF_NAME] * 3


def test_a_damaged_model_file_is_not_served(tmp_path: Path) -> None:
    """If it can't be fetched anew either, the error names the file, the folder and the way out."""
    (tmp_path / _model_file.GGUF_NAME).write_bytes(b"not a model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMOLEO_MODEL_DIR", str(tmp_path))
        # No index, no files to install from, and a proxy that refuses: there is no way out.
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(tmp_path))
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setenv("NO_PROXY", "")
        with pytest.raises(MemoleoError, match="MEMOLEO_MODEL_DIR") as caught:
            _model_file.model_file(progress=False)
    assert "pip: " in str(caught.value)
    assert "https: " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".fetch")] == []
