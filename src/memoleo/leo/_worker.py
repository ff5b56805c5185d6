"""Which classes and which calls a worker of this kind has."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import msgspec

from memoleo._cache.cache import Cache
from memoleo.config import _settings
from memoleo.config._load import load_settings
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.leo._stages import time_stage
from memoleo.patches._enable import enable

__all__ = ["enable_caching_for_worker"]

PRESET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "memoleo.toml")

_METHODS = {
    "hybrid_scorer": ("enrich", "stage1"),
    "post_enricher": ("run_post_enrichment", "stage2"),
}
_OLDER_NAMES = {"emotion_scoring": "text_inference", "post_enrichment": "text_inference"}
"""What types are called in a ``perf_config.json``: ``ttl_text_inference`` means both."""


def enable_caching_for_worker(
    hybrid_scorer: str | None = None,
    post_enricher: str | None = None,
    *,
    cache: Cache | str | None = None,
    config: str | os.PathLike[str] | None = None,
) -> dict[str, type]:
    """Cache what a worker's classes ask of others, time their work, and return the classes.

    They are the worker's own, with their constructors and methods. Not their methods are cached,
    since those get a timestamp and fall back to something after an error, but the calls beneath:
    of the ollama package, and those of requests and httpx that the rules of the settings name, or
    else the rules that come with this module (in ``memoleo.toml`` beside it): an inference router,
    Ollama, songs. ``enrich`` is timed as "stage1", ``run_post_enrichment`` as "stage2".

    `memoleo.disable()` undoes it. Calling it again changes nothing that matters.

    Parameters
    ----------
    hybrid_scorer, post_enricher
        where the classes are, as ``"package.module:Class"``; left out, the settings
        ``leo.hybrid_scorer`` and ``leo.post_enricher`` say it, which begin as
        ``src.modules.hybrid_scorer:HybridScorer`` and ``src.modules.post_enricher:PostEnricher``
    cache, config
        as for `memoleo.enable`

    Returns
    -------
    dict
        ``{"HybridScorer": class, "PostEnricher": class}``

    Raises
    ------
    ConfigError
        a class isn't there, it lacks its method, or the settings are wrong
    """
    settings = _settings.current() if config is None else load_settings(config)
    places = {
        "hybrid_scorer": hybrid_scorer or settings.leo.hybrid_scorer,
        "post_enricher": post_enricher or settings.leo.post_enricher,
    }
    handle = enable(
        "ollama", "requests", "httpx", rules=_rules(settings), cache=cache, config=config
    )
    try:
        classes = {name: _found(name, place) for name, place in places.items()}
        for name, cls in classes.items():
            handle.then(time_stage(cls, *_METHODS[name]))
    except BaseException:
        handle.close()
        raise
    return {"HybridScorer": classes["hybrid_scorer"], "PostEnricher": classes["post_enricher"]}


def _rules(settings: Settings) -> list[Any]:
    """Return the rules of the settings, then those of the preset for what they don't name."""
    preset = load_settings(PRESET, environ={})
    found: list[Any] = list(settings.http_rules)
    for rule in preset.http_rules:
        ttl = settings.ttl_for(rule.type)
        if ttl is None:
            ttl = settings.ttl_for(_OLDER_NAMES.get(rule.type, rule.type))
        if ttl is None:
            ttl = preset.ttl_for(rule.type)
        found.append(msgspec.structs.replace(rule, ttl=ttl))
    return found


def _found(setting: str, place: str) -> type:
    module_name, _, name = place.partition(":")
    ways_out = (
        f"Say where it is with enable_caching_for_worker({setting}='package.module:Class') or the "
        f"setting leo.{setting}"
    )
    if not name:
        raise ConfigError(f"{place!r} names no class. {ways_out}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if missing != module_name and not module_name.startswith(f"{missing}."):
            raise  # the module is there, and lacks something itself
        raise ConfigError(
            f"there is no module {missing!r} on sys.path, where the class {place!r} should be. "
            f"{ways_out}, or start in the worker's folder"
        ) from None
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    method = _METHODS[setting][0]
    if not isinstance(found, type):
        raise ConfigError(
            f"{module_name} has no class {name!r}.{_nearest(module, name)} {ways_out}"
        )
    if not callable(getattr(found, method, None)):
        raise ConfigError(f"{place} has no method {method!r}. {ways_out}")
    return found


def _nearest(module: Any, name: str) -> str:
    from difflib import get_close_matches

    classes = [each for each, value in vars(module).items() if isinstance(value, type)]
    match = get_close_matches(name, classes, n=1)
    return f" Did you mean {match[0]}?" if match else ""
