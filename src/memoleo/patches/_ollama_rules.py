"""All that a user asked of one `enable("ollama")`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from memoleo.config._sections import Settings
from memoleo.errors import ConfigError
from memoleo.patches._ollama_policies import Policies, make_policies
from memoleo.patches._ollama_profiles import Profile, make_profiles
from memoleo.patches._ollama_request import VERBS
from memoleo.patches._ollama_sending import Sending, being_asked, make_sending
from memoleo.patches._ollama_server import server_of

__all__ = ["OPTIONS", "Rules", "make_rules"]

OPTIONS = frozenset({"policies", "profiles", "retries", "share_by_digest", "timeout"})
"""The keywords of `enable` that are meant for Ollama."""


class Rules(msgspec.Struct, frozen=True):
    """What holds for the calls of clients.

    Parameters
    ----------
    policies
        how answers are kept
    sending
        how requests get to the server
    profiles
        what is filled in, the first that is meant
    share
        whether servers share answers of models with the same digest
    """

    policies: Policies
    sending: Sending
    profiles: tuple[Profile, ...] = ()
    share: bool = False

    def filled(self, client: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the keywords of a call of ``_request`` with what its profile says."""
        body = kwargs.get("json")
        if len(args) != 3 or args[1] != "POST" or type(body) is not dict or being_asked(body):
            return kwargs
        verb = VERBS.get(args[2])
        if verb is None or not verb.asks(body):
            return kwargs
        type_ = self.policies.decide(verb.path, body).type
        for profile in self.profiles:
            if profile.match.holds(verb.path, type_, body):
                server = server_of(client)
                address = "" if server is None else server.address
                return {**kwargs, "json": profile.fill(body, address)}
        return kwargs


def make_rules(options: Mapping[str, Any], settings: Settings) -> Rules:
    """Return the rules that the keywords of `enable` describe.

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(
                f"{name}=…: there is no such option; known: {', '.join(sorted(OPTIONS))}"
            )
    share = options.get("share_by_digest", False)
    if not isinstance(share, bool):
        raise ConfigError(f"share_by_digest={share!r}: give True or False")
    return Rules(
        make_policies(options.get("policies"), settings),
        make_sending(options.get("retries"), options.get("timeout"), settings),
        make_profiles(options.get("profiles"), settings),
        share,
    )
