"""What a method's object contains is part of the call; `state` says what of it counts."""

import threading

from memoleo import Cache, KeyingError, content_cached

cache = Cache("memory://")


class Scorer:
    def __init__(self, model: str) -> None:
        self.model = model
        self.lock = threading.Lock()

    @content_cached(cache=cache)
    def exact(self, text: str) -> int:
        return len(text)

    @content_cached(cache=cache, state=("model",))
    def score(self, text: str) -> str:
        print(f"  {self.model} reads {text!r}")
        return f"{self.model} says {len(text) % 10}"


try:
    Scorer("small").exact("hello")
except KeyingError as error:  # a lock has no content that could be compared
    print(error)

print(Scorer("small").score("hello"))
print(Scorer("small").score("hello"))  # another object with the same state: a hit
print(Scorer("large").score("hello"))  # another state: computed
