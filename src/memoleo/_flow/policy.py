"""The frozen settings of one kind of cached call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import msgspec

from memoleo._units import Duration, parse_duration
from memoleo.codecs._protocol import Codec
from memoleo.errors import ConfigError

__all__ = ["Freshness", "Policy", "make_policy", "tag_names"]


class Policy(msgspec.Struct, frozen=True):
    """How the results of one kind of call are stored and served.

    Parameters
    ----------
    type
        the category
    ttl
        seconds for which an entry is fresh; 0 never stores, infinity never expires, `None` takes
        what the cache has for the type
    stale_while_revalidate
        seconds past the TTL in which an entry is served at once while one refresh runs
        (RFC 5861, section 3)
    stale_if_error
        seconds past the TTL in which an entry is served if the call fails (RFC 5861, section 4)
    variants
        how many different results are kept for one key and served in turn
    cache_if
        whether a result is stored
    tags
        names for clearing in groups
    codec
        what encodes the results; `None` takes the cache's codec
    label
        what computes the result, for people: a qualified name
    tokens
        how many tokens a model read and wrote for a result
    provider, operation
        whom a model is asked and what for, by OpenTelemetry's conventions for generative AI,
        such as "ollama" and "chat"; `label` is then the model's name. Empty for other calls
    essence
        what of a result is compared when it is computed again; `None` for all of it
    repeatable
        whether a call may be made again only to compare its result

    Attributes
    ----------
    keep
        how many seconds past its TTL an entry can be of use
    """

    type: str = "default"
    ttl: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    variants: int = 1
    cache_if: Callable[[Any], bool] | None = None
    tags: tuple[str, ...] = ()
    codec: Codec | None = None
    label: str = ""
    tokens: Callable[[Any], tuple[int, int]] | None = None
    provider: str = ""
    operation: str = ""
    essence: Callable[[Any], Any] | None = None
    repeatable: bool = True

    keep: float = 0.0

    def __post_init__(self) -> None:
        # Worked out once: every entry that is stored carries it.
        keep = max(self.stale_while_revalidate, self.stale_if_error)
        msgspec.structs.force_setattr(self, "keep", keep)


def _is_unicode(text: str) -> bool:
    """Whether a text has no halves of surrogate pairs: keys and stores have no bytes for these."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def make_policy(
    type: str = "default",
    ttl: Duration | None = None,
    cache_if: Callable[[Any], bool] | None = None,
    tags: Iterable[str] = (),
    stale_while_revalidate: Duration | None = None,
    stale_if_error: Duration | None = None,
    variants: int = 1,
) -> Policy:
    """Return the policy that users' arguments describe.

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    if not isinstance(type, str) or not type or not _is_unicode(type):
        raise ConfigError(f"type={type!r} is not the name of a category")
    if cache_if is not None and not callable(cache_if):
        raise ConfigError(f"cache_if={cache_if!r} is not callable: give f(result) -> bool")
    if isinstance(variants, bool) or not isinstance(variants, int) or not 1 <= variants <= 255:
        raise ConfigError(f"variants={variants!r} is not a number from 1 to 255")
    return Policy(
        type=type,
        ttl=None if ttl is None else parse_duration(ttl),
        stale_while_revalidate=parse_duration(
            stale_while_revalidate or 0, "stale_while_revalidate"
        ),
        stale_if_error=parse_duration(stale_if_error or 0, "stale_if_error"),
        variants=variants,
        cache_if=cache_if,
        tags=tag_names(tags),
    )


def tag_names(tags: Any) -> tuple[str, ...]:
    """Return tags as entries carry them.

    Raises
    ------
    ConfigError
        they are no strings, or a single one where several are expected
    """
    names = tuple(tags) if isinstance(tags, Iterable) and not isinstance(tags, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"tags={tags!r}: give strings, or f(bound_arguments, result) -> strings")
    return names


class Freshness(msgspec.Struct, frozen=True):
    """What may be done with an entry of a given age.

    Parameters
    ----------
    ttl
        seconds for which it is fresh
    policy
        the windows in which it is served stale
    """

    ttl: float
    policy: Policy

    def fresh(self, created: float, now: float) -> bool:
        """Whether an entry is fresh.

        One from the future was written before the clock was set back; how old it is can't be
        known, so only an entry that never expires is fresh then.
        """
        return 0.0 <= now - created < self.ttl or self.ttl == inf

    def revalidates(self, created: float, now: float) -> bool:
        """Whether it is served at once although it is stale, while one refresh runs."""
        return 0.0 <= now - created < self.ttl + self.policy.stale_while_revalidate

    def excuses(self, created: float, now: float) -> bool:
        """Whether it is served although it is stale if the call fails."""
        return 0.0 <= now - created < self.ttl + self.policy.stale_if_error
