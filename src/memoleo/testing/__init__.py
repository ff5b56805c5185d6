"""What tests of code that uses memoleo need: a clock, a backend's contract, a local model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoleo.testing._clock import FakeClock
    from memoleo.testing._contract import BackendContract
    from memoleo.testing._local_ollama import LocalOllama
    from memoleo.testing._waiting import no_waiting

_HOMES = {
    "BackendContract": "_contract",
    "FakeClock": "_clock",
    "LocalOllama": "_local_ollama",
    "no_waiting": "_waiting",
}

__all__ = ["BackendContract", "FakeClock", "LocalOllama", "no_waiting"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
