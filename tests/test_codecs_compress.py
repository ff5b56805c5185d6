"""Large payloads are compressed where it pays, and nowhere else."""

from __future__ import annotations

import base64
import json
import random
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest

from memoleo.codecs import AutoCodec

codec = AutoCodec()
TEXT = json.dumps([{"id": number, "text": f"entry {number * 7}"} for number in range(5000)])
NOISE = random.Random(1).randbytes(1_000_000)


@pytest.mark.parametrize(
    "value",
    [TEXT, [TEXT, TEXT], (TEXT,), {1: TEXT}, np.zeros(50_000), bytes(100_000), ["word"] * 10_000],
    ids=lambda value: type(value).__name__,
)
def test_compressed(value: Any) -> None:
    """What shrinks is compressed and comes back."""
    payload = codec.encode(value)
    assert payload[:2] == b"\xc1\x02"
    assert len(payload) < 60_000
    result = codec.decode(payload)
    assert type(result) is type(value)
    assert np.array_equal(result, value) if isinstance(value, np.ndarray) else result == value


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10_000,
        NOISE,
        base64.b64encode(NOISE).decode(),
        [[0.5] * 384 for _ in range(32)],
        [[random.Random(1).random() for _ in range(384)] for _ in range(32)],
    ],
    ids=["small", "noise", "image", "equal floats", "floats"],
)
def test_not_compressed(value: Any) -> None:
    """What would not pay stays as it is."""
    assert codec.encode(value) == msgspec.msgpack.encode(value)


def test_misleading_sample() -> None:
    """The pieces that are looked at are zeros; between them there is noise."""
    data = bytearray(NOISE[:300_000])
    stride = (len(data) + 5 - 1024) // 3
    for at in range(0, len(data), stride):
        data[max(0, at - 8) : at + 1032] = bytes(1040)
    payload = codec.encode(bytes(data[:300_000]))
    assert payload[:1] == b"\xc6"


def test_noise_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise costs one look at a sample."""
    seen: list[int] = []
    real = zlib.compress

    def compress(data: bytes, level: int) -> bytes:
        seen.append(len(data))
        return real(data, level)

    monkeypatch.setattr(zlib, "compress", compress)
    codec.encode(NOISE)
    assert sum(seen) <= 5 * 1024
