"""Caching for code that isn't edited: which packages, answered from which cache, for how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from memoleo import _switch
from memoleo._cache.cache import Cache
from memoleo._cache.default import get_cache
from memoleo._platform.forks import RenewedLock
from memoleo._units import Duration
from memoleo.config import _settings
from memoleo.config._load import load_settings
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._ollama_answers import Answers
from memoleo.patches._ollama_rules import make_rules
from memoleo.patches._package import Package
from memoleo.patches.httpx import HttpxPackage
from memoleo.patches.ollama import OllamaPackage, is_client, wrapped_client
from memoleo.patches.requests import RequestsPackage

if TYPE_CHECKING:
    from memoleo.patches.targets import TargetAnswers, Targets

__all__ = ["Enabled", "disable", "enable", "proxy"]

T = TypeVar("T")

_PACKAGES: dict[str, Package] = {
    package.name: package for package in (OllamaPackage(), RequestsPackage(), HttpxPackage())
}
_targets: Targets | None = None
_lock = RenewedLock()
_handles: list[Enabled] = []


class Enabled:
    """What `enable` did; as a context manager it is undone at the end of the block.

    Handles nest, and may be closed in any order: the newest that is open decides which cache
    answers, and the last one to close puts the original attributes back.

    Parameters
    ----------
    answers
        what answers, per package
    own
        what answers in classes and functions of the program
    settings
        those that it put in force, if it brought any
    """

    def __init__(
        self, answers: dict[str, Any], own: TargetAnswers | None, settings: Settings | None = None
    ) -> None:
        self._answers = answers
        self._own = own
        self._settings = settings
        self._undo: list[Callable[[], None]] = []
        self._before = (None, None) if settings is None else _put_in_force(settings)

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the packages, and the paths of the targets, that it enabled."""
        own = () if self._own is None else self._own.targets
        return (*self._answers, *(target.path for target in own))

    def close(self) -> None:
        """Undo it. Closing twice is harmless."""
        with _lock:
            if self in _handles:
                _handles.remove(self)
                for undo in reversed(self._undo):
                    undo()
                self._undo_settings()
                _turn()

    def then(self, undo: Callable[[], None]) -> None:
        """Have something else undone when this is closed; at once if it is closed already."""
        with _lock:
            if self in _handles:
                self._undo.append(undo)
                return
        undo()

    def _undo_settings(self) -> None:
        if self._settings is None:
            return
        settings, on = self._before
        found = _settings.use(settings)
        if found is self._settings:
            _switch.turn(on)
        else:  # somebody has put others in force since
            _settings.use(found)

    def __enter__(self) -> Enabled:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self in _handles else "closed"
        return f"<memoleo.enable of {', '.join(self.targets)}, {state}>"


def enable(
    *names: str,
    targets: Iterable[Any] | None = None,
    rules: Sequence[Any] | None = None,
    cache: Cache | str | None = None,
    config: str | os.PathLike[str] | None = None,
    strict: bool = False,
    share_by_digest: bool = False,
    profiles: bool | Mapping[str, Mapping[str, Any]] | None = None,
    policies: Mapping[str, Mapping[str, Any]] | None = None,
    retries: bool | int | Mapping[str, Any] | None = None,
    timeout: bool | Duration | tuple[Duration, Duration] | None = None,
) -> Enabled:
    """Answer the calls of packages from a cache, without an edit in the code that makes them.

    It doesn't matter whether the package is imported before or after, nor whether a name was
    taken out of it already.

    Parameters
    ----------
    names
        the packages: "ollama", "requests", "httpx"; left out, ``"ollama"``, and the other two if
        the settings have rules for HTTP calls
    targets
        functions and methods of the program: paths such as ``"package.module:Class.method"``, in
        which ``*``, ``?`` and ``[…]`` stand for parts of names; or dictionaries with a `path` and
        options, see `memoleo.patches.Target`; or a dictionary from paths to options. Those of
        the settings come first, unless packages are named and `config` is not
    rules
        for "requests" and "httpx": which calls are cached; see `memoleo.http_rules.Rule`. Each is
        a rule, a dictionary with the same keys, or the name of a preset ("ollama",
        "huggingface"). Those of the settings come after them; left out and without any in the
        settings, it is the presets
    cache
        a `Cache`, or the URL of one; `None` is the default cache, looked up at each call
    config
        a settings file that is in force until the handle is closed
    strict
        whether a target that leads nowhere, or could mean several things, is an error instead of
        a warning; for a module that is imported later, the import fails
    share_by_digest
        for "ollama": whether servers share answers of models with the same digest. They give
        different ones if they are set up differently, with another context length for example
    profiles
        for "ollama": options to fill in where a caller says nothing: true for ``stage1``,
        ``stage2`` and ``vision``, or by name what a profile is meant for (`type`, `model`, `verb`,
        `when`) and its options. Left out, the settings say; they say no by default
    policies
        for "ollama": by a name of your own which calls are meant (`verb`, `model`, `when`) and
        how their answers are kept: `type`, `ttl`, `stale_if_error`, and for calls that sample
        without a seed `unseeded` ("store" or "skip") or `variants`
    retries
        for "ollama": true, how many attempts, or the keywords of `retried`; for calls that only
        compute
    timeout
        for "ollama": true, a duration, or one to connect and one to read, for clients that have
        no timeout of their own

    Returns
    -------
    Enabled
        a handle that is also a context manager

    Raises
    ------
    ConfigError
        there is no such package to enable, it can't be patched, or the settings are wrong
    """
    own = None if config is None else load_settings(config)
    settings = _settings.current() if own is None else own
    if own is not None and cache is None:
        cache = own.cache_url
    wanted = () if config is None and names else settings.targets
    if targets is not None:
        from memoleo.config._targets import targets_of

        wanted = (*wanted, *targets_of(targets))
    packages = _chosen(names, settings)
    options: dict[str, Any] = {
        "rules": rules,
        "share_by_digest": share_by_digest,
        "profiles": profiles,
        "policies": policies,
        "retries": retries,
        "timeout": timeout,
    }
    _check_options(packages, options)
    opened = Cache(cache) if isinstance(cache, str) else cache
    source = _source(opened)
    answers = {
        name: package.answers(source, settings, {each: options[each] for each in package.options})
        for name, package in packages.items()
    }
    with _lock:
        handle = Enabled(answers, _wish(wanted, opened, strict), own)
        _handles.append(handle)
        try:
            _turn()
        except BaseException:
            handle.close()
            raise
    return handle


def _chosen(names: tuple[str, ...], settings: Settings) -> dict[str, Package]:
    if not names:
        return {name: each for name, each in _PACKAGES.items() if each.wanted(settings)}
    for name in names:
        if name not in _PACKAGES:
            match = get_close_matches(str(name), _PACKAGES, n=1)
            meant = f" Did you mean {match[0]!r}?" if match else ""
            known = ", ".join(map(repr, _PACKAGES))
            raise ConfigError(
                f"enable({name!r}): there is no such package; known: {known}.{meant} "
                "Classes and functions of your own go in targets=[…]"
            )
    return {name: _PACKAGES[name] for name in names}


def _check_options(packages: dict[str, Package], options: dict[str, Any]) -> None:
    """Refuse an option that nobody would heed."""
    for name, value in options.items():
        if value is None or value is False or value == ():
            continue
        if not any(name in package.options for package in packages.values()):
            takers = [each.name for each in _PACKAGES.values() if name in each.options]
            raise ConfigError(
                f"enable({name}=…) has no effect here: name one of {', '.join(map(repr, takers))}"
            )


def disable() -> None:
    """Undo every `enable`: all attributes are the original objects again."""
    with _lock:
        for handle in reversed(list(_handles)):
            handle.close()
        _turn()


def proxy(
    value: T,
    *,
    methods: Mapping[str, Mapping[str, Any]] | Iterable[str] | None = None,
    cache: Cache | str | None = None,
    **options: Any,
) -> T:
    """Return a stand-in for one client, object or class, which is left alone itself.

    Parameters
    ----------
    value
        an `ollama.Client` or `ollama.AsyncClient`; or a class, for which a subclass of it is
        returned; or any object. `isinstance` holds for what is returned
    methods
        for classes and objects: which methods are answered from a cache, and how: names, which may
        have wildcards, and for each the keywords of `memoleo.content_cached`, and `timed`, the
        name of an operation to record latencies under
    cache
        as for `enable`
    options
        for clients, the keywords of `enable` that are for "ollama"

    Raises
    ------
    ConfigError
        there is no such method, an option is wrong, or the installed package can't be patched
    """
    opened = Cache(cache) if isinstance(cache, str) else cache
    stand_in: Any
    if methods is None:
        if not is_client(value):
            raise ConfigError(
                f"proxy({value!r}): say which methods are cached, such as "
                'methods={"score": {"ttl": "30d"}}; only clients of the ollama package need none. '
                "For a function there is memoleo.content_cached"
            )
        rules = make_rules(options, _settings.current())
        stand_in = wrapped_client(value, Answers(_source(opened), rules))
        return stand_in  # type: ignore[no-any-return]
    if options:
        raise ConfigError(f"proxy({next(iter(options))}=…): that is for clients of ollama")
    from memoleo.patches.classes import proxied_class, proxied_object

    if isinstance(value, type):
        stand_in = proxied_class(value, methods, opened)
    else:
        stand_in = proxied_object(value, methods, opened)
    return stand_in  # type: ignore[no-any-return]


def _source(cache: Cache | str | None) -> Callable[[], Cache]:
    if cache is None:
        return get_cache
    opened = Cache(cache) if isinstance(cache, str) else cache
    return lambda: opened


def _put_in_force(settings: Settings) -> tuple[Settings | None, bool | None]:
    on = _switch.on
    _switch.turn(settings.enabled)
    return _settings.use(settings), on


def _wish(targets: tuple[Any, ...], cache: Cache | None, strict: bool) -> TargetAnswers | None:
    """Return what is wanted in classes and functions of the program, if anything is."""
    global _targets
    if not targets:
        return None
    from memoleo.patches.targets import TargetAnswers, Targets

    if _targets is None:
        _targets = Targets()
    return TargetAnswers(targets, cache, strict)


def _turn() -> None:
    """Bring everything in line with the handles that are open."""
    if _targets is not None:
        _targets.turn([each._own for each in _handles if each._own is not None])
    for name, package in _PACKAGES.items():
        package.turn([each._answers[name] for each in _handles if name in each._answers])
