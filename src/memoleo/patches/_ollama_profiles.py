"""Profiles: options that are filled in where a caller said nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isfinite
from typing import Any
from urllib.parse import urlsplit

import msgspec

from memoleo._units import parse_duration
from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._ollama_matching import Match, make_match

__all__ = ["BUILT_IN", "OPTIONS", "Profile", "make_profiles"]

BUILT_IN = ("vision", "stage1", "stage2")

OPTIONS = frozenset(
    {
        "draft_num_predict", "f16_kv", "frequency_penalty", "logits_all", "low_vram", "main_gpu",
        "min_p", "mirostat", "mirostat_eta", "mirostat_tau", "num_batch", "num_ctx", "num_gpu",
        "num_keep", "num_predict", "num_thread", "numa", "penalize_newline", "presence_penalty",
        "repeat_last_n", "repeat_penalty", "seed", "stop", "temperature", "tfs_z", "top_k",
        "top_p", "typical_p", "use_mlock", "use_mmap", "vocab_only",
    }
)  # fmt: skip
"""Options that Ollama knows (api/types.go, `Options` and `Runner`)."""

_KEEP_ALIVE = "30m"
_MOST_THREADS = 6
_GENERATING = ("/api/chat", "/api/generate")


class Profile(msgspec.Struct, frozen=True):
    """What is filled in for one kind of call.

    Parameters
    ----------
    name
        what it is called
    match
        which calls it is meant for
    options
        of the model
    keep_alive
        how long the model stays loaded, as the API takes it
    threads
        what `num_thread` is for a server on this machine; what `options` say goes first
    """

    name: str
    match: Match
    options: dict[str, Any]
    keep_alive: float | str
    threads: Callable[[], int]

    def fill(self, body: dict[str, Any], address: str) -> dict[str, Any]:
        """Return a body with what the caller left out; what it says is never changed.

        Parameters
        ----------
        body
            the caller's
        address
            of the server
        """
        options = dict(self.options)
        if "num_thread" not in options and _is_local(address):
            options["num_thread"] = self.threads()
        given = body.get("options")
        if given is None:
            given = {}
        if not isinstance(given, dict):
            return body
        filled = {**body, "options": {**options, **given}}
        if body.get("keep_alive") is None:
            filled["keep_alive"] = self.keep_alive
        return filled


def _is_local(address: str) -> bool:
    """Whether a server runs on this machine, as far as its address tells."""
    host = (urlsplit(address).hostname or "").lower()
    return host in ("localhost", "::1") or host.startswith("127.")


def make_profiles(given: Any, settings: Settings) -> tuple[Profile, ...]:
    """Return the profiles that a user asked for, in the order in which they are tried.

    Parameters
    ----------
    given
        true for the built-in ones, or the settings of each by name; `None` takes the config's
    settings
        for the sections ``inference`` and ``ollama``

    Raises
    ------
    ConfigError
        a name, an option or a value is wrong
    """
    place = ""
    if given is None:
        given = settings.ollama.profiles
        place = f"{settings.file}: " if settings.file else ""
    if given is False:
        return ()
    if given is True:
        given = {name: {} for name in BUILT_IN}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"profiles={given!r}: give True for {', '.join(BUILT_IN)}, or the settings of each "
            'profile by its name, such as {"short": {"model": "llama*", "num_predict": 50}}'
        )
    return tuple(
        _profile(name, each, settings, f"{place}profile {name!r}") for name, each in given.items()
    )


def _profile(name: Any, given: Any, settings: Settings, where: str) -> Profile:
    if not isinstance(name, str) or not name or not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected its settings by name, got {given!r}")
    own = dict(given)
    inference = settings.inference
    match = make_match(own, where)
    if not match.says_anything:
        match = Match(paths=_GENERATING, type=name, or_images=name == "vision")
    elif name in BUILT_IN and not match.paths:
        match = msgspec.structs.replace(match, paths=_GENERATING)
    options = _built_in(name, settings)
    keep_alive = own.pop("keep_alive", None)
    if keep_alive is None:
        keep_alive = settings.ollama.keep_alive
    more = own.pop("options", {})
    if not isinstance(more, Mapping):
        raise ConfigError(f"{where}: options={more!r}: expected names and values")
    for option, value in own.items():
        if option not in OPTIONS:
            raise ConfigError(
                f"{where}: there is no option {option!r} that Ollama is known to have. An option "
                f'of a newer server goes in "options": {{{option!r}: …}}{_nearest(option)}'
            )
        options[option] = value
    options.update(more)
    for option, value in options.items():
        _check(where, option, value)
    threads = inference.num_threads
    return Profile(name, match, options, _keep_alive(keep_alive, where), lambda: _threads(threads))


def _built_in(name: str, settings: Settings) -> dict[str, Any]:
    inference = settings.inference
    options: dict[str, Any] = {}
    if name == "stage1":
        options["num_predict"] = inference.text_max_new_tokens_stage1 or 120
        options["temperature"] = _or(inference.temperature_stage1, 0.3)
    elif name == "stage2":
        options["num_predict"] = inference.text_max_new_tokens_stage2 or 160
        options["temperature"] = _or(inference.temperature_stage2, 0.7)
    elif name == "vision":
        options["num_predict"] = inference.vision_max_tokens or 150
    if inference.num_threads is not None:
        options["num_thread"] = inference.num_threads
    if inference.num_ctx is not None:
        options["num_ctx"] = inference.num_ctx
    return options


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _threads(asked: int | None) -> int:
    if asked is not None:
        return asked
    from memoleo._platform.processors import performance_cores

    return min(performance_cores(), _MOST_THREADS)


def _check(where: str, option: Any, value: Any) -> None:
    plain = isinstance(value, (str, bool, int)) or (isinstance(value, float) and isfinite(value))
    texts = option == "stop" and isinstance(value, (list, tuple))
    if not isinstance(option, str) or not (plain or texts):
        raise ConfigError(f"{where}: {option}={value!r}: expected a number, text, true or false")


def _keep_alive(value: Any, where: str) -> float | str:
    if value is None:
        return _KEEP_ALIVE
    try:
        seconds = parse_duration(value)
    except ConfigError as error:
        raise ConfigError(f"{where}: keep_alive: {error}") from None
    # The server keeps a model for ever if the number is negative.
    return -1 if seconds == inf else seconds


def _nearest(option: Any) -> str:
    from difflib import get_close_matches

    known = [*OPTIONS, "type", "model", "when", "verb", "keep_alive"]
    match = get_close_matches(str(option), known, n=1)
    return f". Did you mean {match[0]!r}?" if match else ""
