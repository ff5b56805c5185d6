"""The command line and the dashboard on a cache in Redis, which may be down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from chromium import serving
from redis_servers import RedisServer

from memoleo import Cache

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"),
    reason="there is no redis-server here (Debian: apt-get install redis-server)",
)

PASSWORD = "open-sesame"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of its own, with a password."""
    made = RedisServer("--requirepass", PASSWORD)
    yield made
    made.stop()
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def url(server: RedisServer) -> str:
    """A cache there, with three entries."""
    made = server.url.replace("://", f"://:{PASSWORD}@")
    with Cache(f"{made}?timeout=5s") as cache:
        for number in range(3):
            cache.set(f"key {number}", number, type="remote")
    return made


def memoleo(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in os.environ if not name.startswith("MEMOLEO_")}
    done = subprocess.run(
        [sys.executable, "-m", "memoleo", *args],
        cwd=folder,
        env={**kept, "OLLAMA_HOST": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert PASSWORD not in done.stdout + done.stderr, "a password on the screen"
    return done


def test_commands_and_dashboard_on_a_server(tmp_path: Path, server: RedisServer, url: str) -> None:
    """It is looked at as a file is; a server that is down is said, and no password is shown."""
    patient = f"{url}?timeout=5s"
    assert json.loads(memoleo(tmp_path, "stats", "--cache", patient, "--json").stdout)[
        "by_type"
    ] == {"remote": 3}
    ran = memoleo(tmp_path, "metrics", "--cache", patient, "--json")
    assert json.loads(ran.stdout) == {"cache": {}}
    assert "kept beside caches in files only" in ran.stderr
    refused = memoleo(tmp_path, "metrics", "--cache", patient, "--forget", "--yes")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "kept beside caches in files only" in refused.stderr
    findings = json.loads(memoleo(tmp_path, "doctor", "--cache", patient, "--json").stdout)
    assert findings["problems"] == 0
    assert {"metrics", "store"} <= {each["check"] for each in findings["findings"]}
    with (
        serving("--cache", patient, complains=True) as address,
        httpx.Client(trust_env=False) as client,
    ):
        data = client.get(f"{address}data.json")
        assert data.json()["store"]["entries"] == 3
        assert len(data.json()["largest"]) == 3
        assert any("files only" in each["message"] for each in data.json()["store"]["findings"])
        assert client.get(f"{address}health").json()["status"] == "ok"
        server.stop()
        down = client.get(f"{address}health")
        assert down.status_code == 503
        assert "\nmemoleo_store_up 0.0\n" in client.get(f"{address}metrics").text
        assert PASSWORD not in data.text + down.text + client.get(f"{address}data.json").text
    assert memoleo(tmp_path, "stats", "--cache", url).returncode == 1
    assert memoleo(tmp_path, "clear", "--yes", "--cache", url).returncode == 1
    ran = memoleo(tmp_path, "doctor", "--cache", url)
    assert ran.returncode == 1
    assert "no answer" in ran.stdout
