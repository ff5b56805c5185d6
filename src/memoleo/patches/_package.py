"""What `enable` knows of each package that it can patch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from memoleo._cache.cache import Cache
from memoleo.config._sections import Settings

__all__ = ["Package"]


class Package(Protocol):
    """One row of the table of packages.

    Attributes
    ----------
    name
        the word that `enable` is given
    options
        the keywords of `enable` that are meant for this package
    """

    name: str
    options: frozenset[str]

    def wanted(self, settings: Settings) -> bool:
        """Whether `enable` without names means this package too."""
        ...

    def answers(
        self, cache: Callable[[], Cache], settings: Settings, options: Mapping[str, Any]
    ) -> Any:
        """Return what answers the calls of one `enable`.

        Parameters
        ----------
        cache
            returns the cache, at each call
        settings
            those in force while it is enabled
        options
            those keywords of `enable` that are meant for this package

        Raises
        ------
        ConfigError
            an option or a setting is wrong
        """

    def turn(self, stack: Sequence[Any]) -> None:
        """Patch the package, or put it back, so that these answer: the last one goes first.

        Parameters
        ----------
        stack
            what `answers` returned, for each `enable` that is in force; empty to put it back

        Raises
        ------
        ConfigError
            the installed package can't be patched; it is left as it was
        """
