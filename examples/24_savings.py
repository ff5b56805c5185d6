"""What caching saved: time, energy and money, per type and in all."""

import os
import time

from memoleo import Cache, content_cached
from memoleo.metrics import read_metrics, read_savings

# As in memoleo.toml: [savings] with these keys.
os.environ["MEMOLEO_SAVINGS__CURRENCY"] = "EUR"
os.environ["MEMOLEO_SAVINGS__WATTS"] = "250"
os.environ["MEMOLEO_SAVINGS__PRICE_PER_KWH"] = "0.30"

cache = Cache("memory://")


@content_cached(type="summaries", cache=cache)
def summary(text: str) -> str:
    time.sleep(0.02)  # a model at work
    return text[:10]


@content_cached(type="labels", cache=cache)
def label(text: str) -> str:
    time.sleep(0.005)
    return text.split()[0]


for _ in range(20):
    for text in ("the fox jumps", "the dog sleeps"):
        summary(text)
        label(text)

for name, saved in read_metrics(cache, since="today")["savings"]["types"].items():
    print(f"{name}: {saved['runs']} runs, {saved['ms']:.0f} ms")

for period, saved in read_savings(cache).items():
    total = saved["total"]
    wh, money = total["kwh"] * 1000, total["money"]
    print(f"{period}: {total['ms']:.0f} ms, {wh:.4f} Wh, {money:.8f} {saved['currency']}")
