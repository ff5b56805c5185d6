"""The demo: a program that knows nothing of memoleo, run twice against a real model."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from rich.console import Console

from memoleo.demo import diary, enrich
from memoleo.demo._counting_proxy import CountingProxy
from memoleo.demo._report import Run, as_data, verdict
from memoleo.demo._run import run_demo
from memoleo.demo.worker import STAGES

SHORT: dict[str, Any] = {"temperature": 0, "num_predict": 4}


@pytest.fixture
def ollama_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The session's local model, standing where OLLAMA_HOST says."""
    pytest.importorskip("xllamacpp", reason="needs memoleo[local]", exc_type=ImportError)
    server = request.getfixturevalue("local_ollama")
    server.reset_counts()
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    yield server
    server.switch_all_off()


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``memoleo demo`` as a user does."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "memoleo", "demo", *arguments],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )


def test_the_diary_is_long_enough_and_repeats_itself() -> None:
    """At least 60 entries; nearly half are new to the model, and some differ by little."""
    tidy = [" ".join(entry.split()) for entry in diary.ENTRIES]
    assert len(tidy) >= 60
    assert 25 <= len(set(tidy)) <= 30
    assert len({entry.casefold().rstrip(".!") for entry in tidy}) < len(set(tidy))
    assert len(set(tidy)) < len(set(diary.ENTRIES))


def test_the_program_knows_nothing_of_memoleo() -> None:
    """The module that is sped up imports the ollama package and the standard library."""
    tree = ast.parse(Path(enrich.__file__).read_text("utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "json", "ollama", "typing"}


@pytest.mark.model
def test_the_program_works_by_itself(ollama_host: Any) -> None:
    """Without memoleo it gets scores within bounds, four lines and three tips."""
    with ollama.Client() as client:
        scores = enrich.score_emotions(client, ollama_host.model, diary.ENTRIES[1])
        lines = enrich.write_poem_and_tips(client, ollama_host.model, diary.ENTRIES[1])
    assert set(scores) == set(enrich.EMOTIONS)
    assert all(0 <= score <= 9 for score in scores.values())
    assert (len(lines["poem"]), len(lines["tips"])) == (4, 3)


@pytest.mark.model
def test_the_warm_run_asks_the_model_nothing(ollama_host: Any) -> None:
    """Three entries, one of them twice: four calls cold, none warm, by the server's own count."""
    done = demo("--entries", "3", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True
    assert (told["cold"]["model_calls"], told["warm"]["model_calls"]) == (4, 0)
    assert ollama_host.model_calls == 4
    for stage in STAGES:
        cold, warm = told["cold"]["stages"][stage], told["warm"]["stages"][stage]
        assert (cold["count"], cold["hits"]) == (3, 1)
        assert (warm["count"], warm["hits"], warm["hit_rate"]) == (3, 3, 100.0)
        assert warm["p50_ms"] < cold["p50_ms"]
        assert warm["tokens_saved"] > cold["tokens_saved"] > 0
        assert warm["saved_ms"] > cold["saved_ms"] > 0
    assert "made 0 model calls, says the server" in done.stderr


@pytest.mark.model
def test_a_cache_that_is_named_outlives_the_demo(ollama_host: Any, tmp_path: Path) -> None:
    """The second demo on one cache has nothing to ask, until the model is another one.

    Settings of the user's, such as MEMOLEO_ENABLED, don't matter.
    """
    cache = f"sqlite:///{(tmp_path / 'demo.db').as_posix()}"
    first = demo("--entries", "1", "--cache", cache)
    assert first.returncode == 0, first.stdout + first.stderr
    asked = ollama_host.model_calls
    second = demo("--entries", "1", "--cache", cache, MEMOLEO_ENABLED="0")
    assert second.returncode == 0, second.stdout + second.stderr
    assert ollama_host.model_calls == asked == 2
    assert "poem and tips" in second.stdout
    assert "100 %" in second.stdout
    ollama_host.switch(digest="e" * 64)
    third = demo("--entries", "1", "--cache", cache)
    assert third.returncode == 0, third.stdout + third.stderr
    assert ollama_host.model_calls == 4


@pytest.mark.model
def test_a_model_that_is_not_there_is_an_error(ollama_host: Any) -> None:
    """Status 2, and the names that there are."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    status = run_demo(entries=1, model="nope", cache=None, as_json=False, console=console)
    assert status == 2
    assert "'nope' isn't there" in out.getvalue()
    assert ollama_host.model in out.getvalue()
    assert ollama_host.model_calls == 0


@pytest.mark.model
def test_a_worker_that_fails_is_an_error_with_its_words(ollama_host: Any) -> None:
    """Status 2, and what the model's server said."""
    ollama_host.switch(fail_next=1, fail_status=500, fail_message="out of luck")
    done = demo("--entries", "1")
    assert done.returncode == 2
    assert "out of luck" in done.stdout


@pytest.mark.model
def test_the_proxy_counts_what_the_server_counts(ollama_host: Any) -> None:
    """Answers, streams and errors come through unchanged, and only model calls count."""
    with CountingProxy(ollama_host.url) as proxy:
        with ollama.Client(proxy.url) as client, ollama.Client(ollama_host.url) as direct:
            for prompt in ("Hello", "Good night"):
                asked = (ollama_host.model, prompt)
                whole = client.generate(*asked, options=SHORT)
                assert whole.response == direct.generate(*asked, options=SHORT).response
                parts = list(client.generate(*asked, options=SHORT, stream=True))
                assert "".join(part.response or "" for part in parts) == whole.response
            assert client.list() == direct.list()
            with pytest.raises(ollama.ResponseError, match="not found") as caught:
                client.chat("nope", [{"role": "user", "content": "Hello"}])
            assert caught.value.status_code == 404
        assert httpx.head(proxy.url).status_code == 200
        assert proxy.model_calls == 5
    assert ollama_host.model_calls == 6


def test_a_warm_run_that_asked_or_erred_is_no_success() -> None:
    """One model call, or one other answer, and the verdict is bad."""
    call = {"stage": STAGES[0], "ms": 5.0, "hits": 0, "saved_ms": 0, "tokens_saved": 0}
    cold = Run("cold", [{**call, "answer": 1}], model_calls=1)
    assert verdict(cold, Run("warm", [{**call, "answer": 1}], model_calls=0))[0]
    fine, sentence = verdict(cold, Run("warm", [{**call, "answer": 1}], model_calls=1))
    assert (fine, "made 1 model call," in sentence) == (False, True)
    fine, sentence = verdict(cold, Run("warm", [{**call, "answer": 2}], model_calls=0))
    assert (fine, "1 answers of the warm run differ" in sentence) == (False, True)
    assert as_data(cold, cold)["cold"]["stages"][STAGES[0]]["p95_ms"] == 5.0
