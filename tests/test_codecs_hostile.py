"""Bytes that somebody else wrote: they build no foreign class, run nothing, and stay small."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest

from memoleo.codecs import AutoCodec
from memoleo.errors import CodecError

codec = AutoCodec()
pack = msgspec.msgpack.encode
OBJECT, REGISTERED, ARRAY = 50, 51, 60


@dataclass
class Known:
    x: int


def forged(tree: Any, *classes: tuple[Any, ...]) -> bytes:
    return b"\xc1\x01" + pack([tree, [pack(entry) for entry in classes]])


def entry_of(value: Any) -> tuple[Any, ...]:
    """Return how an honest payload describes the class of `value`."""
    _, (description,) = msgspec.msgpack.decode(codec.encode(value)[2:])
    return tuple(msgspec.msgpack.decode(description))


@pytest.mark.parametrize("kind", ["dataclass", "pydantic", "attrs", "struct", "namedtuple", "enum"])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "object"),
        ("builtins", "dict"),
        ("os", "system"),
        ("pathlib", "Path"),
        ("test_codecs_hostile", "pack"),
        (__name__, "codec"),
        (__name__, "Known.__init__"),
        (__name__, "Known.__class__"),
        ("", ""),
    ],
)
def test_foreign_class(kind: str, module: str, name: str) -> None:
    """No class is built that is not what it is said to be."""
    for fingerprint in (0, entry_of(Known(1))[3]):
        with pytest.raises(CodecError):
            codec.decode(forged([OBJECT, 0, {"args": "x"}], (kind, module, name, fingerprint)))


def test_known_class() -> None:
    """A forged payload for a known class is what the program itself could build."""
    assert codec.decode(forged([OBJECT, 0, {"x": 5}], entry_of(Known(1)))) == Known(5)


def test_no_import() -> None:
    """A row makes the program import nothing."""
    assert "antigravity" not in sys.modules
    with pytest.raises(CodecError, match="no class"):
        codec.decode(forged([OBJECT, 0, {}], ("dataclass", "antigravity", "X", 0)))
    assert "antigravity" not in sys.modules


def test_unregistered() -> None:
    """Types nobody registered are not decoded."""
    with pytest.raises(CodecError, match="not registered"):
        codec.decode(forged([REGISTERED, "subprocess", "Popen", ["id"]]))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xc1\x01",
        b"\xc1\x00",
        b"\xc1\xff\x00",
        b"\xc1\x02",
        b"\xc1\x02" + bytes(8),
        b"\xc1P" + bytes(40),
        b"\xc0\xc0",
        b"\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        pack([msgspec.msgpack.Ext(1, b"x")]),
        b"\xc1\x01" + b"\x91" * 100_000 + b"\xc0",
        b"\x91" * 100_000 + b"\xc0",
        forged([]),
        forged([99]),
        forged([[0]]),
        forged([None]),
        forged({"a": 1}),
        forged([3, {"a": 1}]),
        forged([3, msgspec.msgpack.Ext(1, b"x")]),
        forged([0, msgspec.msgpack.Ext(9, b"x")]),
        forged([2, [1], []]),
        forged([2, [[4, 1]], [1]]),
        forged([4, [1, [2]]]),
        forged([8, "eval", [], []]),
        forged([OBJECT, 0, {}]),
        forged([OBJECT, 7, {}], entry_of(Known(1))),
        forged([OBJECT, "x"]),
        forged([OBJECT, 0, {"x": 1}, ["__class__"], [1]], entry_of(Known(1))),
        forged([30, "(", 0]),
        forged([30, "a", 128]),
        forged([33, 0, None, 2024, 13, 1]),
        forged([36, "../../etc/passwd"]),
        forged([39, "Path", "/"]),
        forged([38, b"short", None]),
        forged([ARRAY, "<f8", [2**40], "C", msgspec.msgpack.Ext(1, b"12345678")]),
        forged([ARRAY, "<f8", [1], "C", msgspec.msgpack.Ext(1, b"1234567812345678")]),
        forged([ARRAY, "<f8", [-1], "C", msgspec.msgpack.Ext(1, b"12345678")]),
        forged([ARRAY, "O", [1], "C", msgspec.msgpack.Ext(1, b"12345678")]),
        forged([ARRAY, "<f8", [1], "C", b"12345678"]),
        forged([ARRAY, "<f8", 1, "C", msgspec.msgpack.Ext(1, b"12345678")]),
        forged([61, [2**40], "C", 1]),
        forged([62, "O", b"12345678"]),
    ],
    ids=lambda payload: repr(payload)[:40],
)
def test_forged_payload(payload: bytes) -> None:
    """A forged payload is a `CodecError` and takes no memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            codec.decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_endless_nesting() -> None:
    """Nested nodes without end are a `CodecError`."""
    depth = 100_000
    payload = b"\xc1\x01\x92" + b"\x92\x03" * depth + b"\xc0\x90"
    with pytest.raises(CodecError):
        codec.decode(payload)


@pytest.mark.parametrize("claimed", [0, 99_999, 100_001, 2**20, 2**40, 2**64 - 1])
def test_claimed_size(claimed: int) -> None:
    """A compressed payload of another size than it says is a `CodecError`."""
    packed = zlib.compress(pack("x" * 99_995))
    assert len(codec.decode(b"\xc1\x02" + struct.pack("<Q", 100_000) + packed)) == 99_995
    with pytest.raises(CodecError):
        codec.decode(b"\xc1\x02" + struct.pack("<Q", claimed) + packed)


def test_absurd_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be larger than the limit is not even unpacked."""
    payload = codec.encode("x" * 100_000)
    monkeypatch.setattr("memoleo.codecs._compress._LIMIT", 99_999)
    with pytest.raises(CodecError, match="absurd size"):
        codec.decode(payload)


def test_compressed_twice_or_cut() -> None:
    """A compressed payload is not compressed twice or cut short."""
    inner = b"\xc1\x02" + struct.pack("<Q", 1000) + zlib.compress(b"\xc0" * 1000)
    outer = b"\xc1\x02" + struct.pack("<Q", len(inner)) + zlib.compress(inner)
    cut = b"\xc1\x02" + struct.pack("<Q", 9) + zlib.compress(pack("12345678"))[:-2]
    for payload in (outer, cut):
        with pytest.raises(CodecError):
            codec.decode(payload)


def test_no_property_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding runs no property of a changed class."""

    @dataclass
    class Target:
        x: int

    payload = codec.encode(Target(1))
    calls: list[Any] = []
    monkeypatch.setattr(Target, "x", property(None, lambda self, v: calls.append(v)), raising=False)
    result = codec.decode(payload)
    assert vars(result) == {"x": 1}
    assert calls == []


def test_without_numpy() -> None:
    """A program without numpy reads an array as a `CodecError`."""
    payload = codec.encode(np.arange(3))
    program = (
        "import sys; from memoleo.codecs import AutoCodec; from memoleo.errors import CodecError\n"
        f"try: AutoCodec().decode({payload!r})\n"
        "except CodecError as error: print('numpy' in str(error), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_loads_nothing() -> None:
    """Plain data loads nothing that it does not need."""
    program = (
        "import sys; from memoleo.codecs import AutoCodec; c = AutoCodec()\n"
        "c.decode(c.encode({'a': [1]}))\n"
        "names = 'numpy pydantic attr zlib hmac pickle ipaddress platformdirs asyncio sqlite3'\n"
        "print([name for name in names.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
