"""A generator is recorded while it is consumed, and replayed with the same items."""

import time
from collections.abc import Iterator

from memoleo import Cache, content_cached


@content_cached(cache=Cache("memory://"))
def tell(subject: str) -> Iterator[str]:
    print("  (thinking)")
    for word in f"once upon a time there was a {subject}".split():
        time.sleep(0.05)
        yield word


for word in tell("fox"):  # stopped early: nothing is stored
    print(word)
    break

print(" ".join(tell("fox")))  # heard to the end: stored
print(" ".join(tell("fox")))  # replayed
