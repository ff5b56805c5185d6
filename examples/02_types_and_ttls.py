"""Types group results: each has its own TTL and counters, and can be cleared by itself."""

from memoleo import Cache, content_cached, get_metrics

cache = Cache("memory://", types={"weather": "10m"})


@content_cached(type="weather", cache=cache)
def forecast(city: str) -> str:
    print(f"  asking for the weather in {city}")
    return f"sunny in {city}"


@content_cached(type="geography", ttl="forever", cache=cache, tags=lambda bound, _: [bound["city"]])
def country(city: str) -> str:
    print(f"  looking up {city}")
    return {"Oslo": "Norway", "Lima": "Peru"}[city]


for _ in range(2):
    for city in ("Oslo", "Lima"):
        print(forecast(city), "·", country(city))

print("stored:", cache.get_stats()["by_type"])

cache.clear(type="weather")
cache.clear(tag="Lima")
print("after clearing the weather, and Lima:", cache.get_stats()["by_type"])

for name, counted in get_metrics().get_stats()["cache"].items():
    print(f"{name}: {counted['hits']} hits, {counted['misses']} misses")
