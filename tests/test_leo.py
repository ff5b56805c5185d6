"""The classes of a worker: found by their path, timed where they stand, put back as they were."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import memoleo
from memoleo import ConfigError
from memoleo.config import load_settings
from memoleo.leo import enable_caching_for_worker
from memoleo.leo._worker import _rules

SCORER = """
class Base:
    def enrich(self, text, history=None, timestamp=None):
        return {"text": text, "timestamp": timestamp}

class HybridScorer(Base):
    __slots__ = ("token", "args")
    def __init__(self, token, *args, **kwargs):
        self.token, self.args = token, (args, kwargs)
    def helper(self):
        return self.token

class Plain:
    enrich = None
"""

ENRICHER = """
import functools
class Meta(type):
    def __call__(cls, *args):
        return super().__call__(*args)
class PostEnricher(metaclass=Meta):
    async def run_post_enrichment(self, result):
        if result is None:
            raise ValueError("nothing")
        return {**result, "done": True}
class Static:
    @staticmethod
    def run_post_enrichment(result):
        return result
class Bound:
    @classmethod
    def run_post_enrichment(cls, result):
        return cls, result
class Partial:
    def run(self, how, result):
        return how, result
    run_post_enrichment = functools.partialmethod(run, "gently")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with the worker's modules, under a name of its own; undone at the end."""
    name = f"worker_{abs(hash(str(tmp_path)))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "scoring.py").write_text(SCORER, encoding="utf-8")
    (folder / "writing.py").write_text(ENRICHER, encoding="utf-8")
    (folder / "broken.py").write_text("import absent_dependency\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    memoleo.get_metrics().reset()
    yield name
    memoleo.disable()
    for each in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[each]


def enabled(package: str, enricher: str = "PostEnricher") -> dict[str, Any]:
    return enable_caching_for_worker(
        f"{package}.scoring:HybridScorer", f"{package}.writing:{enricher}", cache="memory://"
    )


def test_they_are_the_workers_own_classes(package: str) -> None:
    """Any constructor, all methods, slots, pickling and inspection: nothing has changed."""
    scorer = enabled(package)["HybridScorer"]
    module = sys.modules[f"{package}.scoring"]
    assert scorer is module.HybridScorer
    made = scorer("t", 1, other=2)
    assert isinstance(made, module.Base)
    assert (made.helper(), made.args) == ("t", ((1,), {"other": 2}))
    assert made.enrich("x", timestamp=3) == {"text": "x", "timestamp": 3}
    assert list(inspect.signature(scorer.enrich).parameters) == [
        "self", "text", "history", "timestamp",
    ]  # fmt: skip
    assert pickle.loads(pickle.dumps(made)).token == "t"

    class Own(scorer):  # type: ignore[misc]
        def enrich(self, text: str, **more: Any) -> Any:
            return super().enrich(text.upper(), **more)

    assert Own("t").enrich("x")["text"] == "X"


def test_stages_are_timed(package: str) -> None:
    """`enrich` counts as stage1, `run_post_enrichment` as stage2, failures apart."""
    classes = enabled(package)
    classes["HybridScorer"]("t").enrich("x")
    enricher = classes["PostEnricher"]()
    assert asyncio.run(enricher.run_post_enrichment({}))["done"]
    with pytest.raises(ValueError, match="nothing"):
        asyncio.run(enricher.run_post_enrichment(None))
    stats = memoleo.get_metrics().get_stats()
    assert (stats["stage1"]["count"], stats["stage1"]["errors"]) == (1, 0)
    assert (stats["stage2"]["count"], stats["stage2"]["errors"]) == (1, 1)


@pytest.mark.parametrize("name", ["Static", "Bound", "Partial"])
def test_methods_of_every_kind_work(package: str, name: str) -> None:
    """A static method, a class method and a partial method are still what they were."""
    cls = enabled(package, name)["PostEnricher"]
    own = vars(cls)["run_post_enrichment"]
    found = cls().run_post_enrichment(5)
    assert found == {"Static": 5, "Bound": (cls, 5), "Partial": ("gently", 5)}[name]
    memoleo.disable()
    kept = vars(cls)["run_post_enrichment"]
    assert kept is own or not isinstance(own, functools.partialmethod)
    assert cls().run_post_enrichment(5) == found


def test_enabling_twice_times_once_and_disable_undoes_it(package: str) -> None:
    """However often it is enabled, a call counts once; afterwards every attribute is as it was."""
    __import__(f"{package}.scoring")
    module = sys.modules[f"{package}.scoring"]
    before = [dict(vars(module.HybridScorer)), dict(vars(module.Base))]
    enabled(package)
    scorer = enabled(package)["HybridScorer"]
    scorer("t").enrich("x")
    assert memoleo.get_metrics().get_stats()["stage1"]["count"] == 1
    memoleo.disable()
    assert [dict(vars(module.HybridScorer)), dict(vars(module.Base))] == before
    scorer("t").enrich("x")
    assert memoleo.get_metrics().get_stats()["stage1"]["count"] == 1


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("absent_package.scoring:HybridScorer", "there is no module 'absent_package'"),
        ("{}.absent:HybridScorer", "there is no module '{}.absent'"),
        ("{}.scoring:HybridScorr", "Did you mean HybridScorer?"),
        ("{}.scoring", "names no class"),
        ("{}.scoring:Plain", "has no method 'enrich'"),
    ],
)
def test_classes_that_are_not_there_are_named(package: str, place: str, said: str) -> None:
    """The error says what is missing and how to say where it is; nothing stays enabled."""
    with pytest.raises(ConfigError) as caught:
        enable_caching_for_worker(place.format(package), f"{package}.writing:PostEnricher")
    assert said.format(package) in str(caught.value)
    assert "leo.hybrid_scorer" in str(caught.value)
    assert not hasattr(requests.Session.send, "__wrapped__")


def test_module_that_fails_by_itself_fails_as_ever(package: str) -> None:
    """What a worker's module raises while it is imported is not hidden."""
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        enable_caching_for_worker(f"{package}.broken:HybridScorer")


def test_places_come_from_the_settings(package: str, tmp_path: Path) -> None:
    """`leo.hybrid_scorer` and `leo.post_enricher` say where the classes are."""
    config = tmp_path / "memoleo.toml"
    config.write_text(
        f'[leo]\nhybrid_scorer = "{package}.scoring:HybridScorer"\n'
        f'post_enricher = "{package}.writing:Static"\n',
        encoding="utf-8",
    )
    classes = enable_caching_for_worker(config=config, cache="memory://")
    assert [each.__name__ for each in classes.values()] == ["HybridScorer", "Static"]
    assert list(classes) == ["HybridScorer", "PostEnricher"]


def test_perf_config_is_read_as_it_is(tmp_path: Path) -> None:
    """The TTLs of its section caching are those of the worker's types."""
    folder = tmp_path / "config"
    folder.mkdir()
    path = folder / "perf_config.json"
    path.write_text(
        json.dumps({"caching": {"ttl_text_inference": 60, "ttl_song_recommendations": 70}}),
        encoding="utf-8",
    )
    ttls = {rule.type: rule.ttl for rule in _rules(load_settings(path, environ={}))}
    assert ttls["emotion_scoring"] == ttls["post_enrichment"] == 60
    assert ttls["song_recommendations"] == 70


def test_preset_without_settings_has_its_ttls() -> None:
    """30 days, and a day for songs; and what is under examples is what is shipped."""
    ttls = {rule.type: rule.ttl for rule in _rules(load_settings(environ={}, start="/"))}
    day = 86400
    assert ttls["emotion_scoring"] == ttls["post_enrichment"] == 30 * day
    assert ttls["song_recommendations"] == day
    root = Path(__file__).parents[1]
    shipped = root / "src" / "memoleo" / "leo" / "memoleo.toml"
    assert (root / "examples" / "leo" / "memoleo.toml").read_bytes() == shipped.read_bytes()
