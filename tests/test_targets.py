"""Targets: classes and functions of a program that nobody edits, cached where they stand."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import memoleo

SCORER = '''
import functools

CALLS = []


def normal(text):
    """Scale."""
    CALLS.append(("normal", text))
    return text.strip()


async def later(text):
    CALLS.append(("later", text))
    return [text]


class Base:
    def inherited(self, text):
        CALLS.append(("inherited", text))
        return {"base": text}


class HybridScorer(Base):
    """Scores."""

    limit = 3

    def __init__(self, model="m"):
        self.model = model
        self.failed = False

    def enrich(self, text, timestamp=0):
        return [self._hf_score(text), self._hf_rank(text), timestamp]

    def _hf_score(self, text):
        """One score."""
        CALLS.append(("score", text))
        return {"score": len(text), "model": self.model}

    def _hf_rank(self, text):
        CALLS.append(("rank", text))
        return [text]

    @classmethod
    def made(cls, text):
        CALLS.append(("made", text))
        return [cls.__name__, text]

    @staticmethod
    def plain(text):
        CALLS.append(("plain", text))
        return [text]

    async def slow(self, text):
        CALLS.append(("slow", text))
        return [text]

    def parts(self, text):
        CALLS.append(("parts", text))
        yield from text

    async def aparts(self, text):
        CALLS.append(("aparts", text))
        for part in text:
            yield part

    @property
    def size(self):
        CALLS.append(("size", self.model))
        return [len(self.model)]

    @functools.cached_property
    def heavy(self):
        CALLS.append(("heavy", self.model))
        return [self.model]

    def fails(self, text):
        CALLS.append(("fails", text))
        raise ValueError(text)

    def locked(self, client):
        CALLS.append(("locked", 0))
        return 1


class Special(HybridScorer):
    def _hf_score(self, text):
        found = super()._hf_score(text)
        return {**found, "special": True}
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with ``src/modules/hybrid_scorer.py``, which any import may find."""
    folder = tmp_path / "src" / "modules"
    folder.mkdir(parents=True)
    for each in (tmp_path / "src", folder):
        (each / "__init__.py").touch()
    (folder / "hybrid_scorer.py").write_text(SCORER)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    memoleo.disable()
    for name in set(sys.modules) - known:
        if name.split(".")[0] in ("src", "modules", "hybrid_scorer", "worker", "other"):
            del sys.modules[name]


@pytest.fixture
def module(project: Path) -> Any:
    return importlib.import_module("src.modules.hybrid_scorer")


@pytest.fixture
def cache() -> memoleo.Cache:
    return memoleo.Cache("memory://", metrics=memoleo.Metrics())


PATH = "src.modules.hybrid_scorer"


def snapshot(module: Any) -> dict[str, Any]:
    kinds = (module.Base, module.HybridScorer, module.Special)
    found = {
        f"{kind.__name__}.{name}": value for kind in kinds for name, value in vars(kind).items()
    }
    return {**found, **vars(module)}


def unchanged(module: Any, before: dict[str, Any]) -> bool:
    after = snapshot(module)
    return after.keys() == before.keys() and all(after[name] is before[name] for name in before)


def test_wildcards_mean_methods(module: Any, cache: memoleo.Cache) -> None:
    """Every method whose name fits is cached, each under its own arguments, and no other one."""
    before = snapshot(module)
    with memoleo.enable(targets=[f"{PATH}:HybridScorer._hf_*"], cache=cache):
        scorer = module.HybridScorer()
        for timestamp in range(3):
            found = scorer.enrich("why", timestamp)
            assert found == [{"score": 3, "model": "m"}, ["why"], timestamp]
            found[0].clear()
        assert module.CALLS == [("score", "why"), ("rank", "why")]
    assert unchanged(module, before)
    scorer.enrich("why")
    assert len(module.CALLS) == 4


def test_every_kind_of_member(module: Any, cache: memoleo.Cache) -> None:
    """Methods, classmethods, staticmethods, properties, coroutines, generators, inherited ones."""
    before = snapshot(module)
    names = ["made", "plain", "slow", "parts", "aparts", "size", "heavy", "inherited"]
    paths = [f"{PATH}:HybridScorer.{name}" for name in names]

    async def both(scorer: Any) -> list[Any]:
        return [await scorer.slow("x"), [part async for part in scorer.aparts("xy")]]

    with memoleo.enable(targets=[*paths, f"{PATH}:normal", f"{PATH}:later"], cache=cache):
        for _ in range(2):
            scorer = module.HybridScorer()
            assert module.HybridScorer.made("x") == scorer.made("x") == ["HybridScorer", "x"]
            assert module.HybridScorer.plain("x") == scorer.plain("x") == ["x"]
            assert asyncio.run(both(scorer)) == [["x"], ["x", "y"]]
            assert list(scorer.parts("xy")) == ["x", "y"]
            assert scorer.size == [1]
            assert scorer.heavy == ["m"]
            assert scorer.inherited("x") == {"base": "x"}
            assert module.normal(" x ") == "x"
            assert asyncio.run(module.later("x")) == ["x"]
        assert module.Base().inherited("x") == {"base": "x"}
    counted = sorted(name for name, _ in module.CALLS)
    assert counted == sorted([*names, "normal", "later", "inherited"])
    assert unchanged(module, before)


def test_classes_stay_what_they_are(module: Any, cache: memoleo.Cache) -> None:
    """`isinstance`, `issubclass`, pickling, copying, subclassing, `super` and `inspect` work on."""
    scorer = module.HybridScorer("other")
    with memoleo.enable(targets=[f"{PATH}:HybridScorer.*", f"{PATH}:normal"], cache=cache):
        assert isinstance(scorer, module.HybridScorer)
        assert issubclass(module.Special, module.HybridScorer)
        again = pickle.loads(pickle.dumps(scorer))
        assert type(again) is module.HybridScorer
        assert again.model == copy.deepcopy(scorer).model == "other"
        assert pickle.loads(pickle.dumps(module.normal)) is module.normal
        special = module.Special()
        for _ in range(2):
            assert special._hf_score("ab") == {"score": 2, "model": "m", "special": True}

        class Later(module.HybridScorer):  # type: ignore[misc,name-defined]
            def _hf_rank(self, text: str) -> list[str]:
                return [*super()._hf_rank(text), "later"]

        assert Later()._hf_rank("x") == ["x", "later"]
        method = module.HybridScorer._hf_score
        assert method.__name__ == "_hf_score"
        assert method.__doc__ == "One score."
        assert list(inspect.signature(method).parameters) == ["self", "text"]
        assert inspect.iscoroutinefunction(module.HybridScorer.slow)
        assert inspect.isgeneratorfunction(module.HybridScorer.parts)
        assert inspect.isfunction(module.normal)
        assert inspect.getsource(module.normal).startswith("def normal")
        assert module.HybridScorer.limit == 3


@pytest.mark.parametrize("enabled_first", [True, False])
def test_import_order_does_not_matter(
    project: Path, cache: memoleo.Cache, enabled_first: bool
) -> None:
    """A module is patched whether it is imported before or after."""
    if not enabled_first:
        importlib.import_module(PATH)
    with memoleo.enable(targets=[f"{PATH}:HybridScorer._hf_score"], cache=cache):
        module = importlib.import_module(PATH)
        for _ in range(2):
            module.HybridScorer()._hf_score("x")
        assert module.CALLS == [("score", "x")]
        assert type(module.__loader__).__module__.startswith("_frozen_importlib")
    assert inspect.isfunction(vars(module.HybridScorer)["_hf_score"])
    assert "memoleo" not in type(vars(module.HybridScorer)["_hf_score"]).__module__


@pytest.mark.parametrize(
    "name", ["src.modules.hybrid_scorer", "modules.hybrid_scorer", "hybrid_scorer"]
)
@pytest.mark.parametrize("enabled_first", [True, False])
def test_whatever_name_a_module_gets(
    project: Path,
    cache: memoleo.Cache,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    enabled_first: bool,
) -> None:
    """Where `sys.path` leads inside a package, the file says which module is meant."""
    if name == "modules.hybrid_scorer":
        monkeypatch.syspath_prepend(str(project / "src"))
    elif name == "hybrid_scorer":
        monkeypatch.syspath_prepend(str(project / "src" / "modules"))
    if not enabled_first:
        importlib.import_module(name)
    with memoleo.enable(targets=[f"{PATH}:normal"], cache=cache):
        module = importlib.import_module(name)
        assert module.normal(" x") == module.normal(" x") == "x"
        assert len(module.CALLS) == 1


def test_modules_of_the_same_file_are_both_patched(
    project: Path, cache: memoleo.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was imported twice is two modules, and both are meant."""
    monkeypatch.syspath_prepend(str(project / "src"))
    one = importlib.import_module("src.modules.hybrid_scorer")
    other = importlib.import_module("modules.hybrid_scorer")
    assert one is not other
    with memoleo.enable(targets=[f"{PATH}:normal"], cache=cache):
        for each in (one, other):
            each.normal("x")
            each.normal("x")
    assert len(one.CALLS) <= 1
    assert len(other.CALLS) <= 1


def test_names_that_were_taken_out_before_follow(project: Path, cache: memoleo.Cache) -> None:
    """``from module import function`` came first: the name is bound anew, and back."""
    (project / "worker.py").write_text(f"from {PATH} import normal\n")
    worker = importlib.import_module("worker")
    module = importlib.import_module(PATH)
    original = module.normal
    with memoleo.enable(targets=[f"{PATH}:normal"], cache=cache):
        assert worker.normal is module.normal is not original
        (project / "other.py").write_text(f"from {PATH} import normal\n")
        other = importlib.import_module("other")
        worker.normal("x")
        other.normal("x")
        assert module.CALLS == [("normal", "x")]
    assert other.normal is worker.normal is module.normal is original


def test_references_that_can_not_be_reached_are_named(module: Any, cache: memoleo.Cache) -> None:
    """What a list, a partial or a bound method holds stays as it was, and `enable` says so."""
    held = [module.normal]
    bound = module.HybridScorer()._hf_score
    targets = [f"{PATH}:normal", f"{PATH}:HybridScorer._hf_score"]
    with pytest.warns(RuntimeWarning) as caught:
        memoleo.enable(targets=targets, cache=cache)
    held[0]("x")
    held[0]("x")
    bound("x")
    said = sorted(str(each.message) for each in caught)
    assert "_hf_score is held by a bound method of HybridScorer" in said[0]
    assert "normal is held by a list" in said[1]
    assert len(said) == 2
    assert module.CALLS == [("normal", "x"), ("normal", "x"), ("score", "x")]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{PATH}:HybridScorer._hf_scor", f"Did you mean {PATH}:HybridScorer._hf_score?"),
        (f"{PATH}:HybridScrer._hf_score", f"Did you mean {PATH}:HybridScorer"),
        (f"{PATH}:_hf_score", f"Did you mean {PATH}:HybridScorer._hf_score?"),
        (f"{PATH}:HybridScorer", "is a class: say which of its methods"),
        (f"{PATH}:CALLS", "can't be called"),
        ("builtins:str.upper", "can't be replaced"),
        ("src.modules.hybrid_screr:normal", f"Did you mean {PATH}:normal?"),
    ],
)
def test_targets_that_lead_nowhere_are_named(
    module: Any, cache: memoleo.Cache, path: str, said: str
) -> None:
    """A warning names the target and what was probably meant; strictly, it is an error."""
    before = snapshot(module)
    with pytest.warns(RuntimeWarning) as caught:
        memoleo.enable(targets=[path], cache=cache).close()
    assert said in " ".join(str(each.message) for each in caught)
    with pytest.raises(memoleo.ConfigError) as refused:
        memoleo.enable(targets=[f"{PATH}:normal", path], cache=cache, strict=True)
    assert said in str(refused.value)
    assert unchanged(module, before)


def test_a_missing_name_in_a_module_to_come(project: Path, cache: memoleo.Cache) -> None:
    """What can only be found out at the import is a warning then, or fails it if meant strictly."""
    path = f"{PATH}:normall"
    with memoleo.enable(targets=[path], cache=cache, strict=True):
        with pytest.raises(memoleo.ConfigError, match="Did you mean"):
            importlib.import_module(PATH)
        assert PATH not in sys.modules
    with memoleo.enable(targets=[path], cache=cache), pytest.warns(RuntimeWarning, match="Did you"):
        importlib.import_module(PATH)


def test_an_import_does_not_fail_of_a_warning(project: Path, cache: memoleo.Cache) -> None:
    """Where warnings are errors, the program's import still works."""
    with memoleo.enable(targets=[f"{PATH}:normall"], cache=cache), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importlib.import_module(PATH).normal("x") == "x"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_handles_close_in_any_order(module: Any, order: tuple[int, ...]) -> None:
    """The innermost that wants an attribute decides how; the last to close puts it back."""
    before = snapshot(module)
    caches = [memoleo.Cache("memory://", metrics=memoleo.Metrics()) for _ in range(3)]
    handles = [
        memoleo.enable(targets=[{"path": f"{PATH}:normal", "type": f"t{n}"}], cache=caches[n])
        for n in range(3)
    ]
    left = [0, 1, 2]
    for number in order:
        module.normal("x")
        assert caches[left[-1]].get_stats()["by_type"] == {f"t{left[-1]}": 1}
        handles[number].close()
        left.remove(number)
    assert unchanged(module, before)


def test_a_patch_of_somebody_else_survives(module: Any, cache: memoleo.Cache) -> None:
    """What others put on top stays, and what lies below it does nothing any more."""
    original = module.normal
    handle = memoleo.enable(targets=[f"{PATH}:normal"], cache=cache)
    below = module.normal

    @functools.wraps(below)
    def theirs(text: str) -> str:
        return f"{below(text)}!"

    module.normal = theirs
    assert [module.normal("x"), module.normal("x")] == ["x!", "x!"]
    assert len(module.CALLS) == 1
    handle.close()
    assert module.normal is theirs
    assert [module.normal("x"), module.normal("x")] == ["x!", "x!"]
    assert len(module.CALLS) == 3
    module.normal = original


def test_what_was_taken_out_is_plain_afterwards(module: Any, cache: memoleo.Cache) -> None:
    """Who still holds a stand-in after `disable` has the plain function."""
    with memoleo.enable(targets=[f"{PATH}:normal"], cache=cache):
        held = [module.normal]
    held[0]("x")
    held[0]("x")
    assert len(module.CALLS) == 2


def test_what_can_not_be_keyed_is_called(module: Any, cache: memoleo.Cache) -> None:
    """A lock among the arguments costs the hit, not the call, and is said once."""
    with memoleo.enable(targets=[f"{PATH}:HybridScorer.locked"], cache=cache):
        with pytest.warns(RuntimeWarning, match="locked is not cached where it can't be keyed"):
            assert module.HybridScorer().locked(threading.Lock()) == 1
        assert module.HybridScorer().locked(threading.Lock()) == 1
    assert len(module.CALLS) == 2


def test_failures_are_never_stored(module: Any, cache: memoleo.Cache) -> None:
    """An exception is raised each time, the function's own, and runs it each time."""
    with memoleo.enable(targets=[f"{PATH}:HybridScorer.fails"], cache=cache):
        for _ in range(2):
            with pytest.raises(ValueError, match="x"):
                module.HybridScorer().fails("x")
    assert len(module.CALLS) == 2


def test_threads_share_an_instance(module: Any, cache: memoleo.Cache) -> None:
    """Eight threads on one instance compute each text once, while it is enabled and disabled."""
    scorer = module.HybridScorer()
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.wait(0.001):
                for text in ("a", "bb"):
                    found = scorer._hf_score(text)
                    assert found == {"score": len(text), "model": "m"}
                    found.clear()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        memoleo.enable(targets=[f"{PATH}:HybridScorer._hf_*"], cache=cache).close()
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_targets_from_a_file(module: Any, tmp_path: Path) -> None:
    """A bare `enable` takes all targets of the settings; a named package takes none of them."""
    file = tmp_path / "memoleo.toml"
    file.write_text(
        textwrap.dedent(
            f"""
            [caching]
            url = "memory://"

            [[targets]]
            path = "{PATH}:HybridScorer.enrich"
            type = "emotion_scoring"
            ttl = "30d"
            ignore = ["timestamp"]
            state = ["model"]
            timed = "stage1"
            """
        )
    )
    memoleo.get_metrics().reset()
    with memoleo.enable(config=file) as handle:
        assert handle.targets == ("ollama", f"{PATH}:HybridScorer.enrich")
        for timestamp in range(3):
            module.HybridScorer().enrich("x", timestamp)
    stats = memoleo.get_metrics().get_stats()
    assert stats["stage1"]["count"] == 3
    assert stats["cache"]["emotion_scoring"]["hits"] == 2
    assert len(module.CALLS) == 2
    file.write_text('[[targets]]\npaht = "a:b"\n')
    with pytest.raises(memoleo.ConfigError, match=r"targets\[0\]\.paht.*Did you mean path"):
        memoleo.enable(config=file)


def test_reloaded_modules_are_patched_again(module: Any, cache: memoleo.Cache) -> None:
    """`importlib.reload` makes new functions, which are replaced too."""
    with memoleo.enable(targets=[f"{PATH}:normal", f"{PATH}:HybridScorer.plain"], cache=cache):
        importlib.reload(module)
        for _ in range(2):
            module.normal("x")
            module.HybridScorer.plain("x")
        assert len(module.CALLS) == 2
    assert type(module.normal).__name__ == "function"
    assert type(module.normal).__module__ == "builtins"


def test_a_script_is_a_module_too(tmp_path: Path) -> None:
    """What a script defines itself can be named by the file's name."""
    script = tmp_path / "worker_script.py"
    script.write_text(
        textwrap.dedent(
            """
            import memoleo
            calls = []
            def score(text):
                calls.append(text)
                return [text]
            with memoleo.enable(targets=["worker_script:score"], cache="memory://"):
                score("x"), score("x")
            assert calls == ["x"], calls
            """
        )
    )
    subprocess.run([sys.executable, "-W", "error", str(script)], check=True)


def test_a_proxied_class_is_a_subclass(module: Any, cache: memoleo.Cache) -> None:
    """`proxy` of a class: same constructor, same methods, a real subclass of its own."""
    before = snapshot(module)
    memoleo.get_metrics().reset()
    options = {"type": "emotion_scoring", "ttl": "30d", "timed": "stage1"}
    Scorer = memoleo.proxy(module.HybridScorer, methods={"_hf_*": options}, cache=cache)
    scorer = Scorer("other")
    assert isinstance(scorer, module.HybridScorer)
    assert issubclass(Scorer, module.HybridScorer)
    assert (Scorer.__name__, Scorer.__module__) == ("HybridScorer", PATH)
    assert inspect.signature(Scorer) == inspect.signature(module.HybridScorer)
    for _ in range(2):
        assert scorer.enrich("ab")[0] == {"score": 2, "model": "other"}
    assert len(module.CALLS) == 2
    assert memoleo.get_metrics().get_stats()["stage1"]["count"] == 4
    again = pickle.loads(pickle.dumps(scorer))
    assert type(again) is module.HybridScorer
    assert again.model == copy.copy(scorer).model == "other"
    assert Scorer.made("x") == ["HybridScorer", "x"]
    assert unchanged(module, before)


def test_a_proxied_object_passes_for_it(module: Any, cache: memoleo.Cache) -> None:
    """`proxy` of an instance shares its state, answers the named methods, and passes for it."""
    scorer = module.HybridScorer()
    stand_in = memoleo.proxy(scorer, methods=["_hf_score"], cache=cache)
    assert isinstance(stand_in, module.HybridScorer)
    for _ in range(2):
        assert stand_in._hf_score("ab") == {"score": 2, "model": "m"}
    assert len(module.CALLS) == 1
    stand_in.model = "other"
    assert scorer.model == "other"
    assert stand_in._hf_score("ab")["model"] == "other"
    assert len(module.CALLS) == 2
    scorer._hf_score("ab")
    assert len(module.CALLS) == 3
    for again in (pickle.loads(pickle.dumps(stand_in)), copy.copy(stand_in)):
        assert type(again) is module.HybridScorer
        assert again.model == "other"
    assert copy.deepcopy([stand_in, stand_in])[1].model == "other"


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (None, "say which methods"),
        (["_hf_scor"], "Did you mean '_hf_score'"),
        ({"_hf_score": {"tll": 1}}, "Did you mean ttl"),
        ({"limit": {}}, "can't be called"),
        ("_hf_score", "expected names"),
    ],
)
def test_wrong_proxies_are_refused(module: Any, methods: Any, said: str) -> None:
    """What is wrong is said at once, with what was probably meant."""
    with pytest.raises(memoleo.ConfigError, match=said):
        memoleo.proxy(module.HybridScorer, methods=methods)


@pytest.mark.parametrize(
    "target", ["nonsense", "a b:c", 3, {"path": "a:b", "ttl": "soon"}, {"type": "x"}, {"path": 3}]
)
def test_wrong_targets_are_refused(target: Any) -> None:
    """A target that can't be read is an error at once, with its place in the list."""
    with pytest.raises(memoleo.ConfigError, match=r"targets\[0\]"):
        memoleo.enable(targets=[target])
