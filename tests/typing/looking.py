"""What looking into a cache returns; never run, only checked."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import assert_type

import memoleo
from memoleo import Cache, Explanation, StoredEntry, Verified, content_cached
from memoleo._cache.choice import Loaded

cache = Cache("memory://")

with memoleo.explain() as why:
    assert_type(why, list[Explanation])

with memoleo.verify(0.5, per_minute=3):
    pass


class Scorer:
    @content_cached
    def score(self, text: str) -> int:
        return len(text)


assert_type(Scorer().score.explain("a"), Explanation)
Scorer().score.explain(1)  # type: ignore[arg-type]

assert_type(cache.explain("key"), Explanation)
assert_type(cache.verified(), dict[str, Verified])
assert_type(cache.entries(older_than="1h", larger_than="1MiB"), Iterator[StoredEntry])
assert_type(cache.export("out", type="t"), int)
assert_type(cache.load("out", merge="keep"), Loaded)
