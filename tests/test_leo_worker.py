"""A worker that nobody edits, in three ways: the same results, and no call that was made before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from leo_worker import CONFIG, LEO, arguments, environment, stand_ins, work

from memoleo import Cache
from memoleo.codecs._compress import decompress

WAYS = ["run", "enable", "classes"]
TEXTS = [
    "I slept badly and missed the deadline.",
    "We laughed all evening, Zoë and I.",
    "I slept badly and missed the deadline.",
    "ok.",
]
CALLS = 12
UNIQUE = 3

SECRETS = [b"hf_secret_of_the_worker", b"redis_secret_of_the_worker", b"cookie_secret", b"Bearer"]


@pytest.fixture
def services() -> Iterator[Any]:
    """Everything that the worker asks for answers."""
    with stand_ins().StandIns() as running:
        yield running


@pytest.fixture
def redis() -> Iterator[Any]:
    """The queue, which stays up when the other services go down."""
    with stand_ins().StandIns() as running:
        yield running


@pytest.fixture
def environ(services: Any, redis: Any, tmp_path: Path) -> dict[str, str]:
    queue = {"REDIS_REST_URL": redis.environment["REDIS_REST_URL"]}
    return environment(tmp_path, services.environment, queue)


@pytest.fixture
def expected(services: Any, redis: Any, tmp_path: Path, environ: dict[str, str]) -> list[Any]:
    """The results of the worker as it is, without memoleo."""
    redis.queue(TEXTS, start=1000)
    work("plain", environ, tmp_path)
    assert services.upstream == CALLS * len(TEXTS)
    found = redis.results()
    assert [each["complete"] for each in found] == [True] * len(TEXTS)
    services.asked.clear()
    return untimed(found, 1000)


def untimed(results: list[Any], start: int) -> list[Any]:
    """Return the results without their timestamps, which are those that were given."""
    assert [each.pop("timestamp") - start for each in results] == list(range(len(results)))
    return results


@pytest.mark.parametrize("way", WAYS)
def test_results_are_the_same_and_warm_asks_nobody(
    way: str,
    services: Any,
    redis: Any,
    environ: dict[str, str],
    expected: list[Any],
    tmp_path: Path,
) -> None:
    """Cold and warm, after a restart, with other timestamps: what plain Python gives."""
    redis.queue(TEXTS, start=2000)
    work(way, environ, tmp_path)
    assert untimed(redis.results(), 2000) == expected
    assert services.upstream == CALLS * UNIQUE
    services.asked.clear()
    redis.queue(TEXTS, start=3000)
    work(way, environ, tmp_path)
    assert untimed(redis.results(), 3000) == expected
    assert services.upstream == 0


def test_the_three_ways_share_what_they_know(
    services: Any, redis: Any, environ: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    """What one way has learned, the others answer."""
    redis.queue(TEXTS)
    work("classes", environ, tmp_path)
    redis.results()
    services.asked.clear()
    for way in ("run", "enable"):
        redis.queue(TEXTS, start=5)
        work(way, environ, tmp_path)
        assert untimed(redis.results(), 5) == expected
    assert services.upstream == 0


@pytest.mark.parametrize("way", WAYS)
def test_warm_entries_complete_while_upstream_is_down(
    way: str,
    services: Any,
    redis: Any,
    environ: dict[str, str],
    expected: list[Any],
    tmp_path: Path,
) -> None:
    """With nobody there to ask, in a new process, entries that were seen come out the same."""
    redis.queue(TEXTS)
    work(way, environ, tmp_path)
    redis.results()
    services.__exit__()
    redis.queue(TEXTS, start=7)
    work(way, environ, tmp_path)
    assert untimed(redis.results(), 7) == expected
    services.__enter__()


@pytest.mark.parametrize("name", ["router", "ollama"])
@pytest.mark.parametrize("status", [503, 500, 429, 401])
def test_nothing_of_a_failure_remains(
    name: str,
    status: int,
    services: Any,
    redis: Any,
    environ: dict[str, str],
    expected: list[Any],
    tmp_path: Path,
) -> None:
    """A service fails once: its fallback is in that result, and in none after it."""
    services.failing[name] = [status]
    redis.queue(TEXTS[:1], start=0)
    work("run", environ, tmp_path)
    assert untimed(redis.results(), 0) != expected[:1]
    redis.queue(TEXTS, start=1)
    work("run", environ, tmp_path)
    assert untimed(redis.results(), 1) == expected


def test_upstream_that_is_down_is_not_remembered_either(
    services: Any, redis: Any, environ: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    """Every call is refused, the worker falls back; once they are up, nothing is left of it."""
    services.__exit__()
    redis.queue(TEXTS[:1])
    work("run", environ, tmp_path)
    assert redis.results()[0]["status"] == "partial"
    services.__enter__()
    redis.queue(TEXTS, start=3)
    work("run", environ, tmp_path)
    assert untimed(redis.results(), 3) == expected


def test_eight_threads_share_one_scorer(
    services: Any, redis: Any, environ: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    """Eight threads on one instance, each question asked once."""
    redis.queue([text for text in TEXTS for _ in range(4)])
    work("run", environ, tmp_path, "--threads", "8")
    found = redis.results()
    for each in found:
        each["id"] //= 4
        del each["timestamp"]
    assert found == [each for each in expected for _ in range(4)]
    assert services.upstream == CALLS * UNIQUE


def test_two_workers_at_once(
    services: Any, redis: Any, environ: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    """Two processes on one queue and one cache: each question asked once between them."""
    redis.queue(TEXTS * 4)
    workers = [
        subprocess.Popen(
            arguments("run", "--drain"),
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(2)
    ]
    for each in workers:
        printed, _ = each.communicate(timeout=100)
        assert each.returncode == 0, printed
    found = untimed(redis.results(), 0)
    for each in found:
        each["id"] %= len(TEXTS)
    assert found == expected * 4
    assert services.upstream == CALLS * UNIQUE


def test_commands_and_counters_are_never_cached(
    services: Any, redis: Any, environ: dict[str, str], tmp_path: Path
) -> None:
    """Every command reaches the Redis, every play is told; songs are asked for once a mood."""
    redis.queue(TEXTS)
    work("run", environ, tmp_path)
    assert redis.numbers["done"] == len(TEXTS)
    taken = redis.asked["redis"]
    assert taken == len(TEXTS) * 3 + 1
    command = [*arguments("run")[:-1], str(LEO / "song_worker.py")]
    for round in (1, 2):
        redis.lists["results"].extend(
            json.dumps({"id": n, "wheel": ["Sad"]}) for n in range(3)
        ) if round == 2 else None
        before = services.asked["played"]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, encoding="utf-8"
        )
        assert ran.returncode == 0, ran.stderr
        assert services.asked["played"] - before == (len(TEXTS) if round == 1 else 3)
    songs = [json.loads(each) for each in redis.lists["songs"]]
    assert all(len(each["songs"]) == 3 for each in songs)
    assert services.asked["songs"] <= len({json.dumps(each["songs"]) for each in songs}) + 1


def test_nothing_secret_is_in_any_file(
    services: Any, redis: Any, environ: dict[str, str], tmp_path: Path
) -> None:
    """Tokens and cookies are in no file of the cache, nor in any entry."""
    redis.queue(TEXTS)
    work("run", environ, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        found = [secret for secret in SECRETS if secret in path.read_bytes()]
        assert found == [], path
    with Cache(environ["MEMOLEO_CACHE"]) as cache:
        entries = list(cache.backend.entries())
    assert len(entries) >= CALLS * UNIQUE
    for _, entry in entries:
        packed = bytes(entry.payload)
        for payload in (packed, decompress(packed[1:]) if packed[:1] == b"\1" else b""):
            assert [secret for secret in SECRETS if secret in payload] == []
        assert not any(secret.decode() in repr(entry) for secret in SECRETS)


def test_other_token_keeps_the_hits(
    services: Any, redis: Any, environ: dict[str, str], tmp_path: Path
) -> None:
    """The router's answers don't depend on who asks, and the rule says so: rotate at will."""
    redis.queue(TEXTS)
    work("run", environ, tmp_path)
    services.asked.clear()
    redis.queue(TEXTS)
    work("run", {**environ, "HF_TOKEN": "another_one"}, tmp_path)
    assert services.upstream == 0


def test_types_of_the_entries(
    services: Any, redis: Any, environ: dict[str, str], tmp_path: Path
) -> None:
    """What is stored stands under the worker's categories, with their TTLs."""
    redis.queue(TEXTS)
    work("run", environ, tmp_path)
    command = [*arguments("run")[:-1], str(LEO / "song_worker.py")]
    subprocess.run(command, cwd=tmp_path, env=environ, check=True, capture_output=True)
    day = 86400.0
    with Cache(environ["MEMOLEO_CACHE"]) as cache:
        ttls = {entry.type: entry.ttl for _, entry in cache.backend.entries()}
    assert ttls["emotion_scoring"] == 30 * day
    assert ttls["post_enrichment"] == 30 * day
    assert ttls["song_recommendations"] == day


def test_questions_about_images_have_a_category_of_their_own(
    services: Any, environ: dict[str, str], tmp_path: Path
) -> None:
    """What Ollama is asked about an image is vision_inference, all else isn't, whoever asks."""
    program = (
        "import os, requests\n"
        "url = os.environ['OLLAMA_BASE_URL'] + '/api/'\n"
        "model = {'model': os.environ.get('OLLAMA_MODEL', 'phi3:latest'), 'stream': False}\n"
        "said = {'role': 'user', 'content': 'What is it?'}\n"
        "session = requests.Session()\n"
        "for number in range(2):\n"
        "    session.cookies.set('sid', f'cookie_secret_{number}')\n"
        "    about = {**model, 'prompt': 'What is it?'}\n"
        "    print(session.post(url + 'generate', json={**about, 'images': ['aGk=']}).text)\n"
        "    print(session.post(url + 'generate', json={**about, 'images': []}).text)\n"
    )
    (tmp_path / "asks.py").write_text(program)
    ran = subprocess.run(
        [*arguments("run")[:-1], "asks.py"], cwd=tmp_path, env=environ, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert lines[:2] == lines[2:]
    with Cache(environ["MEMOLEO_CACHE"]) as cache:
        assert cache.get_stats()["by_type"] == {"post_enrichment": 1, "vision_inference": 1}


BEFORE_AND_AFTER = """
import sys
sys.path.insert(0, {leo!r})
import httpx, ollama, requests, memoleo
from memoleo.leo import enable_caching_for_worker
import src.modules.hybrid_scorer as scorer, src.modules.post_enricher as enricher
places = [requests, requests.api, requests.Session, requests.sessions, requests.adapters,
          requests.adapters.HTTPAdapter, requests.models.Response, httpx, httpx.Client,
          httpx.AsyncClient, httpx.HTTPTransport, httpx.AsyncHTTPTransport, ollama, ollama.Client,
          ollama.AsyncClient, scorer, scorer.HybridScorer, enricher, enricher.PostEnricher]
finders = list(sys.meta_path)
before = [dict(vars(place)) for place in places]
enable_caching_for_worker(config={config!r})
memoleo.enable(config={config!r})
changed = [place for place, old in zip(places, before)
           if any(vars(place).get(name) is not value for name, value in old.items())]
assert changed
memoleo.disable()
for place, old in zip(places, before):
    new = dict(vars(place))
    assert list(new) == list(old), (place, set(new) ^ set(old))
    assert all(new[name] is old[name] for name in old), place
assert sys.meta_path == finders
print("identical")
"""


def test_disable_leaves_every_attribute_identical(environ: dict[str, str], tmp_path: Path) -> None:
    """Everything that was patched is the very object that it was."""
    script = BEFORE_AND_AFTER.format(leo=str(LEO), config=str(CONFIG))
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        encoding="utf-8",
    )
    assert ran.stdout == "identical\n", ran.stderr


def test_observing_the_worker(
    services: Any, redis: Any, environ: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    """`--observe` changes nothing, and finds the entry that comes twice."""
    redis.queue(TEXTS, start=9)
    command = arguments("run", "--drain")
    at = command.index("run") + 1
    ran = subprocess.run(
        [*command[:at], "--observe", "--json", *command[at:]],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        encoding="utf-8",
    )
    assert untimed(redis.results(), 9) == expected
    assert services.upstream == CALLS * len(TEXTS)
    told = json.loads(ran.stderr)
    assert (told["calls"], told["would_hit"]) == (CALLS * len(TEXTS), CALLS)


@pytest.mark.model
def test_worker_on_a_real_model(
    request: pytest.FixtureRequest, services: Any, redis: Any, tmp_path: Path
) -> None:
    """With a real model behind Ollama's API: warm, not one call of it, and the same results."""
    pytest.importorskip("xllamacpp", reason="needs memoleo[local]")
    model = request.getfixturevalue("local_ollama")
    model.reset_counts()
    environ = environment(
        tmp_path,
        services.environment,
        {"REDIS_REST_URL": redis.environment["REDIS_REST_URL"]},
        {"OLLAMA_BASE_URL": model.url, "OLLAMA_MODEL": model.model},
    )
    found = []
    for way in ("run", "classes"):
        redis.queue(TEXTS[:2], start=1)
        work(way, environ, tmp_path)
        found.append(untimed(redis.results(), 1))
        if way == "run":
            assert model.model_calls == 2 * 5
    assert found[0] == found[1]
    assert found[0][0]["complete"]
    assert model.model_calls == 2 * 5
    assert os.path.exists(tmp_path / "cache.db")
