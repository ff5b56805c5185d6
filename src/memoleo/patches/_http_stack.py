"""The rules of all that is enabled, the innermost first: what both HTTP packages stand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memoleo import _switch
from memoleo._cache.cache import Cache
from memoleo._exchanges.exchanges import Exchange, Exchanges
from memoleo._platform.interrupts import pass_on
from memoleo.config._sections import Settings
from memoleo.http_rules._messages import Request
from memoleo.http_rules._presets import PRESETS, rules_of
from memoleo.http_rules._rule import Rule
from memoleo.patches._ollama_http import ollama_exchange
from memoleo.patches._passing import is_answered_above, is_passing

__all__ = ["Stack", "exchanges_for", "rules_for"]


def rules_for(settings: Settings, options: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules that `enable` was given, then those of the settings, else the presets.

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    given = options["rules"]
    own = () if given is None else rules_of(given)
    found = (*own, *rules_of(settings.http_rules))
    return found if found or given is not None else rules_of(tuple(PRESETS))


def exchanges_for(
    cache: Callable[[], Cache],
    settings: Settings,
    options: Mapping[str, Any],
    failures: Callable[[], tuple[type[BaseException], ...]],
) -> Exchanges:
    """Return what answers the calls of one `enable`."""
    return Exchanges(rules_for(settings, options), cache, failures)


class Stack:
    """What answers, the last one that was enabled first.

    Attributes
    ----------
    all
        those in force; another tuple after every change
    """

    def __init__(self) -> None:
        self.all: tuple[Exchanges, ...] = ()

    def use(self, stack: Sequence[Exchanges]) -> None:
        """Answer with these from now on."""
        self.all = tuple(reversed(stack))

    @property
    def empty(self) -> bool:
        """Whether nobody answers."""
        return not self.all

    def at_work(self) -> bool:
        """Whether a call that comes in now is to be looked at."""
        if not self.all or is_passing():
            return False
        try:
            return _switch.enabled() and _switch.mode.get() is not _switch.Mode.BYPASS
        except Exception as error:
            pass_on(error)
            return False

    def names(self, method: str, url: str) -> bool:
        """Whether a rule names calls of this method to this URL."""
        return any(each.named(method, url) for each in self.all)

    def exchange(self, request: Request) -> Exchange | None:
        """Return a call that is to be answered, by the innermost whose rules name it."""
        for each in self.all:
            rule = each.rule_for(request)
            if rule is None:
                continue
            if rule.api != "ollama":
                return each.exchange(request)
            if is_answered_above(request.header("user-agent")):
                return None
            return each.exchange(request, ollama_exchange)
        return None

    def note(self, what: str, error: Exception) -> None:
        """Log a failure of ours, once for each kind; pass on what a signal handler raised."""
        pass_on(error)
        if self.all:
            self.all[0].note(what, error)
