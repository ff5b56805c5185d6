"""Values whose keys are recorded: run as a program, it prints the digests of all of them."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import re
import types
import uuid
import zoneinfo
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic

import memoleo.keys._keyer  # noqa: F401  (it loads every writer)
from memoleo.keys._canonical import canonical


class Colour(enum.Enum):
    RED = "red"


class Bits(enum.Flag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Doc:
    text: str
    tags: list[str]


class Model(pydantic.BaseModel):
    text: str
    n: int = 1


class Struct(msgspec.Struct):
    text: str
    n: int = 1


@attrs.define
class Attrs:
    text: str
    n: int = 1


class Text(str):
    __slots__ = ()


class Plain:
    def __init__(self) -> None:
        self.model = "llama"
        self.options = {"seed": 1, "stop": ["a", "b"]}


for _cls in (Colour, Bits, Point, Doc, Model, Struct, Attrs, Text, Plain):
    _cls.__module__ = "golden"

MOMENT = dt.datetime(2024, 10, 27, 2, 30, 0, 5, fold=1)

VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, 1, -1, 127, 128, 255, -129, 2**63, 2**64, -(2**100)],
    "floats": (0.0, -0.0, 1.5, math.nan, math.inf, 5e-324),
    "complex": complex(1, -0.0),
    "texts": ("", "a", "é", "日本", "\U0001f600", "\ud800"),
    "bytes": (b"", b"a\0b", bytearray(b"a")),
    "containers": [(), [], {}, set(), frozenset(), (1, [2, {3}])],
    "dict": {"b": 1, "a": [None], 3: "c", (1, 2): {"x"}, None: 0.5},
    "set": {"apple", "pear", "fig", 1, (2, "kiwi"), frozenset({"a", "b"})},
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "default": collections.defaultdict(list, b=[1], a=[2]),
    "counter": collections.Counter("abracadabra"),
    "deque": collections.deque([1, "a"], maxlen=5),
    "proxy": types.MappingProxyType({"a": 1}),
    "namespace": types.SimpleNamespace(b=1, a=2),
    "enum": Colour.RED,
    "flag": Bits.A | Bits.B,
    "decimal": (decimal.Decimal("1.00"), decimal.Decimal("-0"), decimal.Decimal("NaN")),
    "fraction": fractions.Fraction(-3, 7),
    "naive": MOMENT,
    "utc": MOMENT.replace(tzinfo=dt.timezone.utc),
    "offset": MOMENT.replace(tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30), "X")),
    "zone": MOMENT.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "date": MOMENT.date(),
    "time": MOMENT.time(),
    "timedelta": dt.timedelta(-1, 5, 7),
    "uuid": uuid.UUID(int=12345),
    "path": pathlib.Path("a/b.txt"),
    "pure paths": (pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("C:\\a\\b")),
    "pattern": re.compile(r"a+\s", re.IGNORECASE),
    "ranges": (range(1, 10, 2), slice(None, 5), ..., NotImplemented),
    "addresses": (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_network("fe80::/10")),
    "namedtuple": Point(1, 2),
    "dataclass": Doc("text", ["a", "b"]),
    "pydantic": Model(text="a"),
    "msgspec": Struct("a"),
    "attrs": Attrs("a"),
    "subclass": Text("a"),
    "instance": Plain(),
    "array": np.arange(6, dtype="<i4").reshape(2, 3)[:, ::2],
    "big-endian": np.array([1.5, math.nan], ">f8"),
    "texts array": np.array(["a", "bc"], "<U4"),
    "objects": np.array([[1, "a"], [None, 2.5]], dtype=object),
    "records": np.array([(1, 2.5)], dtype=[("a", "<i2"), ("b", "<f8")]),
    "moments": np.array(["2024-01-01"], dtype="<M8[D]"),
    "scalars": (np.float32(1.5), np.int8(-1), np.bool_(True), np.str_("a")),
    "builtins": (int, len, "a".upper, list[int], str.upper, math.sin, math),
}


def digests() -> dict[str, str]:
    """Return a digest of each value's canonical bytes."""
    import hashlib

    return {name: hashlib.sha256(canonical(VALUES[name])).hexdigest()[:24] for name in VALUES}


if __name__ == "__main__":
    import json

    print(json.dumps(digests()))
