"""Never run: mypy and pyright check the results of `map` and `amap`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import memoleo

if TYPE_CHECKING:
    from typing_extensions import assert_type


@memoleo.content_cached
def length(text: str) -> int:
    return len(text)


async def alength(text: str) -> int:
    return len(text)


def add(a: int, b: int) -> float:
    return a + b


assert_type(memoleo.map(length, ["a"]), list[int])
assert_type(memoleo.map(length, ["a"], errors="return"), list[int | Exception])
assert_type(memoleo.map(add, [(1, 2)], unpack=True), list[float])
memoleo.map(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def run() -> None:
    assert_type(await memoleo.amap(alength, ["a"], concurrency=3), list[int])
    assert_type(await memoleo.amap(alength, ["a"], errors="return"), list[int | Exception])
