"""Rules for services that many programs call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from memoleo.errors import ConfigError
from memoleo.http_rules import _huggingface, _ollama
from memoleo.http_rules._messages import Answer, Request
from memoleo.http_rules._rule import Rule, rule_of

__all__ = ["APIS", "PRESETS", "Api", "rules_of"]


class Api(msgspec.Struct, frozen=True):
    """What is known of the requests and answers of a service.

    Parameters
    ----------
    asks
        whether a request asks for something that can be kept
    complete
        whether an answer has everything that the request calls for
    ended
        whether a body, of which more may be to come, has its last part
    """

    asks: Callable[[Request], bool]
    complete: Callable[[Request, Answer], bool]
    ended: Callable[[Request, bytes], bool] | None = None


APIS = {
    "ollama": Api(_ollama.asks, _ollama.complete, _ollama.ended),
    "huggingface": Api(_huggingface.asks, _huggingface.complete),
}

PRESETS: dict[str, dict[str, Any]] = {
    "ollama": {
        "method": "POST",
        "url": r"re:https?://[^?]*/api/(?:generate|chat|embed|embeddings)/?(?:\?.*)?",
        "type": "ollama",
        "api": "ollama",
        "ignore_body": ["/keep_alive"],
    },
    "huggingface": {
        "method": "POST",
        # The router, its predecessor, endpoints of one's own, and stand-ins on this machine.
        "url": r"re:https?://(?:[^/?]*/hf-inference/models/.*"
        r"|(?:api-inference|router)\.huggingface\.co/.*"
        r"|[^/?]*\.endpoints\.huggingface\.cloud(?:/.*)?"
        r"|(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?/(?:models|pipeline)/.*)",
        "type": "huggingface",
        "api": "huggingface",
    },
}


def rules_of(given: Iterable[Any]) -> tuple[Rule, ...]:
    """Return rules from what `enable` or the settings give: rules, tables, names of presets.

    A table may name a preset and change what it says.

    Raises
    ------
    ConfigError
        one of them is wrong; the message says which
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(f"rules={given!r}: expected a list of rules")
    found = []
    for number, each in enumerate(given):
        try:
            found.append(_rule(each))
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"rules[{number}].{error}") from None
    return tuple(found)


def _rule(given: Any) -> Rule:
    if isinstance(given, Rule):
        return _known(given)
    table = {"preset": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping):
        raise ConfigError(f"{given!r} is neither a rule, nor a table, nor the name of a preset")
    if "preset" not in table:
        return _known(rule_of(table))
    name = table["preset"]
    if name not in PRESETS:
        match = get_close_matches(str(name), PRESETS, n=1)
        meant = f" Did you mean {match[0]!r}?" if match else ""
        raise ConfigError(f"preset: {name!r} is none of {', '.join(map(repr, PRESETS))}.{meant}")
    return _known(
        rule_of({**PRESETS[name], **{key: table[key] for key in table if key != "preset"}})
    )


def _known(rule: Rule) -> Rule:
    if rule.api is not None and rule.api not in APIS:
        raise ConfigError(f"api: {rule.api!r} is none of {', '.join(map(repr, APIS))}")
    return rule
