"""`explain`: why a call is answered from the cache, or isn't."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pydantic
import pytest

import memoleo
from memoleo import Cache, Explanation, Metrics, content_cached
from memoleo._flow.parts import PartsMaker
from memoleo.backends import MemoryBackend, TieredBackend
from memoleo.config import _settings
from memoleo.keys._keyer import Keyer
from memoleo.testing import FakeClock


@pytest.fixture(autouse=True)
def _own_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the secret of whoever runs the tests out of this."""
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "tiered"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Cache]:
    """A cache on each backend, with a clock that stands still."""
    urls = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/cache.db?memory=0",
        "tiered": f"sqlite:///{tmp_path}/cache.db",
    }
    with Cache(urls[request.param], clock=clock, metrics=Metrics()) as opened:
        yield opened


def parts(why: Explanation) -> list[str]:
    """Return the parts in which the nearest entry differs."""
    return [each.part for each in why.nearest[0].differences]


class TestArguments:
    def test_the_argument_that_differs_is_named(self, cache: Cache) -> None:
        """Of the entries of a function the nearest is told, and which argument differs."""

        @content_cached("t", cache=cache)
        def score(text: str, model: str = "small", *, limit: int = 3) -> str:
            return text

        score("a", "large", limit=9)
        score("a", limit=4)
        why = score.explain("a")
        assert (why.outcome, why.reason) == ("miss", "differs")
        assert parts(why) == ["limit"]
        assert [each.part for each in why.nearest[1].differences] == ["model", "limit"]
        assert why.nearest[0].entry.key == score.cache_key("a", limit=4)
        assert "limit" in str(why)

    def test_the_path_inside_an_argument_is_named(self, cache: Cache) -> None:
        """Short dictionaries and lists are compared item by item."""

        @content_cached(cache=cache)
        def ask(messages: list[str], options: dict[str, Any], **more: Any) -> int:
            return 1

        ask(["be brief", "why?"], {"seed": 1, "top_k": 5}, stop="x")
        assert parts(ask.explain(["be brief", "how?"], {"seed": 1, "top_k": 5}, stop="x")) == [
            "messages[1]"
        ]
        assert parts(ask.explain(["be brief", "why?"], {"seed": 2, "top_k": 5}, stop="x")) == [
            "options['seed']"
        ]
        assert parts(ask.explain(["be brief", "why?"], {"seed": 1}, stop="x")) == [
            "options, which had an item more"
        ]
        assert parts(ask.explain(["be brief", "why?"], {"seed": 1, "top_k": 5}, stop="y")) == [
            "more['stop']"
        ]

    def test_types_are_exact(self, cache: Cache) -> None:
        """1, 1.0 and True are different arguments, also inside and as names."""

        @content_cached(cache=cache)
        def f(x: Any) -> int:
            return 1

        f({1: "a"})
        assert parts(f.explain({True: "a"})) == [
            "x[True], which was not there",
            "x, which had an item more",
        ]
        f([1, 2])
        assert parts(f.explain([1, 2.0])) == ["x[1]"]
        assert f.explain((1, 2)).reason == "differs"

    def test_state_of_an_instance(self, cache: Cache) -> None:
        """Of a method's instance the attribute is named."""

        class Scorer:
            def __init__(self, model: str, size: int) -> None:
                self.model, self.size = model, size

            @content_cached(cache=cache)
            def score(self, text: str) -> str:
                return text

        Scorer("small", 3).score("a")
        assert parts(Scorer("large", 3).score.explain("a")) == ["self.model"]
        assert Scorer("small", 3).score.explain("a").outcome == "hit"

    def test_what_a_closure_holds(self, cache: Cache) -> None:
        """A captured value is a part of its own."""

        def make(prefix: str) -> Any:
            @content_cached(cache=cache)
            def f(x: str) -> str:
                return prefix + x

            return f

        make("a")("x")
        assert parts(make("b").explain("x")) == ["prefix (captured)"]

    def test_what_a_decorator_and_a_schema_hold(self, cache: Cache) -> None:
        """What a decorator that is a class was told is named, and what changed about a field."""

        def wrapped(count: int, limit: int) -> Any:
            schema = pydantic.create_model("Answer", text=(str, pydantic.Field(max_length=limit)))

            class Times:
                def __init__(self, func: Any) -> None:
                    functools.update_wrapper(self, func)
                    self.func, self.count = func, count

                def __call__(self, text: str) -> list[Any]:
                    return [self.func(text)] * self.count

            def ask(text: str) -> Any:
                return schema(text=text).text

            return content_cached(cache=cache)(Times(ask))

        wrapped(1, 9)("a")
        (held,) = parts(wrapped(2, 9).explain("a"))
        assert held.startswith("count, which a decorator around ")
        (field,) = parts(wrapped(1, 8).explain("a"))
        assert field.startswith("metadata of the field text in ")

    def test_a_function_that_changes_its_arguments(self, cache: Cache) -> None:
        """The parts are those of the call as it came in, as is its key."""

        @content_cached(cache=cache)
        def drain(items: list[int], n: int) -> int:
            items.clear()
            return n

        drain([1, 2], 1)
        assert parts(drain.explain([1, 2], 2)) == ["n"]

    def test_long_and_odd_values(self, cache: Cache) -> None:
        """Large texts, many items, lone surrogates and huge numbers are compared as wholes."""

        @content_cached(cache=cache)
        def f(a: Any, b: Any) -> int:
            return 1

        f("x" * 100_000, list(range(1000)))
        assert parts(f.explain("x" * 99_999 + "y", list(range(1000)))) == ["a"]
        assert parts(f.explain("x" * 100_000, list(range(1001)))) == ["b"]
        f("\ud800", 2**80)
        assert parts(f.explain("\ud800", 2**81)) == ["b"]


class TestStates:
    def test_fresh_stale_and_expired(self, cache: Cache, clock: FakeClock) -> None:
        """The age of an entry decides, by the TTL in force now."""

        @content_cached(cache=cache, ttl="1h", stale_while_revalidate="1h", stale_if_error="1d")
        def f(x: int) -> int:
            return x

        f(1)
        assert (f.explain(1).outcome, f.explain(1).reason) == ("hit", "fresh")
        clock.advance(3600 * 1.5)
        assert (f.explain(1).outcome, f.explain(1).reason) == ("stale", "stale")
        clock.advance(3600)
        why = f.explain(1)
        assert (why.outcome, why.reason) == ("miss", "expired")
        assert "1.5 h ago" in why.message
        assert "if the call fails" in why.message
        assert why.entry is not None
        assert cache.explain(f.cache_key(1)).reason == "expired"
        clock.advance(-3600 * 10)
        assert f.explain(1).reason == "future"

    def test_nothing_was_stored_yet(self, cache: Cache) -> None:
        """A function without entries has no near ones."""

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return x

        assert (f.explain(1).reason, f.explain(1).nearest) == ("first", ())
        assert cache.explain("a key of my own").reason == "unknown"

    def test_never_and_disabled(self, cache: Cache) -> None:
        """A TTL of 0, and a cache that is switched off, are told."""

        @content_cached(cache=cache, ttl=0)
        def f(x: int) -> int:
            return x

        assert f.explain(1).reason == "never"
        memoleo.configure("memory://", enabled=False)
        try:
            assert f.explain(1).reason == "disabled"
        finally:
            memoleo.configure()

    def test_results_that_were_not_stored(self, cache: Cache) -> None:
        """What cache_if refused, what can't be encoded and what failed is told apart."""

        @content_cached(cache=cache, cache_if=lambda value: value != 1)
        def f(x: int) -> Any:
            if x == 3:
                raise ValueError("three")
            return object() if x == 2 else x

        f(1), f(2)
        with pytest.raises(ValueError, match="three"):
            f(3)
        assert [f.explain(x).reason for x in (1, 2, 3)] == ["refused", "refused", "failed"]
        assert "cache_if" in f.explain(1).message
        assert "three" in f.explain(3).message

    def test_a_key_that_was_not_stored_is_stored_later(self, cache: Cache) -> None:
        """What is said of an earlier call ends when an entry is there, and removed again."""
        results = iter([None, "x"])

        @content_cached(cache=cache, cache_if=lambda value: value is not None)
        def f() -> Any:
            return next(results)

        f()
        assert f.explain().reason == "refused"
        f()
        assert f.explain().outcome == "hit"
        f.invalidate()
        assert f.explain().reason == "first"

    def test_a_damaged_entry(self, tmp_path: Path) -> None:
        """An entry that doesn't verify is told as that."""
        import sqlite3

        path = tmp_path / "a.db"
        with Cache(f"sqlite:///{path}?memory=0") as cache:

            @content_cached(cache=cache)
            def f(x: int) -> int:
                return x

            f(1)
            connection = sqlite3.connect(path)
            connection.execute("UPDATE entries SET block = substr(block, 1, 20)")
            connection.commit()
            connection.close()
            assert f.explain(1).reason == "corrupt"

    def test_a_store_that_fails(self) -> None:
        """A store that can't be read is told as that, and nothing is raised."""

        class Broken(MemoryBackend):
            def get(self, key: bytes) -> Any:
                raise OSError("gone")

            entries = notes = note = gone = set = get  # type: ignore[assignment]

        class Strange:
            remote = False

            def __getattr__(self, name: str) -> Any:
                raise OSError("gone")

        Cache(backend=Strange())  # type: ignore[arg-type]
        # A function looks straight into a `MemoryBackend`.
        cache = Cache(backend=TieredBackend(Broken(), Broken()), metrics=Metrics())

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return x

        assert f(1) == 1
        assert f.explain(1).reason == "unreadable"
        assert cache.explain("k").reason == "unreadable"

    @pytest.mark.parametrize("kind", ["memory", "sqlite"])
    def test_an_evicted_entry(self, tmp_path: Path, kind: str) -> None:
        """A store remembers what it gave up for lack of room."""
        url = {
            "memory": "memory://?max_entries=3",
            "sqlite": f"sqlite:///{tmp_path}/a.db?memory=0&max_entries=3",
        }[kind]
        with Cache(url) as cache:

            @content_cached(cache=cache)
            def f(x: int) -> int:
                return x

            for x in range(6):
                f(x)
            told = [f.explain(x) for x in range(6)]
            assert sorted(why.reason for why in told) == ["evicted"] * 3 + ["fresh"] * 3
            assert all("lack of room" in why.message for why in told if why.reason == "evicted")


class TestKinds:
    def test_block_explains_every_call(self, cache: Cache) -> None:
        """In a block each cached call is explained, and runs as usual."""

        @content_cached("t", cache=cache)
        def f(x: int) -> int:
            return x

        @content_cached("g", cache=cache)
        def g(n: int) -> Iterator[int]:
            yield from range(n)

        @content_cached("a", cache=cache)
        async def a(x: int) -> int:
            await asyncio.sleep(0)
            return x

        async def ask() -> tuple[int, int]:
            return await a(1), await a(1)

        with memoleo.explain() as why:
            assert (f(1), f(1)) == (1, 1)
            assert (list(g(2)), list(g(2))) == ([0, 1], [0, 1])
            assert asyncio.run(ask()) == (1, 1)
        f(1)
        assert [(each.type, each.outcome) for each in why] == [
            (type, outcome) for type in "tga" for outcome in ("miss", "hit")
        ]
        assert cache.metrics.get_stats()["cache"]["t"]["hits"] == 2

    def test_blocks_nest_and_can_be_entered_again(self, cache: Cache) -> None:
        """The innermost block gets the explanation, and bypass explains nothing."""
        f = content_cached(cache=cache)(str.upper)
        block = memoleo.explain()
        with block as outer:
            f("a")
            with memoleo.explain() as inner, memoleo.bypass():
                f("b")
            with block:
                f("c")
            f("d")
        assert len(outer) == 3
        assert inner == []

    async def test_a_block_that_is_left_in_another_context(self, cache: Cache) -> None:
        """Entering in one task and leaving in another, as fixtures do, is no error."""
        f = content_cached(cache=cache)(str.upper)
        for block in (memoleo.explain(), memoleo.verify(1.0)):

            async def enter(block: Any = block) -> None:
                block.__enter__()

            async def leave(block: Any = block) -> None:
                block.__exit__(None, None, None)

            await asyncio.create_task(enter())
            await asyncio.create_task(leave())
        assert f("a") == "A"

    def test_methods_of_all_kinds(self, cache: Cache) -> None:
        """explain works through instances, classes and static methods."""

        class Box:
            @content_cached(cache=cache)
            @classmethod
            def of(cls, x: int) -> int:
                return x

            @staticmethod
            @content_cached(cache=cache)
            def plain(x: int) -> int:
                return x

        Box.of(1), Box.plain(1)
        assert Box.of.explain(1).outcome == "hit"
        assert parts(Box.of.explain(2)) == ["x"]
        assert parts(Box.plain.explain(2)) == ["x"]

    def test_as_plain_data(self, cache: Cache) -> None:
        """to_dict holds what JSON can, and no value."""
        import json

        f = content_cached(cache=cache)(str.upper)
        f("secret")
        text = json.dumps(f.explain("other").to_dict())
        assert "ecret" not in text.lower()


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from memoleo import Cache, content_cached
import app
why = app.score.explain("a")
if why.outcome == "hit" or len(sys.argv) > 2:
    print(why.reason)
else:
    app.score("a")
    print(why.reason, "|", "; ".join(str(each) for each in why.nearest[0].differences))
"""

APP = """
from memoleo import Cache, content_cached
import tools
@content_cached("emo", ttl="1d")
def score(text, n=2):
    return tools.clean(text) * n
"""

TOOLS = """
LIMIT = 3
def clean(text):
    return strip(text)[:LIMIT]
def strip(text):
    return text.strip()
"""


def run(folder: Path, *arguments: str, **environ: str) -> str:
    """Return what a process says of a call; it makes the call if it is none that hits."""
    script = folder / "child.py"
    script.write_text(CHILD)
    ran = subprocess.run(
        [sys.executable, str(script), str(folder), *arguments],
        cwd=folder,
        env={**os.environ, "MEMOLEO_CACHE": f"sqlite:///{folder.as_posix()}/c.db", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


class TestCode:
    @pytest.mark.parametrize(
        ("file", "old", "new", "told"),
        [
            ("tools", "text.strip()", "text.rstrip()", "the code of tools.strip"),
            ("tools", "LIMIT = 3", "LIMIT = 4", "the constant tools.LIMIT"),
            ("app", "* n", "* n * 1", "the function's own code"),
            ("app", '"emo"', '"mood"', "type="),
            ("app", "n=2", "n=3", "n"),
            ("app", "ttl=", "version=3, ttl=", "version=, which was not there"),
            ("app", "ttl=", "ignore='n', ttl=", "n, which is not there"),
        ],
    )
    def test_the_change_in_the_code_is_named(
        self, tmp_path: Path, file: str, old: str, new: str, told: str
    ) -> None:
        """After a change of the program another process says which helper, constant or setting."""
        (tmp_path / "app.py").write_text(APP)
        (tmp_path / "tools.py").write_text(TOOLS)
        with Cache(f"sqlite:///{tmp_path.as_posix()}/c.db"):
            assert run(tmp_path, "first") == "first"
        script = tmp_path / "fill.py"
        script.write_text("import app; app.score('a')")
        subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={**os.environ, "MEMOLEO_CACHE": f"sqlite:///{tmp_path.as_posix()}/c.db"},
            check=True,
            timeout=60,
        )
        assert run(tmp_path) == "fresh"
        source = (tmp_path / f"{file}.py").read_text()
        (tmp_path / f"{file}.py").write_text(source.replace(old, new))
        # The clock of a file system may be coarser than the change was quick.
        for folder in tmp_path.glob("__pycache__"):
            for compiled in folder.iterdir():
                compiled.unlink()
        said = run(tmp_path)
        assert said.startswith("differs | ")
        assert told in said.removeprefix("differs | ").split("; ")

    def test_another_user_cannot_compare(self, tmp_path: Path) -> None:
        """Parts that were made with another secret are told as such, and not as differences."""
        (tmp_path / "app.py").write_text(APP + "\nscore('b')\n")
        (tmp_path / "tools.py").write_text(TOOLS)
        homes = [str(tmp_path / name) for name in ("mine", "theirs")]
        for home in homes:
            keys = ("HOME", "XDG_DATA_HOME", "LOCALAPPDATA")
            said = run(tmp_path, "told", **dict.fromkeys(keys, home))
        assert said == "differs"


class TestPrivacy:
    def settings(self, level: str) -> Any:
        return msgspec.structs.replace(_settings.current(), explain=level)

    @pytest.fixture(autouse=True)
    def _settings_restored(self) -> Iterator[None]:
        before = _settings.use(None)
        yield
        _settings.use(before)

    def test_no_argument_is_in_the_store(self, tmp_path: Path) -> None:
        """The file holds digests of arguments, and no plain digest that could be guessed."""
        import hashlib

        path = tmp_path / "a.db"
        with Cache(f"sqlite:///{path}") as cache:

            @content_cached(cache=cache)
            def f(name: str, more: list[str]) -> int:
                return 1

            f("Rumpelstilzchen", ["spinnrad"])
        data = path.read_bytes() + (
            path.with_name("a.db-wal").read_bytes()
            if (path.with_name("a.db-wal").exists())
            else b""
        )
        assert b"umpelstilz" not in data
        assert b"spinnrad" not in data
        for text in (b"Rumpelstilzchen", b"\xafRumpelstilzchen"):
            for kind in (hashlib.sha256, hashlib.blake2b, hashlib.md5):
                assert kind(text).digest()[:8] not in data

    def test_previews_are_shown_where_they_are_switched_on(self, cache: Cache) -> None:
        """With previews the beginnings of both values are told."""
        _settings.use(self.settings("previews"))

        @content_cached(cache=cache)
        def f(text: str, n: Any) -> int:
            return 1

        f("x" * 1000, 1)
        f("y" * 1000, 1)
        told = [near.differences[0] for near in f.explain("z", 1).nearest]
        assert any("yyy" in each.then for each in told)
        assert all(each.now == "'z'" and len(each.then) < 80 for each in told)

    def test_switched_off_nothing_is_kept(self, cache: Cache) -> None:
        """Without parts an explanation still says that there are others."""
        _settings.use(self.settings("off"))

        @content_cached(cache=cache)
        def f(x: int) -> int:
            return 1

        f(1)
        [entry] = [entry for _, entry in cache.backend.entries()]
        assert entry.parts == b""
        why = f.explain(2)
        assert (why.reason, why.nearest[0].differences) == ("differs", ())

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
    def test_a_secret_that_cannot_be_kept(self, tmp_path: Path) -> None:
        """A home that can't be written costs nothing but comparing across processes."""
        home = Path(os.environ["HOME"])
        home.parent.mkdir(exist_ok=True)
        home.write_text("a file where the folder should be")
        with Cache(f"sqlite:///{tmp_path}/a.db") as cache:

            @content_cached(cache=cache)
            def f(x: int) -> int:
                return x

            f(1)
            assert f(1) == 1
            assert parts(f.explain(2)) == ["x"]


class TestOllama:
    @pytest.fixture
    def client(self) -> Iterator[Any]:
        import ollama
        from scripted_ollama import ScriptedOllama

        with ScriptedOllama() as server, ollama.Client(server.url, verify=False) as client:
            opened = Cache("memory://", metrics=Metrics())
            with memoleo.enable("ollama", cache=opened):
                client.server = server  # type: ignore[attr-defined]
                yield client

    def test_a_request_is_explained_field_by_field(self, client: Any) -> None:
        """Of a request to a model the field or the option that differs is named."""
        ask = [{"role": "system", "content": "brief"}, {"role": "user", "content": "why?"}]
        client.chat("m", ask, options={"seed": 1, "temperature": 0.5})
        other = [ask[0], {"role": "user", "content": "how?"}]
        with memoleo.explain() as why:
            client.chat("m", ask, options={"seed": 1, "temperature": 0.5})
            client.chat("m", ask, options={"seed": 2, "temperature": 0.5})
            client.chat("m", other, options={"seed": 1, "temperature": 0.5})
            client.chat("other", ask, options={"seed": 1, "temperature": 0.5})
            client.chat("m", ask, options={"seed": 1, "temperature": 0.5}, format="json")
        assert why[0].outcome == "hit"
        told = [parts(each) for each in why[1:]]
        assert told == [
            ["options['seed']"],
            ["messages[1]"],
            ["model", "digest of the model"],
            ["format, which was not there"],
        ]

    def test_a_model_that_was_pulled_anew(self, client: Any) -> None:
        """A new digest behind the same name is told as that."""
        ask = [{"role": "user", "content": "why?"}]
        client.chat("m", ask)
        client.server.digests["m:latest"] = "d9"
        client.pull("m")
        with memoleo.explain() as why:
            client.chat("m", ask)
        assert parts(why[0]) == ["digest of the model"]


class TestHTTP:
    def test_a_request_is_explained_part_by_part(self) -> None:
        """Of an HTTP request the member of the body, the header or the query that differs is named.

        It is not verified: sending it again is more than computing.
        """
        import httpx
        from scripted_http import ScriptedHttp

        cache = Cache("memory://", metrics=Metrics())
        with ScriptedHttp() as server, httpx.Client(verify=False) as client:
            rules = [{"method": "POST", "url": f"{server.url}/*", "type": "scores"}]
            with memoleo.enable("httpx", rules=rules, cache=cache):

                def ask(path: str = "a", seed: int = 1, **headers: str) -> None:
                    body = {"text": "why?", "seed": seed}
                    client.post(f"{server.url}/score?q={path}", json=body, headers=headers)

                ask()
                with memoleo.explain() as why:
                    ask()
                    ask(seed=2)
                    ask(path="b")
                    ask(**{"x-mode": "fast"})
                with memoleo.verify(1.0, per_minute=100):
                    ask()
                assert cache.verified(wait=1) == {}
        assert why[0].outcome == "hit"
        assert [parts(each) for each in why[1:]] == [
            ["body['seed']"],
            ["query['q']"],
            ["headers['x-mode'], which was not there"],
        ]


def _many(a, b=0, c=0, d=0, e=0, f=0, g=0, h=0, i=0, j=0, k=0):
    return None


class TestBytesAtHand:
    """What a key was just made of is not looked at a second time."""

    ARGUMENTS: ClassVar[tuple[Any, ...]] = (
        "text", 7, -40000, 2.5, None, True, b"bytes", "long " * 100, ["a"], {"b": 2, "a": [3]}, {},
    )  # fmt: skip

    def test_they_make_the_same_parts(self) -> None:
        keyer, maker = Keyer(_many, version=1), PartsMaker(MemoryBackend())
        key = keyer.key(self.ARGUMENTS, {})

        latest, at_hand = keyer.latest.made
        anew = keyer.describe(self.ARGUMENTS, {})

        assert latest is key
        assert at_hand is not None
        assert at_hand.blocks is not None
        assert anew.blocks is None
        assert at_hand.values == anew.values
        assert maker.parts(at_hand) == maker.parts(anew)

    def test_they_are_those_of_the_latest_key(self) -> None:
        keyer = Keyer(_many, version=1)
        mine = keyer.key(("mine",), {})
        keyer.key(("another's",), {})

        latest, description = keyer.latest.made
        assert latest != mine
        assert description is not None
        assert description.values[0] == "another's"
