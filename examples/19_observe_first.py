"""Before a cache answers anything, `observe` counts what it would have answered, and saved."""

import time

import memoleo
from memoleo import Cache, content_cached, get_metrics


@content_cached(type="questions", cache=Cache("memory://"))
def answer(question: str) -> str:
    time.sleep(0.02)  # stands for a model
    return question[::-1]


asked = ["why?", "who?", "why?", "when?", "why?", "who?"]

with memoleo.observe():
    for question in asked:
        answer(question)  # computed each time: nothing is served, nothing is stored

seen = get_metrics().get_stats()["cache"]["questions"]
would_hit, would_miss = seen["would_hit"], seen["would_miss"]
print(f"{would_hit} of {would_hit + would_miss} calls were made before,")
print(f"and answering them from a cache would have saved {seen['would_save_ms']:.0f} ms.")
print("stored so far:", answer.cache_info().currsize)

for question in asked:  # now for real
    answer(question)
print("with the cache:", answer.cache_info())
