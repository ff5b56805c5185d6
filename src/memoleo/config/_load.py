"""Files and environment → frozen settings.

Settings come from ``memoleo.toml``, ``[tool.memoleo]`` in ``pyproject.toml`` or
``config/perf_config.json``, whichever is found first from the working folder upward, or from the
file that ``MEMOLEO_CONFIG`` names. The environment goes before the file: ``MEMOLEO_ENABLED``,
``MEMOLEO_CACHE`` (a URL), and any value as ``MEMOLEO_<SECTION>__<KEY>``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from memoleo.config._files import (
    DATABASE,
    anchored,
    find_file,
    project_folder,
    read_file,
    sqlite_url,
)
from memoleo.config._keys import ALIASES, KEYS, TABLES, kind_of
from memoleo.config._sections import (
    DEFAULT_TTL,
    Inference,
    Leo,
    MetricsSettings,
    Networking,
    Ollama,
    Savings,
    Settings,
    Workers,
)
from memoleo.errors import ConfigError

__all__ = ["load_settings"]

_SHORT_NAMES = {
    "MEMOLEO_ENABLED": "caching.enabled",
    "MEMOLEO_CACHE": "caching.url",
}


def load_settings(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    start: str | os.PathLike[str] | None = None,
) -> Settings:
    """Read the settings.

    Parameters
    ----------
    path
        the file to read; left out, ``MEMOLEO_CONFIG`` says, or the nearest one is found
    environ
        the environment
    start
        the folder to search from, upward; left out, the working folder

    Raises
    ------
    ConfigError
        a key is unknown, or a value is not what is expected; the message names the place
    """
    named = os.fspath(path) if path is not None else environ.get("MEMOLEO_CONFIG") or None
    found: tuple[str, dict[str, Any]] | None
    if named is not None:
        found = (os.path.abspath(named), read_file(named))
    else:
        found = find_file(os.fspath(start) if start is not None else _working_folder())
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if found is not None:
        values, origins = _from_file(*found)
    overrides, sources = _from_environment(environ, known=values)
    values.update(overrides)
    origins.update(sources)
    return _settings(values, origins, found[0] if found else None)


def _settings(values: dict[str, Any], origins: dict[str, str], file: str | None) -> Settings:
    sections: dict[str, dict[str, Any]] = {name: {} for name in KEYS}
    types: dict[str, float] = {}
    prices: dict[str, float] = {}
    tables: dict[str, dict[str, Any]] = {"profiles": {}, "policies": {}}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if key == "targets":
            continue
        if section == "types":
            types[name.removesuffix(".ttl")] = value
        elif key.startswith("savings.tokens."):
            prices[name.removeprefix("tokens.")] = value
        elif key.startswith(("ollama.profiles.", "ollama.policies.")):
            table, named, *rest = name.split(".")
            place = tables[table].setdefault(named, {})
            for part in rest[:-1]:
                place = place.setdefault(part, {})
            place.update({rest[-1]: value} if rest else {})
        else:
            sections[section][name] = value
    sections["ollama"].update({name: table for name, table in tables.items() if table})
    caching = sections["caching"]
    return Settings(
        enabled=caching.get("enabled", True),
        cache_url=caching.get("url"),
        default_ttl=caching.get("ttl", DEFAULT_TTL),
        types=types,
        explain=caching.get("explain", "digests"),
        verify=caching.get("verify", 0.0),
        verify_per_minute=caching.get("verify_per_minute", 6.0),
        inference=Inference(**sections["inference"]),
        networking=Networking(**sections["networking"]),
        workers=Workers(**sections["workers"]),
        ollama=Ollama(**sections["ollama"]),
        leo=Leo(**sections["leo"]),
        metrics=MetricsSettings(**sections["metrics"]),
        savings=Savings(**sections["savings"], tokens=prices),
        http_rules=sections["http"].get("rules", ()),
        targets=values.get("targets", ()),
        file=file,
        origins=origins,
    )


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        # It was deleted under the process: nothing can be found from there.
        return os.path.expanduser("~")


class _Layer:
    """The values of one source, each under one key, however it was spelled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}

    def add(self, key: str, value: Any, *, place: str, text: bool = False) -> None:
        spelled = key
        key = _canonical(key)
        kind = kind_of(key)
        if kind is None:
            raise ConfigError(f"{place}: there is no such setting.{_nearest(spelled)}")
        try:
            parsed = kind.parse_text(value) if text else kind.parse(value)
        except ConfigError as error:
            if key not in TABLES:
                raise ConfigError(f"{place}: expected {kind.expected}, got {value!r}") from None
            raise ConfigError(f"{place.removesuffix(key)}{TABLES[key]}{error}") from None
        except (ValueError, OverflowError):
            raise ConfigError(f"{place}: expected {kind.expected}, got {value!r}") from None
        if key == "caching.cache_dir":
            key = "caching.url"
            parsed = sqlite_url(os.path.join(self.folder, parsed, DATABASE))
        elif key == "caching.url":
            parsed = anchored(parsed, self.folder)
        if self.values.setdefault(key, parsed) != parsed:
            raise ConfigError(f"{place}: contradicts {self.places[key]}; keep one of them")
        self.places[key] = place


def _from_file(path: str, table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    layer = _Layer(project_folder(path))
    for key, value in _leaves(table):
        layer.add(key, value, place=f"{path}: {key}")
    return layer.values, dict.fromkeys(layer.values, path)


def _leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = prefix + name
        if name.startswith("_"):
            continue  # JSON has no comments: such keys are used for them
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, dict) and (key in KEYS or key in ("types", "savings.tokens")):
            continue
        else:
            yield key, value


def _from_environment(
    environ: Mapping[str, str], *, known: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    layer = _Layer(_working_folder())
    for name in sorted(environ):
        key = _SHORT_NAMES.get(name)
        if key is None:
            if not name.startswith("MEMOLEO_"):
                continue
            section, double, rest = name.removeprefix("MEMOLEO_").lower().partition("__")
            if not double:
                _check_short_name(name)
                continue
            key = _known_spelling(f"{section}.{rest.replace('__', '.')}", known)
        if environ[name].strip():
            layer.add(key, environ[name], place=f"environment variable {name}", text=True)
    return layer.values, layer.places


def _check_short_name(name: str) -> None:
    """Refuse what looks like a misspelled switch; other programs may own other names."""
    from difflib import get_close_matches

    known = [*_SHORT_NAMES, "MEMOLEO_CONFIG"]
    match = get_close_matches(name, known, n=1, cutoff=0.87)
    if match and match[0] != name:
        raise ConfigError(
            f"environment variable {name}: there is no such setting. Did you mean {match[0]}?"
        )


def _known_spelling(key: str, known: Mapping[str, Any]) -> str:
    """Names of types may have capitals, which environment variables don't tell."""
    canonical = _canonical(key)
    for other in known:
        if other.lower() == canonical:
            return other
    return key


def _canonical(key: str) -> str:
    key = ALIASES.get(key, key)
    if key.startswith("caching.ttl_"):
        return f"types.{key.removeprefix('caching.ttl_')}.ttl"
    return key


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    section, _, name = key.partition(".")
    if section == "types":
        return " A type has one setting, its ttl."
    if section in KEYS and name:
        candidates = [f"{section}.{other}" for other in KEYS[section]]
    else:
        candidates = [*ALIASES, *KEYS, "types"]
        candidates += [f"{other}.{name}" for other in KEYS for name in KEYS[other]]
    match = get_close_matches(key, candidates, n=1, cutoff=0.5)
    if not match and not name:
        match = [candidate for candidate in candidates if candidate.endswith(f".{key}")]
    if match:
        return f" Did you mean {match[0]}?"
    return f" Sections: {', '.join([*KEYS, 'types'])}."
