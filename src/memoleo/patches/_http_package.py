"""What the packages of HTTP libraries have in common; see `Package`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from memoleo._cache.cache import Cache
from memoleo._platform.forks import RenewedLock
from memoleo.config._sections import Settings
from memoleo.patches._imports import when_imported
from memoleo.patches._patch import Patch

if TYPE_CHECKING:
    from memoleo._exchanges.exchanges import Exchanges
    from memoleo.patches._http_stack import Stack

__all__ = ["HttpPackage"]


class HttpPackage:
    """A library, patched while somebody wants it.

    What answers is imported once it is wanted: programs without rules don't pay for it.
    """

    name = ""
    options = frozenset({"rules"})

    def __init__(self) -> None:
        self._stack: Stack | None = None
        self._patches: list[Patch] = []
        self._lock = RenewedLock()
        self._unhook: Callable[[], None] | None = None

    def failures(self) -> tuple[type[BaseException], ...]:
        """Return what the library raises when a host can't be reached."""
        raise NotImplementedError

    def patches(self, package: ModuleType, stack: Stack) -> list[Patch]:
        """Return what is to be replaced in the library."""
        raise NotImplementedError

    def wanted(self, settings: Settings) -> bool:
        """See `Package.wanted`."""
        return bool(settings.http_rules)

    def answers(
        self, cache: Callable[[], Cache], settings: Settings, options: Mapping[str, Any]
    ) -> Exchanges:
        """See `Package.answers`."""
        from memoleo.patches._http_stack import exchanges_for

        return exchanges_for(cache, settings, options, self.failures)

    def turn(self, stack: Sequence[Exchanges]) -> None:
        """See `Package.turn`."""
        if self._stack is None:
            if not stack:
                return
            from memoleo.patches._http_stack import Stack

            self._stack = Stack()
        self._stack.use(stack)
        if not stack:
            if self._unhook is not None:
                self._unhook()
                self._unhook = None
            with self._lock:
                for patch in reversed(self._patches):
                    patch.restore()
        elif self._unhook is None:
            self._unhook = when_imported(self.name, self._imported)
        elif self._patches and self.name in sys.modules:
            self._imported(sys.modules[self.name])

    def _imported(self, package: ModuleType) -> None:
        with self._lock:
            if self._stack is None or self._stack.empty:
                return
            if not self._patches:
                self._patches = self.patches(package, self._stack)
            for patch in self._patches:
                patch.apply()
