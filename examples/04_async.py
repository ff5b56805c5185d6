"""Coroutines are cached alike, and many that ask the same at once wait for one."""

import asyncio
import time

from memoleo import Cache, content_cached

calls = 0


@content_cached(cache=Cache("memory://"))
async def embed(text: str) -> list[float]:
    global calls
    calls += 1
    await asyncio.sleep(0.3)  # stands for a service
    return [ord(letter) / 128 for letter in text]


async def main() -> None:
    started = time.perf_counter()
    answers = await asyncio.gather(*(embed("hello") for _ in range(50)))
    print(f"{len(answers)} answers, {calls} call, {time.perf_counter() - started:.1f} s")

    answers[0].clear()  # everyone got a copy of their own
    print("a later hit:", await embed("hello"))


asyncio.run(main())
