"""Files and environment → frozen settings.

Settings come from ``memoleo.toml``, ``[tool.memoleo]`` in ``pyproject.toml`` or
``config/perf_config.json``, whichever is found first from the working folder upward, or from the
file that ``MEMOLEO_CONFIG`` names. The environment goes before the file: ``MEMOLEO_ENABLED``,
``MEMOLEO_CACHE`` (a URL), and any value as ``MEMOLEO_<SECTION>__<KEY>``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from memoleo._config_files import (
    DATABASE,
    anchored,
    find_file,
    project_folder,
    read_file,
    sqlite_url,
)
from memoleo._config_keys import ALIASES, KEYS, TABLES, kind_of
from memoleo.errors import ConfigError

if TYPE_CHECKING:
    from memoleo._targets import Target
    from memoleo.http_rules._rule import Rule

__all__ = [
    "Inference",
    "Leo",
    "MetricsSettings",
    "Networking",
    "Ollama",
    "Savings",
    "Settings",
    "Workers",
    "load_settings",
]

DEFAULT_TTL = 30 * 86400.0
_SHORT_NAMES = {
    "MEMOLEO_ENABLED": "caching.enabled",
    "MEMOLEO_CACHE": "caching.url",
}


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """How a model should answer; `None` where nothing is said.

    Parameters
    ----------
    num_threads
        threads that a model may use
    num_ctx
        length of the context, in tokens
    text_max_new_tokens_stage1, text_max_new_tokens_stage2, vision_max_tokens
        the most tokens of an answer
    temperature_stage1, temperature_stage2
        sampling temperature
    """

    num_threads: int | None = None
    num_ctx: int | None = None
    text_max_new_tokens_stage1: int | None = None
    text_max_new_tokens_stage2: int | None = None
    vision_max_tokens: int | None = None
    temperature_stage1: float | None = None
    temperature_stage2: float | None = None


class Networking(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to services.

    Parameters
    ----------
    max_concurrent_requests, per_host_limit
        requests at once, in all and to one host
    timeout_connect, timeout_read
        in seconds
    retry_attempts
        calls in all, the first one included
    retry_backoff_ms
        waits between them, in milliseconds
    retry_budget
        retries that a host gets in a burst; with 0 no failure of a host is tried again
    retry_budget_per_second
        how many of them come back each second
    breaker_failures
        failures in a row after which a host's circuit opens
    breaker_open_for
        seconds for which it stays open
    breaker_probes
        calls that are let through at once after that, and successes that close it
    """

    max_concurrent_requests: int = 16
    per_host_limit: int = 6
    timeout_connect: float = 10.0
    timeout_read: float = 180.0
    retry_attempts: int = 3
    retry_backoff_ms: tuple[float, ...] = (100.0, 300.0, 900.0)
    retry_budget: int = 100
    retry_budget_per_second: float = 10.0
    breaker_failures: int = 5
    breaker_open_for: float = 30.0
    breaker_probes: int = 1


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """How workers take their jobs: polling in milliseconds, jobs at once."""

    image_worker_poll_ms: int = 500
    enrichment_worker_poll_ms: int = 500
    song_worker_concurrency: int = 4


class Ollama(msgspec.Struct, frozen=True, kw_only=True):
    """Which server and which models; `None` where nothing is said.

    Parameters
    ----------
    base_url
        address of the server
    text_model, vision_model
        names of models
    keep_alive
        how long a model stays loaded, in seconds
    num_parallel
        requests that the server works on at once
    profiles
        whether options that callers leave out are filled in, or the profiles that do so, by name
    policies
        how answers are kept, by a name
    retries
        whether failed requests are repeated, or how many attempts there are
    timeout
        whether requests are limited in time, or to how many seconds
    """

    base_url: str | None = None
    text_model: str | None = None
    vision_model: str | None = None
    keep_alive: float | None = None
    num_parallel: int | None = None
    profiles: bool | dict[str, dict[str, Any]] = False
    policies: dict[str, dict[str, Any]] = {}
    retries: bool | int = False
    timeout: bool | float = False


class Leo(msgspec.Struct, frozen=True, kw_only=True):
    """Where `memoleo.leo` finds the classes of a worker: ``package.module:Class``."""

    hybrid_scorer: str = "src.modules.hybrid_scorer:HybridScorer"
    post_enricher: str = "src.modules.post_enricher:PostEnricher"


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the numbers.

    Parameters
    ----------
    persist
        whether they are kept beside the cache, for other processes and for later
    interval
        seconds between two times that they are written down
    """

    persist: bool = True
    interval: float = 5.0


class Savings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of a cached function costs; `None` where nothing is said.

    Parameters
    ----------
    currency
        the label of amounts, such as "EUR"
    compute_per_hour
        the price of an hour of computing
    watts
        the power that computing takes
    price_per_kwh
        the price of a kilowatt-hour
    tokens
        the price of a million tokens, by a pattern that a model's name or a type of entries
        matches
    """

    currency: str = ""
    compute_per_hour: float | None = None
    watts: float | None = None
    price_per_kwh: float | None = None
    tokens: dict[str, float] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that files and environment say.

    Parameters
    ----------
    enabled
        whether anything is cached at all
    cache_url
        where the default cache lives; `None` for a file in the user's cache folder
    default_ttl
        how long entries are fresh, in seconds, unless their type or their function says otherwise
    types
        seconds per type
    explain
        what is kept of the parts of a key: "digests", "previews" or "off"
    verify
        which part of all hits is computed again and compared, from 0 to 1
    verify_per_minute
        how many that are at most, in one process
    inference, networking, workers, ollama, leo, metrics, savings
        the sections of the same names
    http_rules
        which HTTP calls are cached
    targets
        which functions and methods of the program are
    file
        the file that was read; `None` if there is none
    origins
        where each value comes from: a file, an environment variable, or "default"
    """

    enabled: bool = True
    cache_url: str | None = None
    default_ttl: float = DEFAULT_TTL
    types: dict[str, float] = {}
    explain: str = "digests"
    verify: float = 0.0
    verify_per_minute: float = 6.0
    inference: Inference = Inference()
    networking: Networking = Networking()
    workers: Workers = Workers()
    ollama: Ollama = Ollama()
    leo: Leo = Leo()
    metrics: MetricsSettings = MetricsSettings()
    savings: Savings = Savings()
    http_rules: tuple[Rule, ...] = ()
    targets: tuple[Target, ...] = ()
    file: str | None = None
    origins: dict[str, str] = {}

    def ttl_for(self, type: str) -> float | None:
        """Return the TTL that is set for `type`, in seconds; `None` if none is."""
        return self.types.get(type)

    def items(self) -> Iterator[tuple[str, Any, str]]:
        """Iterate over every setting: its key, its value, and where that comes from."""
        values: dict[str, Any] = {
            "caching.enabled": self.enabled,
            "caching.url": self.cache_url,
            "caching.ttl": self.default_ttl,
            "caching.explain": self.explain,
            "caching.verify": self.verify,
            "caching.verify_per_minute": self.verify_per_minute,
        }
        values.update((f"types.{name}.ttl", ttl) for name, ttl in self.types.items())
        for section in (
            "inference", "networking", "workers", "ollama", "leo", "metrics", "savings",
        ):  # fmt: skip
            fields = msgspec.structs.asdict(getattr(self, section))
            for table in ("profiles", "policies"):
                if isinstance(fields.get(table), dict):
                    values.update(_flat(f"{section}.{table}", fields.pop(table)))
            prices = fields.pop("tokens", {})
            values.update((f"savings.tokens.{name}", price) for name, price in prices.items())
            values.update((f"{section}.{name}", value) for name, value in fields.items())
        values["targets"] = [target.path for target in self.targets]
        values["http.rules"] = [f"{rule.method} {rule.url}" for rule in self.http_rules]
        for key, value in values.items():
            yield key, value, self.origins.get(key, "default")


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


def _flat(prefix: str, table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


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
