"""Classes and functions of a program, cached where they stand while somebody wants it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import msgspec

from memoleo._cache.cache import Cache
from memoleo._events import extras
from memoleo._platform.forks import RenewedLock
from memoleo.config._targets import Target
from memoleo.errors import ConfigError
from memoleo.patches._holders import rebind, unreachable
from memoleo.patches._imports import forget_import, initializing, on_import
from memoleo.patches._patch import Patch
from memoleo.patches._places import is_module, nearest, nearest_module, places
from memoleo.patches._standins import StandIn, stand_in
from memoleo.patches._telling import tell

__all__ = ["TargetAnswers", "Targets"]


class TargetAnswers(msgspec.Struct, frozen=True):
    """What one `enable` wants.

    Parameters
    ----------
    targets
        the targets
    cache
        the cache; `None` for the default one, looked up at each call
    strict
        whether a target that leads nowhere is an error
    """

    targets: tuple[Target, ...]
    cache: Cache | None = None
    strict: bool = False


class _Wish(msgspec.Struct, frozen=True):
    """One target of one `enable`."""

    target: Target
    cache: Cache | None
    strict: bool


class _Site:
    """An attribute that is replaced."""

    def __init__(self, parent: type | ModuleType, name: str) -> None:
        self.parent = parent
        self.name = name
        self.inner: StandIn | None = None
        self.wish: _Wish | None = None
        self.patch = Patch(parent, name, self._wrap, static=True)

    def _wrap(self, found: Any) -> Any:
        owner = self.parent if isinstance(self.parent, type) else None
        made, self.inner = stand_in(found, owner, self.name)
        return made

    def turn(self, wish: _Wish | None) -> None:
        """Answer as somebody wishes, or put back what stood there."""
        if wish is None:
            if self.inner is not None:
                self.inner.use(None)
            self.patch.restore()
        else:
            before = self.inner
            self.patch.apply()
            assert self.inner is not None
            if self.inner is before and wish == self.wish:
                return
            try:
                self.inner.use(wish.target, wish.cache)
            except BaseException:
                self.patch.restore()
                raise
        self.wish = wish

    def __str__(self) -> str:
        if isinstance(self.parent, ModuleType):
            return f"{self.parent.__name__}:{self.name}"
        return f"{self.parent.__module__}:{self.parent.__qualname__}.{self.name}"


class Targets:
    """All that is replaced at present."""

    def __init__(self) -> None:
        self._stack: tuple[TargetAnswers, ...] = ()
        self._sites: dict[tuple[int, str], _Site] = {}
        self._awaited: set[str] = set()
        self._lock = RenewedLock()

    def turn(self, stack: Sequence[TargetAnswers]) -> None:
        """Replace what these want, the last one deciding, and put back all else.

        Raises
        ------
        ConfigError
            a target leads nowhere, and is meant strictly
        """
        with self._lock:
            before = self._stack
            self._stack = tuple(stack)
            if self._stack == before:
                return
            new = [each for each in self._stack if not any(each is old for old in before)]
            self._await()
            wanted: dict[tuple[int, str], tuple[Any, str, _Wish]] = {}
            problems: list[tuple[bool, str]] = []
            for answers in self._stack:
                for target in answers.targets:
                    wish = _Wish(target, answers.cache, answers.strict)
                    found, said = self._resolved(target, list(sys.modules.values()))
                    wanted.update(
                        {(id(parent), name): (parent, name, wish) for parent, name in found}
                    )
                    if said and any(answers is each for each in new):
                        problems.append((answers.strict, said))
            strict = [said for is_strict, said in problems if is_strict]
            if strict:
                raise ConfigError("; ".join(strict))
            self._settle(wanted)
        for _, said in problems:
            tell(said, extras("not_patched"))

    def _await(self) -> None:
        """Wait for the imports of all modules that a target may mean."""
        wanted = {
            "*" if any(char in parts[-1] for char in "*?[") else parts[-1]
            for answers in self._stack
            for target in answers.targets
            for parts, _ in target.splits
        }
        for last in wanted - self._awaited:
            on_import(last, self._imported)
        for last in self._awaited - wanted:
            forget_import(last, self._imported)
        self._awaited = wanted

    def _imported(self, module: ModuleType) -> None:
        """Replace what is wanted of a module that has just been imported."""
        with self._lock:
            wanted: dict[tuple[int, str], tuple[Any, str, _Wish]] = {}
            problems = []
            for answers in self._stack:
                for target in answers.targets:
                    found, said = self._resolved(target, [module], fresh=True)
                    wish = _Wish(target, answers.cache, answers.strict)
                    wanted.update(
                        {(id(parent), name): (parent, name, wish) for parent, name in found}
                    )
                    if said and answers.strict:
                        raise ConfigError(said)
                    if said:
                        problems.append(said)
            kept = {key: site.wish for key, site in self._sites.items() if site.wish is not None}
            everything = {
                key: (self._sites[key].parent, self._sites[key].name, wish)
                for key, wish in kept.items()
            }
            problems += self._settle({**everything, **wanted}, look=False)
        for said in problems:
            tell(said, extras("not_patched"))

    def _resolved(
        self, target: Target, modules: Iterable[Any], *, fresh: bool = False
    ) -> tuple[list[tuple[Any, str]], str]:
        """Return where a target leads, and what is wrong with it."""
        seen: list[tuple[ModuleType, Sequence[str]]] = []
        found: list[tuple[Any, str]] = []
        for parts, names in target.splits:
            for module in modules:
                if is_module(module, parts) and (fresh or not initializing(module)):
                    seen.append((module, names))
                    found += places(module, names)
        exact = ":" in target.path
        if found:
            files = {getattr(module, "__file__", None) for module, _ in seen}
            own = [m for m, _ in seen if m.__name__ == target.path.partition(":")[0]]
            if len(files) > 1 and not own and exact and not _is_wild(target):
                where = ", ".join(sorted(map(str, files)))
                return [], f"{target.path} could mean modules in {where}: nothing was patched"
            return found, ""
        if seen and (exact or not fresh):
            module, first = seen[0]
            near = nearest(module, first)
            path = target.path.partition(":")[0] if exact else module.__name__
            meant = f" Did you mean {path}:{near}?" if near else ""
            return [], f"{target.path} leads nowhere: {module.__name__} has no such name.{meant}"
        if not seen and not fresh and exact:
            close = nearest_module(target.splits[0][0])
            if close is not None:
                meant = f" Did you mean {close}:{target.path.partition(':')[2]}?" if close else ""
                return [], (
                    f"{target.path}: there is no such module yet; it is patched if it is "
                    f"imported.{meant}"
                )
        return [], ""

    def _settle(
        self, wanted: dict[tuple[int, str], tuple[Any, str, _Wish]], *, look: bool = True
    ) -> list[str]:
        """Bring all attributes in line; return what can't be."""
        problems = []
        undone: dict[int, Any] = {}
        for key in [key for key in self._sites if key not in wanted]:
            site = self._sites.pop(key)
            if site.inner is not None and isinstance(site.parent, ModuleType):
                undone[id(site.inner)] = site.inner.__memoleo_wrapped__
            site.turn(None)
        new = [key for key in wanted if key not in self._sites]
        held = unreachable(_function(*wanted[key][:2]) for key in new) if look and new else []
        plain = {key: _function(*wanted[key][:2]) for key in new}
        done: dict[int, Any] = {}
        for key, (parent, name, wish) in wanted.items():
            site = self._sites.get(key) or _Site(parent, name)
            try:
                site.turn(wish)
            except ConfigError as error:
                if wish.strict:
                    raise ConfigError(f"{site} {error}") from None
                problems.append(f"{site} {error}")
            except Exception as error:
                if wish.strict:
                    raise ConfigError(f"{site} can't be replaced: {error!r}") from error
                problems.append(f"{site} can't be replaced: {error!r}")
            else:
                self._sites[key] = site
                if key in plain and isinstance(parent, ModuleType):
                    done[id(plain[key])] = site.inner
        rebind({**undone, **done})
        problems += [f"{each}; calls that go there are not answered" for each in held]
        if look:
            for said in problems:
                tell(said, extras("not_patched"))
            return []
        return problems


def _is_wild(target: Target) -> bool:
    return any(char in target.path.partition(":")[0] for char in "*?[")


def _function(parent: Any, name: str) -> Any:
    found = vars(parent).get(name)
    return getattr(found, "__func__", found)
