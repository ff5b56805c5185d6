"""What ``memoleo doctor`` looks at."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from memoleo._cache.default import default_url
from memoleo._health import (
    NOT_KEPT,
    Finding,
    damage,
    put_aside,
    room,
    scrutinize,
    why_unreadable,
)
from memoleo._version import version
from memoleo.backends._protocol import Backend
from memoleo.backends._urls import open_backend, shown_url
from memoleo.cli._common import is_store, store_path
from memoleo.config._load import load_settings
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._enable import enable

__all__ = ["examine"]


def examine(url: str | None) -> Iterator[Finding]:
    """Look at everything that the default cache, or the one at `url`, depends on."""
    yield _python()
    place = url
    try:
        settings = load_settings()
        place = url or settings.cache_url or default_url()
    except ConfigError as error:
        yield Finding("settings", "problem", str(error), "Correct it, or remove the setting.")
        settings = Settings()
    else:
        yield _settings(settings)
    if place is not None:
        yield from _store(place)
    yield from _patches()
    yield _ollama(settings.ollama.base_url)


def _python() -> Finding:
    text = f"memoleo {version()}, Python {platform.python_version()}, {platform.platform()}"
    if sys.implementation.name != "cpython":
        return Finding(
            "python", "warning", text, "memoleo is tested on CPython; others are on their own."
        )
    return Finding("python", "ok", text)


def _settings(settings: Settings) -> Finding:
    place = settings.file or "no file, the defaults"
    if not settings.enabled:
        return Finding(
            "settings",
            "warning",
            f"{place}: caching is switched off",
            f"Switch it on in {settings.origins['caching.enabled']}.",
        )
    return Finding("settings", "ok", place)


def _store(url: str) -> Iterator[Finding]:
    try:
        backend = open_backend(url)
    except ConfigError as error:
        yield Finding("store", "problem", str(error), "Correct the URL of the cache.")
        return
    path = store_path(url)
    if path is None:
        yield from _elsewhere(url, backend)
    elif not path.exists():
        yield _folder(path)
    elif not is_store(path):
        yield Finding(
            "store",
            "problem",
            f"{path} is no cache, or its beginning is overwritten",
            "Name another file with MEMOLEO_CACHE; or remove this one, if nobody needs it.",
        )
    else:
        yield room(path)
        before = put_aside(path)
        try:
            yield from scrutinize(backend)
        finally:
            backend.close()
        yield from damage(before, put_aside(path))


def _elsewhere(url: str, backend: Backend) -> Iterator[Finding]:
    place = shown_url(url)
    if url.startswith("memory:"):
        yield Finding("store", "ok", f"{place} lives inside each process")
        return
    # The farthest store: nearer ones answer for it.
    failure = why_unreadable(getattr(backend, "tiers", (backend,))[-1])
    if failure is None:
        yield Finding("store", "ok", f"{place} answers")
    else:
        yield Finding(
            "store",
            "problem",
            f"no answer: {failure}",
            "Start it, or correct the URL; until then calls run uncached.",
        )
    yield NOT_KEPT


def _folder(path: Path) -> Finding:
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(
            "store",
            "problem",
            f"{path} can't be created: {folder} can't be written",
            "Give yourself the right to write there, or choose another place with MEMOLEO_CACHE.",
        )
    return Finding("store", "ok", f"{path} will be created when a first result is stored")


def _patches() -> Iterator[Finding]:
    """Enable everything that `memoleo.enable` would, and take it back."""
    from importlib import import_module, metadata

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with enable() as handle:
                for name in handle.targets:
                    # What is patched when it is imported shows only then whether it can be.
                    import_module(name)
                names = [f"{name} {metadata.version(name)}" for name in handle.targets]
        except Exception as error:
            yield Finding(
                "patches",
                "problem",
                f"memoleo.enable() fails: {error}",
                "Programs that call it run uncached; install a version that memoleo knows.",
            )
            return
    for warning in caught:
        yield Finding("patches", "warning", str(warning.message))
    yield Finding("patches", "ok", f"memoleo.enable() takes hold of {', '.join(names)}")


def _ollama(host: str | None) -> Finding:
    import ollama

    place = host or os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
    try:
        models = ollama.Client(host=host, timeout=2.0).list().models
    except Exception as error:
        reason = str(error).split(". ")[0] or type(error).__name__
        return Finding(
            "ollama",
            "warning",
            f"no answer at {place}: {reason}",
            "Needed only by programs that ask it: start it with ollama serve, or set OLLAMA_HOST.",
        )
    return Finding("ollama", "ok", f"{place}, {len(models)} models")
