"""Timed from the outside, cached in the middle, retried inside: once per key, never for a hit."""

from memoleo import Cache, content_cached, get_metrics, retried, timed

attempts = 0


@timed("lookup")
@content_cached(type="lookup", cache=Cache("memory://"))
@retried(on=ConnectionError, attempts=3, backoff_ms=(10, 30))
def lookup(word: str) -> str:
    global attempts
    attempts += 1
    if attempts < 3:
        raise ConnectionError("the line is dead")
    return f"{word}: a word of {len(word)} letters"


print(lookup("serendipity"), f"({attempts} attempts)")
for _ in range(99):
    lookup("serendipity")

stats = get_metrics().get_stats()
lookups, cached = stats["lookup"], stats["cache"]["lookup"]
print(f"{lookups['count']} calls, p50 {lookups['p50_ms']:.3f} ms, max {lookups['max_ms']:.0f} ms")
print(f"hit rate {cached['hit_rate']:.0f}%, {cached['saved_ms']:.0f} ms saved")
