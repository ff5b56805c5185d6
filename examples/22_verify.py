"""Are the hits still right? `verify` computes a sample of them again, in the background."""

import memoleo
from memoleo import Cache, content_cached

cache = Cache("memory://")
prices = {"apple": 1.00, "pear": 2.00}


@content_cached("price", cache=cache)
def price(fruit: str) -> dict[str, float]:
    return {"net": prices[fruit], "gross": prices[fruit] * 1.2}


@content_cached("length", cache=cache)
def length(text: str) -> int:
    return len(text)


price("apple"), length("apple")
prices["apple"] = 1.50  # the world moves on

for call in (price, length):
    with memoleo.verify(sample=1.0, per_minute=60):
        print(call.__name__, "serves", call("apple"))
    cache.verified(wait=10)  # it is computed in the background, one at a time

for name, report in sorted(cache.verified().items()):
    print(f"{name}: {report.differed} of {report.checked} differed", *report.findings)
