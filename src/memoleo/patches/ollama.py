"""The official ollama client, answered from a cache.

Every method of the client ends in ``Client._request`` or ``AsyncClient._request``, looked up at
each call: whoever holds a client, a bound method or a function of the module comes by there. It
is private, so its shape is checked before it is replaced.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

from memoleo._cache.cache import Cache
from memoleo._platform.forks import RenewedLock
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._imports import when_imported
from memoleo.patches._ollama_answers import Answers
from memoleo.patches._ollama_hits import ABSENT
from memoleo.patches._ollama_rules import OPTIONS, make_rules
from memoleo.patches._ollama_sending import BELOW
from memoleo.patches._patch import Patch

__all__ = ["OllamaPackage", "is_client", "wrapped_client"]

_KNOWN = "0.4.5 to 0.6"
"""The versions of the package that the tests run with, the oldest and the newest."""

_SEAMS = (("Client", False), ("AsyncClient", True))
_RAW = "_request_raw"
_REQUEST = "_request"


class OllamaPackage:
    """The classes of the ollama package, patched while somebody wants it; see `Package`."""

    name = "ollama"
    options = OPTIONS

    def __init__(self) -> None:
        self.current: Answers | None = None
        self._patches: list[Patch] = []
        self._lock = RenewedLock()
        self._unhook: Callable[[], None] | None = None

    def wanted(self, settings: Settings) -> bool:
        """See `Package.wanted`."""
        return True

    def answers(
        self, cache: Callable[[], Cache], settings: Settings, options: Mapping[str, Any]
    ) -> Answers:
        """See `Package.answers`."""
        return Answers(cache, make_rules(options, settings))

    def turn(self, stack: Sequence[Answers]) -> None:
        """See `Package.turn`."""
        before, self.current = self.current, stack[-1] if stack else None
        if self.current is None:
            self._restore()
            return
        try:
            if self._unhook is None:
                self._unhook = when_imported("ollama", self._imported)
            elif self._patches and "ollama" in sys.modules:
                self._imported(sys.modules["ollama"])
        except BaseException:
            self.current = before
            raise

    def _imported(self, package: ModuleType) -> None:
        with self._lock:
            if self.current is None:
                return
            check(package)
            if not self._patches:
                for name, is_async in _SEAMS:
                    cls = getattr(package, name)
                    self._patches.append(Patch(cls, _REQUEST, self._wrap(is_async)))
                    if hasattr(cls, _RAW):
                        self._patches.append(Patch(cls, _RAW, self._watch(is_async)))
            for patch in self._patches:
                patch.apply()

    def _restore(self) -> None:
        if self._unhook is not None:
            self._unhook()
            self._unhook = None
        with self._lock:
            for patch in reversed(self._patches):
                patch.restore()

    def _wrap(self, is_async: bool) -> Callable[[Any], Callable[..., Any]]:
        def wrap(original: Any) -> Callable[..., Any]:
            return _request(original, lambda: self.current, is_async=is_async)

        return wrap

    def _watch(self, is_async: bool) -> Callable[[Any], Callable[..., Any]]:
        def wrap(original: Any) -> Callable[..., Any]:
            return _raw(original, lambda: self.current, is_async=is_async)

        return wrap


Current = Callable[[], "Answers | None"]


def _request(original: Any, current: Current, *, is_async: bool) -> Callable[..., Any]:
    """Return what stands in for ``_request``."""
    if is_async:

        @wraps(original)
        async def arequest(self: Any, *args: Any, **kwargs: Any) -> Any:
            answers = current()
            if answers is None:
                return await original(self, *args, **kwargs)
            if answers.fills:
                kwargs = answers.filled(self, args, kwargs)
            found = answers.hits.find(self, args, kwargs)
            if found is not ABSENT:
                return found
            return await answers.arequest(original, self, args, kwargs)

        return _marked(arequest, original)

    @wraps(original)
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        answers = current()
        if answers is None:
            return original(self, *args, **kwargs)
        if answers.fills:
            kwargs = answers.filled(self, args, kwargs)
        found = answers.hits.find(self, args, kwargs)
        if found is not ABSENT:
            return found
        return answers.request(original, self, args, kwargs)

    return _marked(request, original)


def _marked(seam: Any, original: Any) -> Callable[..., Any]:
    setattr(seam, BELOW, (seam, lambda: original))
    marked: Callable[..., Any] = seam
    return marked


def _raw(original: Any, current: Current, *, is_async: bool) -> Callable[..., Any]:
    """Return what stands in for ``_request_raw``: it only watches for changes of models."""
    if is_async:

        @wraps(original)
        async def arequest_raw(self: Any, *args: Any, **kwargs: Any) -> Any:
            answers = current()
            if answers is None or not answers.changes_models(args):
                return await original(self, *args, **kwargs)
            with answers.changing(self):
                return await original(self, *args, **kwargs)

        return arequest_raw

    @wraps(original)
    def request_raw(self: Any, *args: Any, **kwargs: Any) -> Any:
        answers = current()
        if answers is None or not answers.changes_models(args):
            return original(self, *args, **kwargs)
        with answers.changing(self):
            return original(self, *args, **kwargs)

    return request_raw


def check(package: ModuleType) -> None:
    """Make sure that the installed client is one that this module knows.

    Raises
    ------
    ConfigError
        it isn't
    """
    for name, is_async in _SEAMS:
        try:
            seam = inspect.getattr_static(getattr(package, name), _REQUEST)
            inspect.signature(seam).bind(None, dict, "POST", "/api/chat", json={}, stream=False)
            # Who has patched it already may pass the coroutine on from a plain function.
            foreign = getattr(seam, "__module__", None) != "ollama._client"
            fits = foreign or inspect.iscoroutinefunction(seam) is is_async
        except (AttributeError, TypeError, ValueError):
            fits = False
        if not fits:
            from importlib.metadata import PackageNotFoundError, version

            try:
                found = version("ollama")
            except PackageNotFoundError:
                found = "that is installed"
            raise ConfigError(
                f"ollama {found} can't be patched: {name}.{_REQUEST} is not what it was in the "
                f"versions that memoleo knows ({_KNOWN}). Nothing was changed; install one of "
                "those, or cache your own functions with memoleo.content_cached"
            )


def is_client(value: Any) -> bool:
    """Whether a value is a client of the ollama package, which may not even be imported."""
    package = sys.modules.get("ollama")
    kinds = tuple(getattr(package, name) for name, _ in _SEAMS if hasattr(package, name))
    return isinstance(value, kinds)


def wrapped_client(client: Any, answers: Answers) -> Any:
    """Return a proxy of a client that answers from a cache; the client itself is left alone.

    Raises
    ------
    ConfigError
        the installed package can't be patched
    """
    import copy

    check(sys.modules["ollama"])
    from memoleo.patches._ollama_proxy import ClientProxy

    # A proxy doesn't see what its object calls on itself, so the object is one of its own.
    own = copy.copy(client)
    kind = type(own)
    is_async = inspect.iscoroutinefunction(inspect.getattr_static(kind, _REQUEST))
    for name, make in ((_REQUEST, _request), (_RAW, _raw)):
        if hasattr(kind, name):
            seam = make(_late(kind, name), lambda: answers, is_async=is_async)
            setattr(own, name, seam.__get__(own))
    return ClientProxy(own)


def _late(kind: type, name: str) -> Callable[..., Any]:
    """Return a function that calls what stands in the class at that time."""

    @wraps(getattr(kind, name))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(kind, name)(self, *args, **kwargs)

    setattr(call, BELOW, (call, lambda: getattr(kind, name)))
    return call
