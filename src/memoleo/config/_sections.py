"""What settings say, once they are read: a frozen record a section, and one of all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from memoleo.config._targets import Target
    from memoleo.http_rules._rule import Rule

__all__ = [
    "DEFAULT_TTL",
    "Inference",
    "Leo",
    "MetricsSettings",
    "Networking",
    "Ollama",
    "Savings",
    "Settings",
    "Workers",
]

DEFAULT_TTL = 30 * 86400.0


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


def _flat(prefix: str, table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value
