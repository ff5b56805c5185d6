"""Why did this call miss? `explain` names the part of the key that differs."""

import memoleo
from memoleo import Cache, content_cached

cache = Cache("memory://")


@content_cached("scoring", cache=cache, ttl="1h")
def score(text: str, options: dict[str, int], model: str = "small") -> int:
    return len(text) * options["weight"]


score("The fox jumps.", {"weight": 2, "seed": 1})

# Another option: the nearest entry differs in one item of one argument.
print(score.explain("The fox jumps.", {"weight": 2, "seed": 7}))

# Another model, and a call that is a hit.
print(score.explain("The fox jumps.", {"weight": 2, "seed": 1}, model="large").message)
print(score.explain("The fox jumps.", {"weight": 2, "seed": 1}).message)

# Around any code: each cached call is explained, and runs as usual.
with memoleo.explain() as why:
    score("The fox sleeps.", {"weight": 2, "seed": 1})
    score("The fox sleeps.", {"weight": 2, "seed": 1})
for each in why:
    print(each.outcome, "-", each.message)

# A key from a log.
print(cache.explain(score.cache_key("The fox jumps.", {"weight": 2, "seed": 1})).outcome)
