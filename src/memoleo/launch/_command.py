"""Which command runs a program as plain Python would, and in which environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import msgspec

from memoleo._cache.default import get_cache
from memoleo._switch import OBSERVED
from memoleo.config import _settings
from memoleo.config._files import anchored
from memoleo.errors import ConfigError
from memoleo.patches._enable import enable
from memoleo.patches._imports import awaited

__all__ = ["Command", "prepare"]

SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
RUN, SEED = "MEMOLEO_RUN", "PYTHONHASHSEED"


class Command(msgspec.Struct, frozen=True):
    """What to execute.

    Parameters
    ----------
    arguments
        the program, which is Python, and its arguments
    environment
        all variables
    pinned
        whether the hash seed had to be pinned
    """

    arguments: list[str]
    environment: dict[str, str]
    pinned: bool


def prepare(
    program: Sequence[str],
    *,
    config: str | None = None,
    cache: str | None = None,
    observed: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Command:
    """Return the command that runs a program with caching on, in all of its processes.

    Python itself runs the program. Everything that concerns memoleo is in the environment, which
    children inherit: a folder on ``PYTHONPATH`` with a ``sitecustomize`` that enables caching.

    Parameters
    ----------
    program
        what would follow ``python`` on a command line: a script or ``-m`` and a module, arguments
    config, cache
        a settings file, and the URL of a cache
    observed
        the folder where the processes write down what they only observe
    environ
        the variables that the program would have without memoleo

    Raises
    ------
    ConfigError
        the settings are wrong, or a package can't be patched
    """
    if not sys.executable:
        raise ConfigError("this Python doesn't know its own executable, so it can't start another")
    environment = dict(environ)
    if config is not None:
        environment["MEMOLEO_CONFIG"] = os.environ["MEMOLEO_CONFIG"] = os.path.abspath(config)
    if cache is not None:
        environment["MEMOLEO_CACHE"] = os.environ["MEMOLEO_CACHE"] = cache
    awaits = _awaits()
    if observed is not None:
        # A program that only applies decorators imports nothing else that would be waited for.
        awaits = [*awaits, "memoleo"]
    settings = _settings.current()
    # Children may start in other folders.
    if settings.file is not None:
        environment["MEMOLEO_CONFIG"] = settings.file
    if environment.get("MEMOLEO_CACHE"):
        environment["MEMOLEO_CACHE"] = anchored(environment["MEMOLEO_CACHE"], os.getcwd())
    environment[RUN] = f"{sys.implementation.cache_tag}:{','.join(awaits)}"
    others = [
        path
        for path in environment.get("PYTHONPATH", "").split(os.pathsep)
        if path and os.path.abspath(path) != SITE
    ]
    environment["PYTHONPATH"] = os.pathsep.join([SITE, *others])
    environment.pop(OBSERVED, None)
    if observed is not None:
        environment[OBSERVED] = observed
    pinned = not environment.get(SEED)
    if pinned:
        environment[SEED] = "0"
    return Command([sys.executable, *_flags(), *program], environment, pinned)


def _awaits() -> list[str]:
    """Return the last parts of the names of the modules that are to be patched.

    Enabling here and now finds out, and fails for settings that are wrong before anything starts.
    """
    with enable():
        get_cache()
        names = awaited()
    return names


def _flags() -> list[str]:
    """Return the options that this Python was started with, but those that keep others out."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [*subprocess._optim_args_from_interpreter_flags(),  # type: ignore[attr-defined]
            *(flag for flag in flags if flag not in ("-I", "-E"))]  # fmt: skip
