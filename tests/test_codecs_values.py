"""Values of the standard library and of numpy come back equal, and of the same type all the way."""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import math
import pathlib
import re
import struct
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoleo.codecs import AutoCodec
from memoleo.errors import CodecError

codec = AutoCodec()


def copied(value: Any) -> Any:
    return codec.decode(codec.encode(value))


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal and of the same types, deep, signs and bits of floats too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, Counter):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, defaultdict) and left.default_factory is not right.default_factory:
        return False
    if isinstance(left, deque) and left.maxlen != right.maxlen:
        return False
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (list, tuple, deque)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(
            any(same(item, other) for other in right) for item in left
        )
    if isinstance(left, (datetime, time)):
        return (
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.fold == right.fold
            and repr(left.tzinfo) == repr(right.tzinfo)
        )
    return bool(left == right)


class Colour(enum.Enum):
    RED = 1
    ALSO_RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    EXECUTE = 4


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


BERLIN = ZoneInfo("Europe/Berlin")
VALUES = [
    None, True, False, 0, 1, -1, 1.0, -0.0, math.inf, -math.inf, math.nan, "", "ä", b"", b"\xff",
    [], {}, [[]], [{}], {"b": 1, "a": {"d": None, "c": [1.5, "x", b"y", True]}},
    2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, -(10**400),
    [1, 2**70], {"a": [2**70, ("x",)]}, "\ud800", ["\udcff", "ok"], {"\ud800": "\udfff"},
    (), (1,), (1, [2, (3,)]), ((),), [(1, 2), [1, 2]], {1: "int", "1": "str", 1.5: "float"},
    {None: 1, True: 2, b"x": 3, (1, (2,)): 4, frozenset({1}): 5}, {"a": {1: 2}, "b": [1]},
    set(), {1, "a", b"a", None, (1, 2)}, frozenset({frozenset({1}), 2}), {1.0}, {True},
    bytearray(b"ab"), bytearray(), 1j, complex(-0.0, math.nan), range(3), range(0, 10**30, 7),
    slice(1, None, -1), slice((1, 2), "x"), ..., NotImplemented,
    Decimal("1.50"), Decimal("-0"), Decimal("1E+5"), Decimal("NaN"), Decimal("sNaN12"),
    Decimal("-Infinity"), Decimal(10) ** 60 + Decimal("0.1"), Fraction(1, 3), Fraction(10**40, 7),
    date(2024, 2, 29), date.max, time(1, 2, 3, 4), time(1, fold=1), time(5, tzinfo=timezone.utc),
    datetime(2024, 1, 1), datetime.min, datetime.max, datetime(2024, 1, 1, tzinfo=timezone.utc),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=7, microseconds=1))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "Zulu")),
    timedelta.min, timedelta.max, timedelta(days=-1, microseconds=1), timezone.utc, BERLIN,
    uuid.UUID(int=5), uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe), pathlib.Path("/a/b"),
    pathlib.Path("rel/\udcff"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath(r"C:\x"),
    ipaddress.ip_address("1.2.3.4"), ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_interface("::1/64"),
    re.compile("a+", re.I | re.X), re.compile(rb"\xff"), re.compile("ü"),
    deque([1, (2,)], maxlen=3), deque(), OrderedDict([("b", 1), ("a", (2,))]),
    Counter("abracadabra"),
    Counter({"a": -1, "b": 0}), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}),
    defaultdict(int), Colour.RED, Colour.ALSO_RED, Colour.BLUE, Level.LOW, Word.YES, Access.READ,
    Access(0), Access.READ | Access.EXECUTE, ~Access.READ, Bits.ONE | Bits.TWO, Bits(8), Bits(0),
    {Colour.RED: {Level.LOW: (Word.YES,)}}, [Level.LOW, 1, True, 1.0], [Word.YES, "yes"],
]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    VALUES,
    ids=lambda value: type(value).__name__ if "{" in repr(value) else repr(value)[:40],
)
def test_round_trip(value: Any) -> None:
    """A value comes back equal and of the same type."""
    assert same(copied(value), value)
    assert same(copied([value, {"x": value}, (value,)]), [value, {"x": value}, (value,)])


@pytest.mark.parametrize("value", [..., NotImplemented, None, True, Colour.RED, timezone.utc])
def test_singletons(value: Any) -> None:
    """Singletons stay what they are."""
    assert copied([value])[0] is value


def test_confusable_values() -> None:
    """All confusable values get different payloads."""
    confusable = [
        1, 1.0, True, "1", b"1", Decimal(1), Fraction(1), 1 + 0j, Level.LOW, Bits.ONE,
        bytearray(b"1"),
        [1], (1,), {1}, frozenset({1}), deque([1]), {1: None}, {"1": None},
        OrderedDict({"1": None}),
        np.int64(1), np.int32(1), np.float64(1), np.array(1), np.array([1]), np.str_("1"),
        0.0, -0.0,
    ]  # fmt: skip
    assert len({codec.encode(value) for value in confusable}) == len(confusable)


def test_plain_data_is_messagepack() -> None:
    """Plain data is MessagePack and nothing else."""
    import msgspec

    value = {"b": [1, 2.5, None], "a": {"x": b"y"}}
    assert codec.encode(value) == msgspec.msgpack.encode(value)


def test_dict_order() -> None:
    """The order of a dict survives."""
    names = [f"key{number}" for number in reversed(range(50))]
    assert list(copied(dict.fromkeys(names))) == names
    assert list(copied({name: (name,) for name in names})) == names


def test_decoded_values_are_separate() -> None:
    """Every decode makes a value of its own."""
    payload = codec.encode({"a": [1], "b": ([2],), "c": np.zeros(3)})
    first, second = codec.decode(payload), codec.decode(payload)
    first["a"].append(1)
    first["b"][0].append(1)
    first["c"][0] = 1
    assert same(second["a"], [1])
    assert same(second["b"], ([2],))
    assert second["c"].tolist() == [0.0, 0.0, 0.0]


def test_payload_as_memoryview() -> None:
    """A payload may be any bytes like object."""
    for value in ([1, "a"], (1, 2**70), "x" * 100_000):
        assert same(codec.decode(memoryview(codec.encode(value))), value)  # type: ignore[arg-type]


ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.arange(24).reshape(2, 3, 4)[:, ::2, 1:],
    np.array(5.0), np.array([]), np.zeros((0, 3), "f4"), np.zeros((2, 0), order="F"),
    np.array([1, 2], ">i2"), np.array([True, False]), np.array([1 + 2j]), np.float16([1, 2]),
    np.array(["2024-01-01", "NaT"], "M8[ns]"), np.array([1, 2], "m8[h]"),
    np.array(["ab", "ü"]), np.array([b"ab", b"c"]), np.zeros(3, "V5"), np.array(["", ""]),
    np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
    np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    np.zeros(2, [("m", "f4", (2, 2)), ("n", [("x", "i8")])]),
    np.array([math.nan, -0.0, math.inf]),
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_array_round_trip(array: Any) -> None:
    """An array comes back with its dtype shape order and bits."""
    for result in (copied(array), copied({"x": [array]})["x"][0]):
        assert type(result) is np.ndarray
        assert result.dtype == array.dtype
        assert result.dtype.fields == array.dtype.fields
        assert result.shape == array.shape
        # Padding between aligned fields is no content.
        assert array.dtype.isalignedstruct or result.tobytes() == array.tobytes()
        assert str(result) == str(array)
        assert result.flags.writeable
        assert result.flags.owndata
        assert result.flags.aligned
        if array.flags.contiguous or array.flags.fnc:
            assert result.flags.fnc == array.flags.fnc


def test_array_size() -> None:
    """An array takes its size and no more."""
    array = np.random.default_rng(1).random(100_000)
    assert len(codec.encode(array)) < array.nbytes + 64


def test_object_arrays() -> None:
    """An array of objects is stored item by item."""
    array = np.empty((2, 2), object, order="F")
    array[0, 0], array[0, 1], array[1, 0], array[1, 1] = (1,), "a", None, [Decimal(1)]
    result = copied(array)
    assert result.dtype == object
    assert same(result.tolist(), array.tolist())
    with pytest.raises(CodecError, match=r"flat\[1\].*object can't be stored"):
        codec.encode(np.array([1, object()], object))


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.5), np.float64(-0.0), np.float64(math.nan), np.int8(-1), np.uint64(2**64 - 1),
        np.bool_(True), np.complex64(1j), np.datetime64("2024-01-01", "ns"), np.timedelta64(5, "D"),
        np.datetime64("NaT", "D"), np.str_("a\0"), np.bytes_(b"a\0"), np.longdouble(1) / 3,
        np.float16(1),
        np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])[0],
    ],
    ids=repr,
)  # fmt: skip
def test_numpy_scalars(scalar: Any) -> None:
    """A numpy scalar stays one."""
    result = copied((scalar,))[0]
    assert type(result) is type(scalar)
    assert result.dtype == scalar.dtype
    assert result.tobytes() == scalar.tobytes()


def test_dtypes() -> None:
    """A dtype is a value too."""
    for dtype in (np.dtype("<f4"), np.dtype([("a", "i4"), ("b", "f8")])):
        assert copied([dtype])[0] == dtype


def test_array_subclasses() -> None:
    """Subclasses of arrays are refused."""
    with pytest.raises(CodecError, match="MaskedArray"):
        codec.encode(np.ma.masked_array([1, 2], [0, 1]))
    with pytest.raises(CodecError, match="recarray"):
        codec.encode(np.rec.array([(1, 2)]))


# What payloads of the first format look like. A change here makes stored values unreadable.
GOLDEN = {
    "c0": None,
    "920181a161cb3ff8000000000000": [1, {"a": 1.5}],
    "c10192930301a16190": (1, "a"),
    "c1019293029101910290": {1: 2},
    "c1019292040190": {1},
    "c101929205a16190": frozenset({"a"}),
    "c101929306020190": deque([1], 2),
    "c10192930791a161910190": OrderedDict(a=1),
    "c101929408a46c6973749101910290": defaultdict(list, {1: 2}),
    "c10192930991a161910190": Counter("a"),
    "c101929214c403eda08090": "\ud800",
    "c101929215c40900000000000000004090": 2**70,
    "c10192911690": ...,
    "c10192911790": NotImplemented,
    "c101929218c4016190": bytearray(b"a"),
    "c101929319cb0000000000000000cb3ff000000000000090": 1j,
    "c10192921aa4312e353090": Decimal("1.50"),
    "c10192931b010390": Fraction(1, 3),
    "c10192941c00030190": range(3),
    "c10192941d0102c090": slice(1, 2),
    "c10192931ea1612290": re.compile("a", re.I),
    "c10192941fcd07e8021d90": date(2024, 2, 29),
    "c1019297200102000001c090": time(1, 2, fold=1),
    "c101929a210092239422000000cd07e801010000000090": datetime(2024, 1, 1, tzinfo=timezone.utc),
    "c10192942201020390": timedelta(1, 2, 3),
    "c101929224ad4575726f70652f4265726c696e90": BERLIN,
    "c101929326c41000000000000000000000000000000001c090": uuid.UUID(int=1),
    "c101929327ad50757265506f73697850617468a16190": pathlib.PurePosixPath("a"),
    "c101929328ab4950763641646472657373a33a3a3190": ipaddress.ip_address("::1"),
    "c10192953ca33c69329102a143d6010000010090": np.arange(2, dtype="<i2"),
    "c10192953d9102a14301a16190": np.array([1, "a"], object),
    "c10192933ea33c6634c4040000803f90": np.float32(1),
    "c10192933ea155a16190": np.str_("a"),
    "c10192923fa33c663890": np.dtype("<f8"),
}


@pytest.mark.parametrize("payload", GOLDEN)
def test_golden(payload: str) -> None:
    """Payloads that were stored by the first release are still read."""
    value, result = GOLDEN[payload], codec.decode(bytes.fromhex(payload))
    if isinstance(value, np.ndarray):
        value, result = (value.dtype, value.tolist()), (result.dtype, result.tolist())
    assert same(result, value)


any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.binary(max_size=8)
hashable = st.recursive(
    scalars
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Colour, *Level, *Word, *Access, Bits(3)]),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
values = st.recursive(
    scalars | hashable | st.binary(max_size=5).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(any_text, inner, max_size=5)
        | st.dictionaries(hashable, inner, max_size=5)
        | st.sets(hashable, max_size=5)
        | st.lists(inner, max_size=3).map(lambda items: deque(items, 3))
        | st.dictionaries(any_text, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=20,
)


@given(values)
def test_any_round_trip(value: Any) -> None:
    """Any value comes back exactly."""
    assert same(copied(value), value)


@given(st.lists(values, min_size=2, max_size=2))
def test_payloads_are_distinct(pair: list[Any]) -> None:
    """Two values share a payload only if they are the same."""
    left, right = pair
    if codec.encode(left) == codec.encode(right):
        assert same(left, right)


@given(st.binary(max_size=200))
def test_garbage(garbage: bytes) -> None:
    """Garbage is a `CodecError` or a value and nothing else."""
    for payload in (garbage, b"\xc1\x01" + garbage, b"\xc1\x02" + garbage, b"\xc1P" + garbage):
        with contextlib.suppress(CodecError):
            codec.decode(payload)


@given(values, st.data())
def test_flipped_byte(value: Any, data: st.DataObject) -> None:
    """A flipped byte is a `CodecError` or another value."""
    payload = bytearray(codec.encode((value,)))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(CodecError):
        codec.decode(bytes(payload))
