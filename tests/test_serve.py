"""The dashboard's endpoints: served by the command, mounted in other programs, and guarded."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from chromium import serving
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

import memoleo
from memoleo import Cache, content_cached, get_metrics, timer
from memoleo.serve import asgi_app, collector, metrics_json, metrics_text, wsgi_app
from memoleo.serve._kept import Kept
from memoleo.testing import FakeClock

TOKEN = "a-token-of-some-length"
SECRET = "what nobody else should read"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """The default cache: a file with three results, after two hits, one failure and one timing."""
    get_metrics().reset()
    cache = memoleo.configure(f"sqlite:///{(tmp_path / 'cache.db').as_posix()}")

    @content_cached(type="shouting", tags=[SECRET])
    def shout(text: str) -> str:
        if not text:
            raise ValueError("nothing to shout")
        return text.upper() + SECRET

    for text in ("a", "b", "c" * 5000, "a", "b"):
        shout(text)
    with pytest.raises(ValueError, match="nothing"):
        shout("")
    with timer("stage"):
        pass
    yield cache
    cache.close()
    memoleo.configure()
    get_metrics().reset()


class Ask:
    """Asks an application, without a socket for ASGI."""

    def __init__(self, app: object, base: str = "http://localhost", root: str = "") -> None:
        self._transport = httpx.ASGITransport(app, root_path=root)  # type: ignore[arg-type]
        self._base = base

    def __call__(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with httpx.AsyncClient(transport=self._transport, base_url=self._base) as client:
                return await client.request(method, path, headers=named)

        return asyncio.run(ask())


def test_every_endpoint_answers(cache: Cache) -> None:
    """The page, what it loads, its data, and the three endpoints for machines."""
    ask = Ask(asgi_app())
    for path, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/uPlot.js", "text/javascript"),
        ("/uPlot.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
        ("/data.json", "application/json"),
        ("/metrics", "text/plain"),
        ("/metrics.json", "application/json"),
        ("/health", "application/json"),
    ):
        answer = ask(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith(kind)
        assert int(answer.headers["content-length"]) == len(answer.content) > 0
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        head = ask(path, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
    assert ask("/nothing").status_code == 404
    assert ask("/../page.css").status_code in (200, 404)
    assert ask("/data.json?period=century").status_code == 400
    assert ask("/", "POST").status_code == 405


def test_the_documented_shape(cache: Cache) -> None:
    """`/metrics.json` has the two shapes that Python has, as `metrics_json()` does."""
    data = Ask(asgi_app())("/metrics.json").json()
    assert set(data) == {"performance", "cache"} == set(metrics_json())
    assert data["performance"]["stage"]["count"] == 1
    counted = data["performance"]["cache"]["shouting"]
    assert (counted["hits"], counted["misses"], counted["errors"]) == (2, 4, 1)
    assert data["cache"]["total_entries"] == 3
    assert data["cache"]["by_type"] == {"shouting": 3}
    assert data["cache"]["enabled"] is True


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_prometheus_understands_it(cache: Cache, accept: str) -> None:
    """Prometheus' own parsers read what it asks for, and find the right numbers."""
    answer = Ask(asgi_app())("/metrics", accept=accept)
    is_open = "openmetrics" in answer.headers["content-type"]
    assert is_open == ("openmetrics" in accept)
    families = list((parse_open_metrics if is_open else parse_text)(answer.text))
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["memoleo_cache_lookups_total", "hits", "shouting"] == 2
    assert samples["memoleo_cache_lookups_total", "misses", "shouting"] == 4
    assert samples["memoleo_cache_errors_total", "shouting"] == 1
    assert samples["memoleo_operation_duration_seconds_count", "stage"] == 1
    assert 0 < samples["memoleo_operation_duration_seconds_sum", "stage"] < 60
    assert samples["memoleo_store_entries", "shouting"] == 3
    assert samples[("memoleo_enabled",)] == 1
    assert all(family.documentation for family in families)


def test_the_histogram_is_that_of_the_durations(cache: Cache) -> None:
    """Each bucket counts the durations up to its bound, but for those within 1 % of it."""
    durations = [0.05 * 1.07**number for number in range(200)]  # ms, up to half a minute
    for ms in [*durations, 0.0]:
        get_metrics().record_latency("spread", ms)
    registry = CollectorRegistry()
    registry.register(collector())
    name = "memoleo_operation_duration_seconds"
    buckets = {
        float(sample.labels["le"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{name}_bucket" and sample.labels["operation"] == "spread"
    }
    assert buckets[math.inf] == 201
    for bound, count in buckets.items():
        least = 1 + sum(ms <= 990 * bound for ms in durations)
        most = 1 + sum(ms <= 1010 * bound for ms in durations)
        assert least <= count <= most
    total = registry.get_sample_value(f"{name}_sum", {"operation": "spread"})
    assert total == pytest.approx(sum(durations) / 1000)


@pytest.mark.parametrize("name", ["half \ud800", 'a\nb"c\\\\d', "<script>", "\0", "ünï☃"])
def test_odd_names_are_only_names(cache: Cache, name: str) -> None:
    """Whatever an operation is called, every format has it, and the other numbers."""
    get_metrics().record_latency(name, 1)
    shown = name.replace("\ud800", "\\ud800")
    operations = {
        sample.labels["operation"]
        for family in parse_text(metrics_text(cache))
        for sample in family.samples
        if "operation" in sample.labels
    }
    assert {shown, "stage"} <= operations
    assert {shown, "stage"} <= set(json.loads(json.dumps(metrics_json(cache)))["performance"])


def test_a_registry_of_the_program_takes_the_numbers(cache: Cache) -> None:
    """Who has a registry already adds ours; registering alone reads nothing."""
    registry = CollectorRegistry()
    registry.register(collector())
    value = registry.get_sample_value(
        "memoleo_cache_lookups_total", {"type": "shouting", "outcome": "hits"}
    )
    assert value == 2


def test_two_lines_in_fastapi(cache: Cache) -> None:
    """A FastAPI program has its own /metrics, and the dashboard under a path of its choice."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        return metrics_text()

    app.mount("/memoleo", asgi_app())
    ask = Ask(app)
    assert list(parse_text(ask("/metrics").text))
    assert ask("/memoleo/health").json()["status"] == "ok"
    assert 'href="page.css"' in ask("/memoleo/").text
    assert ask("/memoleo").headers["location"].endswith("/memoleo/")


def test_two_lines_in_flask(cache: Cache) -> None:
    """The same in Flask, by WSGI."""
    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    app = Flask(__name__)

    @app.get("/metrics")
    def metrics() -> tuple[str, dict[str, str]]:
        return metrics_text(), {"Content-Type": "text/plain"}

    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/memoleo": wsgi_app()})  # type: ignore
    client = app.test_client()
    assert list(parse_text(client.get("/metrics").text))
    health = client.get("/memoleo/health").json
    assert health is not None
    assert health["status"] == "ok"
    moved = client.get("/memoleo")
    assert (moved.status_code, moved.headers["location"]) == (308, "/memoleo/")


class _Silent(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_wsgi_server(cache: Cache) -> None:
    """A real WSGI server serves the page."""
    with make_server("127.0.0.1", 0, wsgi_app(), handler_class=_Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert "<title>memoleo</title>" in httpx.get(f"{base}/", trust_env=False).text
        assert httpx.get(f"{base}/data.json", trust_env=False).json()["store"]["entries"] == 3
        server.shutdown()


@pytest.mark.parametrize("root", ["", "/under/memoleo"])
def test_a_token_keeps_others_out(cache: Cache, root: str) -> None:
    """Without the token nothing is told; it is taken as a header, or traded for a cookie."""
    ask = Ask(asgi_app(token=TOKEN), root=root)
    for path in ("/", "/data.json", "/metrics", "/metrics.json", "/app.js", "/health"):
        refused = ask(root + path)
        assert refused.status_code == 401
        assert "shouting" not in refused.text
    assert ask(f"{root}/metrics", authorization="Bearer wrong").status_code == 401
    assert ask(f"{root}/metrics", authorization=f"Basic {TOKEN}").status_code == 401
    assert ask(f"{root}/?token=wrong").status_code == 401
    assert ask(f"{root}/metrics", authorization=f"Bearer {TOKEN}").status_code == 200
    assert ask(f"{root}/metrics?token={TOKEN}").status_code == 200
    traded = ask(f"{root}/?token={TOKEN}")
    assert traded.status_code == 303
    assert traded.headers["location"] == f"{root}/"
    cookie, *attributes = traded.headers["set-cookie"].split("; ")
    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=Lax", f"Path={root or '/'}"} <= set(attributes)
    assert ask(f"{root}/data.json", cookie=cookie).status_code == 200
    assert ask(f"{root}/data.json", cookie=f"{cookie}x").status_code == 401
    assert ask(f"{root}/data.json", cookie='"; =;;memoleo_token').status_code == 401


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:8765", True),
        ("127.0.0.1:8765", True),
        ("[::1]:8765", True),
        ("[::1]", True),
        ("localhost.", True),
        ("evil.example", False),
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:8765:evil", False),
        ("", False),
        ("[::1", True),
    ],
)
def test_only_known_names_are_answered(cache: Cache, name: str, known: bool) -> None:
    """A web site that points its own name at this machine learns nothing."""
    answer = Ask(asgi_app(hosts={"localhost", "127.0.0.1", "::1"}))("/data.json", host=name)
    assert answer.status_code == (200 if known else 421)
    assert known or "shouting" not in answer.text


def test_no_contents_unless_allowed(cache: Cache) -> None:
    """What is in entries, and their tags, is shown only where that was switched on."""
    for app, shown in ((asgi_app(), False), (asgi_app(show_values=True), True)):
        ask = Ask(app)
        data = ask("/data.json")
        assert (SECRET in data.text) is shown
        for path in ("/metrics", "/metrics.json", "/health"):
            assert SECRET not in ask(path).text
        largest = data.json()["largest"]
        assert largest[0]["size"] > 5000
        assert [entry["size"] for entry in largest] == sorted(
            (entry["size"] for entry in largest), reverse=True
        )
        assert len(data.json()["hottest"]) == 3


def test_a_broken_store_never_breaks_the_program(tmp_path: Path) -> None:
    """A store that can't be read is an answer that says so, never an exception in the host."""
    (tmp_path / "folder.db").mkdir()
    broken = Cache(f"sqlite:///{(tmp_path / 'folder.db').as_posix()}")
    ask = Ask(asgi_app(broken))
    assert ask("/health").status_code == 503
    assert ask("/health").json()["status"] == "problem"
    assert "\nmemoleo_store_up 0.0\n" in ask("/metrics").text
    answer = ask("/data.json")
    assert answer.status_code == 500
    assert "not a regular file" in answer.json()["error"]
    assert ask("/").status_code == 200


def test_numbers_that_json_lacks(cache: Cache) -> None:
    """An entry that never expires doesn't make the data unreadable to a browser."""
    cache.set("k", 1, ttl=math.inf)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(Ask(asgi_app())("/data.json").text, parse_constant=refuse)


def test_what_takes_long_is_asked_rarely() -> None:
    """However often somebody looks, finding an answer takes a twentieth of the time."""
    clock = FakeClock(0.0)
    asked = []

    def ask() -> int:
        asked.append(clock())
        clock.advance(3.0)
        return len(asked)

    kept = Kept(ask, clock)
    assert [kept() for _ in range(5)] == [1] * 5
    clock.advance(59.9)
    assert kept() == 1
    clock.advance(0.2)
    assert kept() == 2


def test_a_failure_is_not_kept() -> None:
    """What failed once is asked anew the next time."""
    answers = iter([0, 5])
    kept = Kept(lambda: 10 // next(answers))
    with pytest.raises(ZeroDivisionError):
        kept()
    assert kept() == 2


def test_values_of_any_kind_are_previewed(cache: Cache) -> None:
    """Streams, large values and values of another program are shown, or said not to be."""
    cache.set("large", os.urandom(2_000_000))
    cache.set("list", [1, {"a": None}])

    @content_cached(type="words")
    def words() -> Iterator[str]:
        yield from ("one", "two")

    list(words())
    data = Ask(asgi_app(show_values=True))("/data.json").json()
    values = {entry["value"] for entry in data["largest"]}
    assert "too large to be shown" in values
    assert "[1, {'a': None}]" in values
    assert any("one" in value for value in values)


# -- the command --------------------------------------------------------------------------------


def test_serve(cache: Cache, tmp_path: Path) -> None:
    """The command serves a cache that another process fills, to this machine only."""
    url = f"sqlite:///{(tmp_path / 'cache.db').as_posix()}"
    with serving("--cache", url) as address, httpx.Client(trust_env=False) as client:
        assert address.startswith("http://127.0.0.1:")
        assert client.get(f"{address}data.json").json()["store"]["entries"] == 3
        port = address.rpartition(":")[2].strip("/")
        rebound = client.get(f"{address}data.json", headers={"Host": f"evil.example:{port}"})
        assert rebound.status_code == 421


def test_serve_elsewhere_needs_a_token(cache: Cache, tmp_path: Path) -> None:
    """Bound to more than this machine, a token is made, and nothing is told without it."""
    url = f"sqlite:///{(tmp_path / 'cache.db').as_posix()}"
    with (
        serving("--cache", url, "--host", "0.0.0.0") as address,
        httpx.Client(trust_env=False) as client,
    ):
        page, token = address.split("?token=")
        assert len(token) >= 24
        assert client.get(f"{page}data.json").status_code == 401
        assert client.get(address, follow_redirects=True).status_code == 200
        assert client.get(f"{page}data.json").status_code == 200
    environ = {"MEMOLEO_SERVE_TOKEN": TOKEN}
    with serving("--cache", url, "--host", "0.0.0.0", **environ) as address:
        assert address.endswith(f"?token={TOKEN}")


def test_serve_before_the_first_result(tmp_path: Path) -> None:
    """The default cache may come later: the dashboard is empty, and then shows it."""
    url = f"sqlite:///{(tmp_path / 'later.db').as_posix()}"
    with (
        serving(MEMOLEO_CACHE=url) as address,
        httpx.Client(trust_env=False) as client,
    ):
        assert client.get(f"{address}data.json").json()["store"]["entries"] == 0
        assert not (tmp_path / "later.db").exists()
        with Cache(url) as cache:
            cache.set("a", 1)
        entries = 0
        while not entries:  # what was read is kept for half a second
            entries = client.get(f"{address}data.json").json()["store"]["entries"]


def test_serve_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, a short token, a missing cache: one line each, no traceback."""
    monkeypatch.setenv("MEMOLEO_CACHE", f"sqlite:///{(tmp_path / 'default.db').as_posix()}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, status, says in (
            (["--port", port], 1, "can't be bound"),
            (["--token", "short"], 2, "at least 16"),
            (["--cache", f"sqlite:///{(tmp_path / 'no.db').as_posix()}"], 1, "There is no cache"),
            (["--host", "192.0.2.1"], 1, "can't be bound"),
        ):
            ran = subprocess.run(
                [sys.executable, "-m", "memoleo", "serve", *options],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ran.returncode == status
            assert says in ran.stderr
            assert "Traceback" not in ran.stderr


# -- without the extra ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "says"), [("uvicorn", "needs uvicorn"), ("prometheus_client", "prometheus-client")]
)
def test_what_is_not_installed_is_named(cache: Cache, missing: str, says: str) -> None:
    """Without the extra the page still works when mounted, and the rest says what to install."""
    program = f"""
import sys
sys.modules[{missing!r}] = None
import asyncio, httpx
from memoleo.serve import asgi_app

async def ask():
    transport = httpx.ASGITransport(asgi_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/", "/data.json", "/metrics"):
            answer = await client.get(path)
            print(answer.status_code, answer.text if answer.status_code == 501 else "")

asyncio.run(ask())
from memoleo.cli import main
if {missing!r} == "uvicorn":
    main(["serve"])
"""
    url = f"sqlite:///{cache.get_stats()['path']}"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MEMOLEO_CACHE": url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line.strip() for line in ran.stdout.splitlines()]
    assert lines[:2] == ["200", "200"]
    assert "Traceback" not in ran.stderr
    said = ran.stderr if missing == "uvicorn" else lines[2]
    assert says in said
    assert "pip install 'memoleo[serve]'" in said
