"""Which HTTP calls are cached: rules for `enable("requests", "httpx", rules=[…])`.

Public beside the dictionaries that `enable` takes as well: a `Rule` has types that editors and
checkers know, and a check in code needs to know what an `Answer` offers.
"""

from memoleo.http_rules._messages import Answer, Request
from memoleo.http_rules._rule import Rule

__all__ = ["Answer", "Request", "Rule"]
