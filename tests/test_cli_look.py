"""The commands that look into a store and carry it: entries, explain, verify, export, load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import memoleo
from memoleo import Cache, Metrics, content_cached

Run = Callable[..., "subprocess.CompletedProcess[str]"]

APP = """
from memoleo import content_cached

@content_cached("emo", ttl="1h")
def score(text, options=None):
    return {"text": text}

def plain(x):
    return x

@content_cached
def odd(x):
    return (1, 2)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    return folder


@pytest.fixture
def run(home: Path) -> Run:
    """Run ``memoleo …`` in a process of its own."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in os.environ if not name.startswith("MEMOLEO_")}
        kept |= {
            "MEMOLEO_CACHE": f"sqlite:///{home.as_posix()}/c.db",
            "PYTHONIOENCODING": "utf-8",
            "XDG_DATA_HOME": str(home / "data"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "memoleo", *args],
            cwd=home,
            env=kept,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    return run


@pytest.fixture
def cache(home: Path) -> Cache:
    return Cache(f"sqlite:///{home.as_posix()}/c.db", metrics=Metrics())


def fill(cache: Cache) -> None:
    cache.set("a", {"private": "Rumpelstilzchen"}, type="song", tags=["t1"])
    cache.set("b", (1, b"x"), type="mood", ttl="1h")
    cache.set("c", "y" * 3000, type="mood", tags=["t1", "t2"])


class TestEntries:
    def test_the_table_and_its_conditions(self, run: Run, cache: Cache) -> None:
        """What is stored is shown, filtered, and without what is in it."""
        fill(cache)
        ran = run("entries")
        assert ran.returncode == 0
        assert "song" in ran.stdout
        assert "Rumpel" not in ran.stdout
        assert "private" not in ran.stdout
        for options, types in (
            (("--type", "mood"), ["mood", "mood"]),
            (("--tag", "t1", "--larger-than", "2KiB"), ["mood"]),
            (("--older-than", "1h"), []),
            (("--newer-than", "1h", "--fresh", "--limit", "2"), ["mood", "mood"]),
            (("--expired",), []),
            (("--label", "nobody"), []),
        ):
            found = json.loads(run("entries", "--json", *options).stdout)
            assert [entry["type"] for entry in found["entries"]] == types, options
        assert found["shown"] == 0

    def test_values_on_request(self, run: Run, cache: Cache) -> None:
        """--values shows them: as JSON, or the way that Python writes what JSON can't."""
        fill(cache)
        found = json.loads(run("entries", "--json", "--values").stdout)["entries"]
        assert [entry["value"] for entry in found] == [
            "y" * 3000, "(1, b'x')", {"private": "Rumpelstilzchen"}
        ]  # fmt: skip
        text = run("entries", "--values").stdout
        assert "Rumpelstilzchen" in text
        assert "3,002 letters" in text

    def test_answers_of_libraries(self, run: Run, cache: Cache) -> None:
        """Answers of a model and of an HTTP service are shown as plain data."""
        import httpx
        import ollama
        from scripted_http import ScriptedHttp
        from scripted_ollama import ScriptedOllama

        ask = [{"role": "user", "content": "why?"}]
        with (
            ScriptedOllama() as model,
            ollama.Client(model.url, verify=False) as client,
            memoleo.enable("ollama", cache=cache),
        ):
            said = client.chat("m", ask).message.content
        with ScriptedHttp() as server, httpx.Client(verify=False) as web:
            rules = [{"method": "POST", "url": f"{server.url}/*", "type": "web"}]
            with memoleo.enable("httpx", rules=rules, cache=cache):
                web.post(f"{server.url}/score", json={"text": "x"})
        found = json.loads(run("entries", "--json", "--values").stdout)["entries"]
        values = {entry["type"]: entry["value"] for entry in found}
        assert values["ollama.chat"]["message"]["content"] == said
        assert values["web"]["status"] == 200
        with_them = {entry.type: entry.value for entry in cache.entries()}
        assert with_them["ollama.chat"]["message"]["content"] == said

    def test_more_than_are_shown(self, run: Run, cache: Cache) -> None:
        """A limit says that there is more."""
        fill(cache)
        assert "more than these 2" in run("entries", "--limit", "2").stdout
        assert json.loads(run("entries", "--limit", "2", "--json").stdout)["more"] is True

    def test_wrong_conditions(self, run: Run, cache: Cache) -> None:
        """What can't be meant is wrong use."""
        fill(cache)
        for options in (("--older-than", "soon"), ("--larger-than", "big"), ("--limit", "0")):
            assert run("entries", *options).returncode == 2


class TestExplain:
    def test_a_call(self, run: Run, home: Path) -> None:
        """A function and its arguments are explained, from another process than its own."""
        script = home / "fill.py"
        script.write_text("import app; app.score('a', {'seed': 1})")
        subprocess.run(
            [sys.executable, str(script)],
            cwd=home,
            check=True,
            env={
                **os.environ,
                "MEMOLEO_CACHE": f"sqlite:///{home.as_posix()}/c.db",
                "XDG_DATA_HOME": str(home / "data"),
            },
            timeout=60,
        )
        ran = run("explain", "app:score", "--args", '["a", {"seed": 2}]')
        assert ran.returncode == 0
        assert "options['seed']" in ran.stdout
        found = json.loads(
            run("explain", "app:score", "--args", '{"text": "a", "options": {"seed": 1}}',
                "--json").stdout
        )  # fmt: skip
        assert (found["outcome"], found["entry"]["type"]) == ("hit", "emo")
        start = found["key"][:15]
        assert json.loads(run("explain", start, "--json").stdout)["reason"] == "fresh"

    def test_a_program_that_was_run_by_its_file(self, run: Run, home: Path) -> None:
        """What it stored belongs to `__main__`, which a look for its module's name is told."""
        (home / "app.py").write_text(f"{APP}\nif __name__ == '__main__':\n    score('a')\n")
        assert run("run", "app.py").returncode == 0
        ran = run("explain", "app:score", "--args", '["a"]')
        assert "no entry of app.score" in ran.stdout
        assert "there are some of __main__.score" in ran.stdout
        assert "there are some" not in run("explain", "app:odd", "--args", "[1]").stdout

    def test_a_key(self, run: Run, cache: Cache) -> None:
        """A key of one's own is explained as well; what isn't there is said to be unknown."""
        fill(cache)
        assert run("explain", "a").stdout.startswith("hit: stored")
        assert "never stored" in run("explain", "zzz").stdout

    @pytest.mark.parametrize(
        ("args", "status", "words"),
        [
            (("app:plain",), 1, "not cached"),
            (("app:nothing",), 1, "has no nothing"),
            (("nothing:f",), 1, "can't be imported"),
            (("app:score", "--args", "[1"), 2, "not JSON"),
            (("app:score", "--args", "3"), 2, "a list"),
            (("app:score", "--args", "[1, 2, 3, 4]"), 2, "don't fit"),
            (("m1-00000000",), 1, "no entry whose key"),
            (("a", "--args", "[1]"), 2, "goes with a function"),
        ],
    )
    def test_wrong_use(
        self, run: Run, cache: Cache, args: tuple[str, ...], status: int, words: str
    ) -> None:
        """Whatever is wrong is said in a sentence."""
        fill(cache)
        ran = run("explain", *args)
        assert (ran.returncode, words in ran.stderr) == (status, True), ran.stderr


class TestVerify:
    def test_what_differed(self, run: Run, cache: Cache) -> None:
        """The report of another process, and a status for scripts."""
        assert "No hit was computed again yet" in run("verify").stdout
        numbers = iter(range(5))
        f = content_cached("clock", cache=cache)(lambda: {"now": next(numbers)})
        f()
        with memoleo.verify(1.0, per_minute=100):
            f()
        cache.verified(wait=30)
        ran = run("verify")
        assert ran.returncode == 1
        assert "another value at ['now']" in ran.stdout
        found = json.loads(run("verify", "--json").stdout)
        assert (found["clock"]["checked"], found["clock"]["rate"]) == (1, 100.0)
        assert run("verify", "--type", "other").returncode == 0


class TestCarrying:
    def test_there_and_back(self, run: Run, cache: Cache, home: Path) -> None:
        """What one cache exports another one loads, which is created by it."""
        fill(cache)
        ran = run("export", "out.memoleo", "--type", "mood", "--json")
        assert json.loads(ran.stdout)["exported"] == 2
        assert "already" in run("export", "out.memoleo").stderr
        assert run("export", "out.memoleo", "--force").stdout == "Wrote 3 entries to out.memoleo.\n"
        there = ("--cache", f"sqlite:///{home.as_posix()}/other.db")
        assert run("load", "out.memoleo", *there).stdout == "Loaded 3 entries.\n"
        found = json.loads(run("load", "out.memoleo", "--merge", "keep", "--json", *there).stdout)
        assert found == {"loaded": 0, "kept": 3, "expired": 0, "damaged": 0}
        with Cache(there[1]) as other:
            assert other.get("a") == {"private": "Rumpelstilzchen"}

    def test_damage(self, run: Run, cache: Cache, home: Path) -> None:
        """A damaged file is refused, or loaded as far as it is intact, with a status of 1."""
        fill(cache)
        run("export", "out")
        data = bytearray((home / "out").read_bytes())
        data[len(data) // 2] ^= 1
        (home / "out").write_bytes(data)
        there = ("--cache", f"sqlite:///{home.as_posix()}/other.db")
        ran = run("load", "out", *there)
        assert (ran.returncode, "checksum" in ran.stderr) == (1, True)
        assert ran.stderr.startswith("Error: out was changed")
        ran = run("load", "out", "--skip-damaged", *there)
        assert ran.returncode == 1
        assert "Loaded 2 entries" in ran.stdout
        assert "1 damaged part was skipped." in ran.stdout

    def test_wrong_use(self, run: Run, home: Path) -> None:
        """Missing files and caches that end with the process are wrong use."""
        assert run("load", "nothing").returncode == 2
        (home / "other").write_text("no export")
        assert run("load", "other").returncode == 1
        assert run("load", "other", "--cache", "memory://").returncode == 2
        ran = run("export", "no/such/folder/out")
        assert ran.returncode == 1
        assert "There is no folder" in ran.stderr
        assert ".part" not in ran.stderr
