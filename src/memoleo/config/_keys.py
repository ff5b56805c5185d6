"""Which settings there are, and what each of them expects."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from memoleo._units import parse_duration
from memoleo.errors import ConfigError

__all__ = ["ALIASES", "KEYS", "TABLES", "Kind", "kind_of"]


class Kind(msgspec.Struct, frozen=True):
    """What a setting expects.

    Parameters
    ----------
    expected
        the end of the sentence "expected …"
    parse
        returns the value; raises `ValueError` if it is not what is expected
    parse_text
        the same from the text of an environment variable
    """

    expected: str
    parse: Callable[[Any], Any]
    parse_text: Callable[[str], Any]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _boolean_text(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        raise ValueError from None
    if number < 0 or not isfinite(number):
        raise ValueError
    return number


def _fraction(value: Any) -> float:
    if _number(value) > 1:
        raise ValueError
    return float(value)


def _at_least(least: int) -> Kind:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        return value

    return Kind(f"a whole number, {least} or more", parse, lambda text: parse(int(text)))


def _duration_text(text: str) -> float:
    try:
        return parse_duration(float(text))
    except (ConfigError, ValueError):
        return parse_duration(text)


def _milliseconds(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError
    return tuple(_number(item) for item in value)


def _milliseconds_text(text: str) -> tuple[float, ...]:
    return _milliseconds([float(item) for item in text.strip("[] ").split(",")])


def _one_of(*words: str) -> Kind:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value.strip().lower() not in words:
            raise ValueError
        return value.strip().lower()

    *others, last = (f'"{word}"' for word in words)
    return Kind(f"{', '.join(others)} or {last}", parse, parse)


def _either(one: Kind, other: Kind) -> Kind:
    def parse(value: Any, name: str) -> Any:
        try:
            return getattr(one, name)(value)
        except (ConfigError, ValueError):
            return getattr(other, name)(value)

    return Kind(
        f"{one.expected}, or {other.expected}",
        lambda value: parse(value, "parse"),
        lambda text: parse(text, "parse_text"),
    )


def _plain(value: Any) -> Any:
    if not isinstance(value, (str, bool, int, float, list)):
        raise ValueError
    return value


def _table(value: Any) -> Any:
    if value != {}:
        raise ValueError
    return value


def _plain_text(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.strip().lower(), text)


BOOLEAN = Kind("true or false", _boolean, _boolean_text)
TEXT = Kind("text", _string, _string)
SECONDS = Kind("a number of seconds, 0 or more", _number, lambda text: _number(float(text)))
NUMBER = Kind("a number, 0 or more", _number, lambda text: _number(float(text)))
FRACTION = Kind("a number from 0 to 1", _fraction, lambda text: _fraction(float(text)))
DURATION = Kind(
    'seconds, or text such as "90s", "24h", "30d" or "forever"', parse_duration, _duration_text
)


def _rules(value: Any) -> tuple[Any, ...]:
    from memoleo.http_rules._presets import rules_of

    return rules_of(value)


def _targets(value: Any) -> tuple[Any, ...]:
    from memoleo.config._targets import targets_of

    return targets_of(value)


def _no_text(text: str) -> Any:
    raise ValueError


RULES = Kind('a list of tables with "method" and "url", in a file', _rules, _no_text)
TARGETS = Kind('a list of tables with a "path", in a file', _targets, _no_text)
DELAYS = Kind("a list of milliseconds such as [100, 300, 900]", _milliseconds, _milliseconds_text)

TABLE = Kind("a table of settings", _table, _table)
PLAIN = Kind("a number, text, a list, true or false", _plain, _plain_text)

KEYS: dict[str, dict[str, Kind]] = {
    "caching": {
        "enabled": BOOLEAN,
        "url": TEXT,
        "cache_dir": TEXT,
        "ttl": DURATION,
        "explain": _one_of("digests", "previews", "off"),
        "verify": FRACTION,
        "verify_per_minute": NUMBER,
    },
    "inference": {
        "num_threads": _at_least(1),
        "num_ctx": _at_least(1),
        "text_max_new_tokens_stage1": _at_least(1),
        "text_max_new_tokens_stage2": _at_least(1),
        "vision_max_tokens": _at_least(1),
        "temperature_stage1": NUMBER,
        "temperature_stage2": NUMBER,
    },
    "networking": {
        "max_concurrent_requests": _at_least(1),
        "per_host_limit": _at_least(1),
        "timeout_connect": SECONDS,
        "timeout_read": SECONDS,
        "retry_attempts": _at_least(1),
        "retry_backoff_ms": DELAYS,
        "retry_budget": _at_least(0),
        "retry_budget_per_second": NUMBER,
        "breaker_failures": _at_least(1),
        "breaker_open_for": SECONDS,
        "breaker_probes": _at_least(1),
    },
    "workers": {
        "image_worker_poll_ms": _at_least(0),
        "enrichment_worker_poll_ms": _at_least(0),
        "song_worker_concurrency": _at_least(1),
    },
    "ollama": {
        "base_url": TEXT,
        "text_model": TEXT,
        "vision_model": TEXT,
        "keep_alive": DURATION,
        "num_parallel": _at_least(1),
        "profiles": BOOLEAN,
        "retries": _either(BOOLEAN, _at_least(1)),
        "timeout": _either(BOOLEAN, DURATION),
    },
    "leo": {
        "hybrid_scorer": TEXT,
        "post_enricher": TEXT,
    },
    "metrics": {
        "persist": BOOLEAN,
        "interval": DURATION,
    },
    "http": {
        "rules": RULES,
    },
    "savings": {
        "currency": TEXT,
        "compute_per_hour": NUMBER,
        "watts": NUMBER,
        "price_per_kwh": NUMBER,
    },
}
"""Section → key → what it expects.

Types have a section each, ``types.<name>``, with a `ttl`; ``savings.tokens.<pattern>`` is a price;
what is in ``ollama.profiles.<name>`` and ``ollama.policies.<name>`` is checked where it is used.
"""

TABLES = {"http.rules": "http.", "targets": ""}
"""Keys that hold tables, and what goes before the place inside them that an error names."""

ALIASES = {"enabled": "caching.enabled"}
"""Other spellings of a key; ``caching.ttl_<type>`` is one of ``types.<type>.ttl``."""


def kind_of(key: str) -> Kind | None:
    """Return what the setting `key` expects; `None` if there is no such setting."""
    section, _, name = key.partition(".")
    if key == "targets":
        return TARGETS
    if section == "types":
        return DURATION if name.endswith(".ttl") and len(name) > len(".ttl") else None
    if section == "ollama" and name.startswith(("profiles.", "policies.")):
        _, *parts = name.split(".")
        if len(parts) == 3 and parts[1] != "options":
            return None
        return (TABLE, PLAIN, PLAIN)[len(parts) - 1] if all(parts) and len(parts) < 4 else None
    if section == "savings" and name.startswith("tokens."):
        return NUMBER if len(name) > len("tokens.") else None
    return KEYS.get(section, {}).get(name)
