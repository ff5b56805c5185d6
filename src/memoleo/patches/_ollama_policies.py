"""Policies: under which type, for how long and whether at all an answer is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from memoleo._flow.policy import make_policy
from memoleo._units import parse_duration
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._ollama_matching import Match, make_match
from memoleo.patches._ollama_request import VERBS

__all__ = ["Decision", "Policies", "is_sampled", "make_policies"]

_SAMPLING = ("/api/chat", "/api/generate")
_UNSEEDED = ("store", "skip")


class Decision(msgspec.Struct, frozen=True):
    """What holds for one call.

    Parameters
    ----------
    type
        the category of its answer
    ttl
        seconds for which it is fresh; `None` takes what the cache has for the type
    unseeded
        "store" or "skip", for a call that samples without a seed; `None` where nothing is said
    variants
        how many answers to such a call are kept and served in turn
    stale_if_error
        seconds past its TTL in which an answer is served if the call fails
    sampled
        whether it is such a call
    """

    type: str
    ttl: float | None = None
    unseeded: str | None = None
    variants: int = 1
    stale_if_error: float = 0.0
    sampled: bool = False

    @property
    def stored(self) -> bool:
        """Whether its answer is kept."""
        return not (self.sampled and self.unseeded == "skip")


class _Rule(msgspec.Struct, frozen=True):
    match: Match
    type: str | None = None
    ttl: float | None = None
    unseeded: str | None = None
    variants: int | None = None
    stale_if_error: float | None = None


class Policies:
    """Rules, of which the first that is meant and says something decides each setting.

    Parameters
    ----------
    rules
        in their order
    """

    def __init__(self, rules: tuple[_Rule, ...] = ()) -> None:
        self._rules = rules
        self.looks_inside = any(
            rule.match.when is not None or rule.unseeded == "skip" or (rule.variants or 1) > 1
            for rule in rules
        )

    def decide(self, path: str, body: dict[str, Any]) -> Decision:
        """Return what holds for a call.

        Parameters
        ----------
        path
            of the API
        body
            what is sent
        """
        type = VERBS[path].type
        sampled = path in _SAMPLING and is_sampled(body)
        meant = [rule for rule in self._rules if rule.match.holds(path, type, body)]
        said = {
            name: next(
                (value for rule in meant if (value := getattr(rule, name)) is not None), None
            )
            for name in ("type", "ttl", "unseeded", "variants", "stale_if_error")
        }
        return Decision(
            said["type"] or type,
            said["ttl"],
            said["unseeded"],
            (said["variants"] or 1) if sampled else 1,
            said["stale_if_error"] or 0.0,
            sampled,
        )


def is_sampled(body: dict[str, Any]) -> bool:
    """Whether the same request may get another answer next time.

    That is so without a seed, unless the model always takes the likeliest token. A Modelfile may
    say so too, which can't be seen here.
    """
    options = body.get("options")
    if not isinstance(options, dict):
        return True
    seed, temperature = options.get("seed"), options.get("temperature")
    if isinstance(seed, (int, float)) and seed >= 0:
        return False
    if isinstance(temperature, (int, float)) and temperature <= 0:
        return False
    return options.get("top_k") != 1


def make_policies(given: Any, settings: Settings) -> Policies:
    """Return the policies that a user asked for.

    Parameters
    ----------
    given
        the settings of each by its name; `None` for none. Those of the config come after them
    settings
        for the section ``ollama``

    Raises
    ------
    ConfigError
        a name or a value is wrong
    """
    named: dict[Any, Any] = dict(settings.ollama.policies)
    if given is not None:
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"policies={given!r}: give the settings of each policy by a name of your own, "
                'such as {"scores": {"model": "qwen*", "ttl": "7d"}}'
            )
        named = {**given, **{name: each for name, each in named.items() if name not in given}}
    file = "" if settings.file is None else f"{settings.file}: "
    own = () if given is None else given
    return Policies(
        tuple(
            _rule(each, f"{'' if name in own else file}policy {name!r}")
            for name, each in named.items()
        )
    )


def _rule(given: Any, where: str) -> _Rule:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected its settings by name, got {given!r}")
    own = dict(given)
    match = make_match(own, where, typed=False)
    kept = {key: own.pop(key, None) for key in ("type", "ttl", "unseeded", "variants",
                                                "stale_if_error")}  # fmt: skip
    if own:
        raise ConfigError(
            f"{where}: there is no setting {next(iter(own))!r}; known: verb, model, when, "
            f"{', '.join(kept)}"
        )
    if kept["unseeded"] is not None and kept["unseeded"] not in _UNSEEDED:
        raise ConfigError(f'{where}: unseeded={kept["unseeded"]!r}: expected "store" or "skip"')
    if kept["unseeded"] == "skip" and kept["variants"] is not None:
        raise ConfigError(f"{where}: answers that are skipped have no variants; keep one of them")
    try:
        make_policy(
            "default" if kept["type"] is None else kept["type"],
            kept["ttl"],
            variants=1 if kept["variants"] is None else kept["variants"],
            stale_if_error=kept["stale_if_error"],
        )
        for key in ("ttl", "stale_if_error"):
            if kept[key] is not None:
                kept[key] = parse_duration(kept[key], key)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return _Rule(match, **kept)
