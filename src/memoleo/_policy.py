"""The frozen settings of one kind of cached call."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import msgspec

from memoleo.codecs._protocol import Codec

__all__ = ["Freshness", "Policy"]


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
        how many tokens a result cost
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
    tokens: Callable[[Any], int] | None = None

    @property
    def keep(self) -> float:
        """How many seconds past its TTL an entry can be of use."""
        return max(self.stale_while_revalidate, self.stale_if_error)


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
