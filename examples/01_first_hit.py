"""The second call with the same content is answered from the cache."""

import time

from memoleo import content_cached


@content_cached
def translate(text: str, *, language: str = "fr") -> dict[str, str]:
    time.sleep(0.5)  # stands for something slow
    return {"language": language, "text": text.upper()}


def timed_call(*args: str, **kwargs: str) -> None:
    started = time.perf_counter()
    answer = translate(*args, **kwargs)
    print(f"{(time.perf_counter() - started) * 1000:8.3f} ms  {answer}")


translate.cache_clear()  # results outlive the process: forget those of an earlier run
timed_call("good morning")
timed_call("good morning")
timed_call(text="good morning", language="fr")  # the same call, spelled otherwise
timed_call("good evening")  # another call

print(translate.cache_info())
