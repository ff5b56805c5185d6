"""Two values have the same canonical bytes if and only if they are the same content."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import itertools
import math
import operator
import pathlib
import random
import re
import socket
import struct
import sys
import threading
import types
import typing
import uuid
import weakref
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoleo.errors import ConfigError, KeyingError
from memoleo.keys import Keyer, register


def take(value: Any) -> None:
    """Stand for a user's function of one parameter."""


KEY = Keyer(take, version=1)


def key(value: Any) -> bytes:
    """Return the key of a call with `value`."""
    return KEY.key((value,), {})


class Colour(enum.Enum):
    RED = 1
    BLUE = "1"


class Shade(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Bits(enum.Flag):
    A = 1
    B = 2


class Text(str):
    __slots__ = ()


class Names(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


class Point(NamedTuple):
    x: Any
    y: Any


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Doc:
    x: Any
    y: Any = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any
    y: Any = 2


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: Any
    y: Any = 2


class Struct(msgspec.Struct):
    x: Any
    y: Any = 2


@attrs.define
class Attrs:
    x: Any
    y: Any = 2


class Plain:
    def __init__(self, x: Any, y: Any = 2) -> None:
        self.x = x
        self.y = y

    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x: Any, y: Any = 2) -> None:
        self.x = x
        self.y = y


def one(x: Any) -> Any:
    return x


def two(x: Any) -> Any:
    return x + 1


BERLIN = dt.timezone(dt.timedelta(hours=1))
NOON = dt.datetime(2024, 10, 27, 2, 30)
STRUCTURED = np.dtype([("a", "<i4"), ("b", "<f8")])

# No two of these are the same content.
DIFFERENT: list[Any] = [
    None, "None", False, True, 0, 1, -1, 255, 256, -128, 2**63, 2**64, 2**64 + 1, -(2**63),
    -(2**200),
    0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 5e-324, 0j, 1 + 0j, complex(0, -0.0),
    "", "1", "True", "a", "A", "é", "e\u0301", "\ud800", "\udc00", "a\0b", "a\0",
    b"", b"1", b"a", bytearray(b""), bytearray(b"a"), memoryview(b"a"), array.array("b", b"a"),
    [], [[]], [[[]]], (), ((),), [()], ([],), {}, [{}], set(), frozenset(), [None], (None,),
    [1], (1,), {1}, frozenset({1}), {1: None}, {True: None}, {1.0: None}, {"1": None}, {b"1": None},
    [1, 2], [2, 1], [[1], 2], [1, [2]], [12], ["1", "2"], ["12"], ["1", "", "2"], (1, 2), {1, 2},
    {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": {"b": 1}}, {("a",): 1}, {("a", 1): 1},
    {"a": (1,)}, {"a": [1]}, {"a": [1.0]}, {"a": None}, {"a": math.nan}, {"a": 2**70},
    collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1), collections.Counter("a"),
    collections.defaultdict(list, a=1), collections.defaultdict(set, a=1),
    collections.defaultdict(None, a=1),
    collections.deque([1]), collections.deque([1], maxlen=3), collections.ChainMap({"a": 1}),
    types.MappingProxyType({"a": 1}), types.SimpleNamespace(a=1), collections.UserDict(a=1),
    Colour.RED, Colour.BLUE, Shade.RED, Number.ONE, Bits.A, Bits.B, Bits.A | Bits.B, Bits(0),
    Text("a"), Text(""), Names([1]), Table(a=1),
    Point(1, 2), Pair(1, 2), Point(1.0, 2), Doc(1), Doc(1, 3), Doc(True), Frozen(1),
    Model(x=1), Model(x=1, y=2), Model(x=1, y=3), Model(x=1, z=2), Model(x=True),
    Struct(1), Struct(1, 3), Struct(1.0), Attrs(1), Attrs(1, 3), Plain(1), Plain(1, 3), Plain(1.0),
    Slotted(1), Slotted(1, 3), msgspec.UNSET,
    decimal.Decimal("1"), decimal.Decimal("1.0"), decimal.Decimal("1.00"), decimal.Decimal("-1"),
    decimal.Decimal("0"), decimal.Decimal("-0"), decimal.Decimal("NaN"), decimal.Decimal("sNaN"),
    decimal.Decimal("Infinity"), decimal.Decimal("1E+1"), decimal.Decimal("10"),
    fractions.Fraction(1),
    fractions.Fraction(1, 2),
    NOON, NOON.replace(fold=1), NOON.replace(tzinfo=dt.timezone.utc), NOON.replace(tzinfo=BERLIN),
    NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    NOON.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
    NOON.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    NOON.replace(microsecond=1), NOON.date(), NOON.time(),
    NOON.time().replace(tzinfo=dt.timezone.utc),
    dt.timedelta(1), dt.timedelta(0, 1), dt.timedelta(0, 0, 1), dt.timezone.utc, BERLIN,
    zoneinfo.ZoneInfo("UTC"), NOON.isoformat(),
    uuid.UUID(int=1), str(uuid.UUID(int=1)), pathlib.Path("a"), pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("a"), pathlib.PurePosixPath("a/b"), pathlib.PurePosixPath("a\\b"),
    re.compile("a"), re.compile("a", re.I), re.compile(b"a"), range(3), range(0, 3, 2), range(1, 3),
    slice(3), slice(0, 3), ..., NotImplemented,
    ipaddress.ip_address("1.2.3.4"), ipaddress.ip_network("1.2.3.4/32"),
    ipaddress.ip_interface("1.2.3.4/32"), ipaddress.ip_address("::1"),
    one, two, lambda x: x, lambda x: x + 2, functools.partial(one, 1), functools.partial(one, 2),
    functools.partial(two, 1), functools.partial(one, x=1), Plain(1).method, Plain(2).method,
    Plain.method, Plain.of_class, len, abs, [1].append, [2].append, "a".upper, str.upper,
    int.__add__, math.sin,
    int, str, Plain, Doc, Model, Colour, math, re, list[int], list[str], dict[str, int],
    typing.Optional[int], typing.Union[int, str],  # noqa: UP007, UP045
    typing.Literal["a"], typing.Any,
    typing.Callable[[int], str],
    ValueError("a"), ValueError("b"), TypeError("a"), ValueError("a", 1),
    np.int64(1), np.int32(1), np.float64(1), np.float32(1), np.bool_(True), np.str_("a"),
    np.bytes_(b"a"),
    np.float64("nan"), np.datetime64("2024-01-01"), np.datetime64("2024-01-01", "s"),
    np.datetime64("NaT", "s"),
    np.array([]), np.array([1]), np.array([1.0]), np.array([[1]]), np.array(1), np.array([1],
    "<i4"), np.array([1], ">i8"),
    np.array([1, 2]), np.array([[1, 2]]), np.array([[1], [2]]), np.array([1, 0], "i1"),
    np.array([1], "u1"),
    np.zeros((0, 2)), np.zeros((2, 0)), np.array([np.nan]), np.array([0.0]), np.array([-0.0]),
    np.array(["a"]), np.array(["a"], "U5"), np.array([b"a"]), np.array(["a"], object),
    np.array([1], object),
    np.array([[1, "a"]], object), np.zeros(1, STRUCTURED), np.ones(1, STRUCTURED), np.longdouble(1),
    np.array([1j]), np.array([complex(np.nan, 1)]), np.array([complex(1, np.nan)]),
    np.ma.array([1], mask=[True]),
    np.dtype("i4"), np.dtype("f4"), np.sin,
]  # fmt: skip


def test_values_of_different_content_have_different_keys() -> None:
    """No two values that differ in type or content share a key, at any depth."""
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"a": {"b": v}}, lambda v: (v,)):
        found: dict[bytes, Any] = {}
        for value in DIFFERENT:
            digest = key(wrap(value))
            assert digest not in found, f"{value!r} and {found.get(digest)!r}"
            found[digest] = value
    assert len(DIFFERENT) > 200


def strided() -> Any:
    return np.arange(12).reshape(3, 4)[:, ::2]


def odd_nan() -> float:
    found: float = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]
    return found


def aliased() -> Any:
    part = {"a": [1]}
    return [part, part, (part, part)]


def unaliased() -> Any:
    return [{"a": [1]}, {"a": [1]}, ({"a": [1]}, {"a": [1]})]


def ordered(names: str) -> dict[str, Any]:
    return {name: (name,) for name in names}


def attribute_order() -> Any:
    value = Plain.__new__(Plain)
    value.y = 2
    value.x = 1
    return value


def structured(fill: int) -> Any:
    """Return an array whose gaps hold `fill`."""
    dtype = np.dtype([("a", "i1"), ("b", "<f8")], align=True)
    raw = np.full(dtype.itemsize * 2, fill, "u1")
    found = raw.view(dtype)
    found["a"] = 1
    found["b"] = 2
    return found


SAME: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    ("aliasing", aliased, unaliased),
    ("order of dict items", lambda: ordered("abcdef"), lambda: ordered("fedcba")),
    ("order of dict items, plain", lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    ("order of mixed keys", lambda: {1: 1, "a": 2, None: 3}, lambda: {None: 3, "a": 2, 1: 1}),
    ("order of sets", lambda: set("abcdefgh"), lambda: set("hgfedcba")),
    ("order of nested sets", lambda: {frozenset("ab"), "c"}, lambda: {"c", frozenset("ba")}),
    ("nan", lambda: math.nan, lambda: -math.nan),
    ("nan bits", lambda: [math.nan], lambda: [odd_nan()]),
    ("nan keys", lambda: {math.nan: 1, odd_nan(): 2}, lambda: {odd_nan(): 2, math.nan: 1}),
    ("strides", strided, lambda: strided().copy()),
    ("Fortran order", lambda: np.ones((2, 3)), lambda: np.asfortranarray(np.ones((2, 3)))),
    ("array nan", lambda: np.array([math.nan]), lambda: np.array([odd_nan()])),
    ("complex nan", lambda: np.array([1j * math.nan]), lambda: np.array([1j * odd_nan()])),
    ("array of objects", lambda: np.array([[1, "a"]], object), lambda: np.array([[1, "a"]],
     object)),
    ("gaps in records", lambda: structured(0), lambda: structured(255)),
    ("read-only array", lambda: np.ones(2), lambda: np.frombuffer(np.ones(2).tobytes())),
    ("counters", lambda: collections.Counter("ab"), lambda: collections.Counter("ba")),
    ("order of attributes", lambda: Plain(1), attribute_order),
    ("model", lambda: Model(x=[1]), lambda: Model.model_validate({"x": [1]})),
    ("model fields set", lambda: Model(x=1, y=2), lambda: Model(y=2, x=1)),
    ("struct", lambda: Struct({"a": 1}), lambda: Struct({"a": 1})),
    ("attrs", lambda: Attrs([1]), lambda: Attrs([1])),
    ("dataclass", lambda: Doc([1]), lambda: Doc([1])),
    ("uuid", lambda: uuid.UUID(int=5), lambda: uuid.UUID(str(uuid.UUID(int=5)))),
    ("zone", lambda: NOON.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
     lambda: NOON.replace(tzinfo=zoneinfo.ZoneInfo.no_cache("UTC"))),
    ("path", lambda: pathlib.Path("a//b/./c"), lambda: pathlib.Path("a/b/c")),
    ("partial", lambda: functools.partial(one, [1]), lambda: functools.partial(one, [1])),
    ("method", lambda: Plain([1]).method, lambda: Plain([1]).method),
    ("interned or not", lambda: "ab", lambda: "".join(["a", "b"])),
    ("big int", lambda: 2**100, lambda: int("1" + "0" * 100, 2)),
    ("memoryview", lambda: memoryview(b"abc"), lambda: memoryview(bytearray(b"abc"))),
    ("local function", lambda: closure(1), lambda: closure(1)),
]  # fmt: skip


def closure(value: Any) -> Any:
    def inner(x: Any) -> Any:
        return x, value

    return inner


@pytest.mark.parametrize(
    ("first", "second"), [row[1:] for row in SAME], ids=[row[0] for row in SAME]
)
def test_values_of_the_same_content_have_the_same_key(first: Any, second: Any) -> None:
    """Identity, order where it has no meaning, and memory layout leave no trace in a key."""
    assert key(first()) == key(second())
    assert key([(first(),)]) == key([(second(),)])


def test_closures_with_different_captured_values_differ() -> None:
    """Two functions made by one factory are told apart by what they captured."""
    assert key(closure(1)) != key(closure(1.0))
    assert key(closure([1])) != key(closure([2]))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from(list(Colour)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
        | st.builds(Doc, inner, inner)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=8,
)


def exact(value: Any) -> Any:
    """Return a text that is the same for two values if they are the same content."""
    kind = type(value).__qualname__
    if isinstance(value, dict):
        return f"{kind}{sorted((exact(k), exact(v)) for k, v in value.items())}"
    if isinstance(value, (list, tuple)):
        return f"{kind}{[exact(item) for item in value]}"
    if isinstance(value, Doc):
        return f"Doc{exact((value.x, value.y))}"
    if isinstance(value, dt.datetime):
        return f"{kind}{value!r}{value.fold}"
    return f"{kind}{value!r}"


@settings(max_examples=200, deadline=None)
@given(ANYTHING, ANYTHING)
def test_keys_are_equal_exactly_when_contents_are(first: Any, second: Any) -> None:
    """The key of a value agrees with a slow and obvious comparison."""
    assert (key(first) == key(second)) == (exact(first) == exact(second))


def shuffled(value: Any, seed: random.Random) -> Any:
    """Return an equal value made of new objects, with dicts in another order."""
    if isinstance(value, dict):
        rows = [(name, shuffled(item, seed)) for name, item in value.items()]
        seed.shuffle(rows)
        return dict(rows)
    if isinstance(value, list):
        return [shuffled(item, seed) for item in value]
    if isinstance(value, str):
        return "".join(list(value))
    return value


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.randoms(use_true_random=False))
def test_plain_data_is_keyed_by_content_alone(value: Any, seed: random.Random) -> None:
    """Rebuilt and reordered plain data has the same key, in both lanes."""
    assert key(value) == key(shuffled(value, seed))
    assert key((value,)) == key((shuffled(value, seed),))
    assert key(value) != key((value,))
    assert key(value) != key([value])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_no_concatenation_is_ambiguous(first: list[str], second: list[str]) -> None:
    """Splitting the same characters differently gives another key."""
    for kind in (list, tuple):
        assert (key(kind(first)) == key(kind(second))) == (first == second)


def cyclic_list() -> Any:
    found: list[Any] = []
    found.extend([found] * 50)
    return found


def cyclic_dict() -> Any:
    found: dict[str, Any] = {}
    found["a"] = {"b": [found]}
    return found


def cyclic_object() -> Any:
    found = Plain(1)
    found.y = [found]
    return found


def deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


async def coroutine() -> None: ...


REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("generator", lambda: (x for x in [])),
    ("iterator", lambda: iter([1])),
    ("map", lambda: map(len, [])),
    ("count", itertools.count),
    ("object", object),
    ("empty instance", lambda: type("Empty", (), {})()),
    ("lock", threading.Lock),
    ("event", threading.Event),
    ("thread", threading.Thread),
    ("local", threading.local),
    ("StringIO", io.StringIO),
    ("BytesIO", io.BytesIO),
    ("weak reference", lambda: weakref.ref(take)),
    ("frame", sys._getframe),
    ("code", lambda: take.__code__),
    ("property", lambda: property(len)),
    ("cyclic list", cyclic_list),
    ("cyclic dict", cyclic_dict),
    ("cyclic object", cyclic_object),
    ("201 levels", lambda: deep(201)),
    ("100,000 levels", lambda: deep(100_000)),
    ("random", lambda: np.random.default_rng(1)),
    ("nested in Decimal's neighbour", lambda: [decimal.Decimal(1), object()]),
    ("closure over a lock", lambda: functools.partial(one, threading.Lock())),
    ("memoryview with gaps", lambda: memoryview(b"abcd")[::2]),
]


@pytest.mark.parametrize("make", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"a": [(v,)]}], ids=["bare", "nested"])
def test_what_has_no_exact_content_is_refused(make: Any, wrap: Any) -> None:
    """A value that can't be compared raises KeyingError, never RecursionError or a guess."""
    with pytest.raises(KeyingError, match=r"^value.*can't be keyed.*ignore=.*normalize=.*register"):
        key(wrap(make()))


def test_open_files_sockets_and_coroutines_are_refused(tmp_path: pathlib.Path) -> None:
    """Handles of the operating system have no content."""
    with (tmp_path / "a").open("w") as file, socket.socket() as connection:
        for value in (file, connection):
            with pytest.raises(KeyingError):
                key([value])
    waiting = coroutine()
    with pytest.raises(KeyingError, match="coroutine"):
        key(waiting)
    waiting.close()


def test_200_levels_are_keyed_without_touching_the_recursion_limit() -> None:
    """The documented depth works."""
    assert key(deep(199)) != key(deep(198))


def test_the_error_names_the_path() -> None:
    """A KeyingError says where the value stands, down to attributes and keys."""

    class Client:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    def ask(text: str, options: Any = None, *rest: Any, **more: Any) -> None: ...

    keyer = Keyer(ask, version=1)
    tool = {"tools": [1, 2, types.SimpleNamespace(client=Client())]}
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        (("a", tool), {}, "options['tools'][2].client.lock"),
        (("a", 1, 2, object()), {}, "rest[1]"),
        (("a",), {"extra": (1, object())}, "more['extra'][1]"),
        (("a", Doc(Model(x=object()))), {}, "options.x.x"),
        (("a", {1: object()}), {}, "options[1]"),
        (("a", {object()}), {}, "options{…}"),
        (("a", {(1, object()): 1}), {}, "options.keys()[1]"),
        (("a", functools.partial(one, object())), {}, "options.args[0]"),
    ]
    for args, kwargs, path in cases:
        with pytest.raises(KeyingError) as caught:
            keyer.key(args, kwargs)
        assert caught.value.path == path


class Hostile:
    def __init__(self, x: Any) -> None:
        object.__setattr__(self, "x", x)

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def __hash__(self) -> int:
        raise AssertionError

    def __repr__(self) -> str:
        raise AssertionError

    def __getattr__(self, name: str) -> Any:
        raise AssertionError

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError

    def __bool__(self) -> bool:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError


class HostileText(str):
    __slots__ = ()
    __eq__ = __hash__ = __repr__ = Hostile.__repr__  # type: ignore[assignment]
    __str__ = __len__ = __iter__ = encode = Hostile.__repr__  # type: ignore[assignment]


class HostileList(list):  # type: ignore[type-arg]
    __eq__ = __hash__ = __repr__ = Hostile.__repr__  # type: ignore[assignment]
    __len__ = __iter__ = Hostile.__repr__  # type: ignore[assignment]


def test_no_method_of_a_user_class_is_called() -> None:
    """Broken comparisons, hashes, representations and attribute hooks do no harm."""
    for kind in (Hostile, HostileText, HostileList):
        assert key([kind("ab")]) == key([kind("ab")])
        assert key([kind("ab")]) != key([kind("ba")])

    def method(self: Any, value: int) -> None: ...

    method_key = Keyer(method)
    method_key.is_method = True
    assert method_key.key((Hostile("ab"), 1), {}) != method_key.key((Hostile("ba"), 1), {})


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees
        self.lock = threading.Lock()


class Warm(Celsius):
    pass


class Known:
    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()

    def __memoleo_key__(self) -> Any:
        return self.name


def test_an_adapter_says_what_the_content_is() -> None:
    """register() holds for a class and its subclasses, and the instance's class counts too."""
    with pytest.raises(KeyingError):
        key(Celsius(1))
    register(Celsius, lambda value: value.degrees)
    assert key(Celsius(1)) == key(Celsius(1))
    assert key(Celsius(1)) != key(Celsius(2))
    assert key(Celsius(1)) != key(Celsius(1.0))
    assert key(Celsius(1)) != key(Warm(1))
    assert key([Warm(1)]) == key([Warm(1)])
    before = key(Celsius(1.4))
    register(Celsius, lambda value: round(value.degrees))
    assert key(Celsius(1.4)) == key(Celsius(1.2)) != before


def test_a_class_may_say_it_itself() -> None:
    """__memoleo_key__ is the method that stands for an adapter."""
    assert key(Known("a")) == key(Known("a")) != key(Known("b"))


def test_an_adapter_without_an_end_is_an_error_of_the_value() -> None:
    """An adapter that returns its own argument makes the value cyclic."""

    class Loop: ...

    register(Loop, lambda value: [value])
    with pytest.raises(KeyingError, match="contains itself"):
        key(Loop())


@pytest.mark.parametrize(("cls", "adapter"), [(str, len), (dict, len), ("Celsius", len), (Doc, 3)])
def test_a_bad_adapter_is_refused_at_once(cls: Any, adapter: Any) -> None:
    """Plain types are keyed exactly as they are, and an adapter is callable."""
    with pytest.raises(ConfigError):
        register(cls, adapter)


def test_a_cached_property_does_not_change_the_key() -> None:
    """What follows from the rest may be computed between two calls."""

    class Lazy:
        def __init__(self, x: int) -> None:
            self.x = x

        @functools.cached_property
        def double(self) -> int:
            return 2 * self.x

    value = Lazy(2)
    before = key(value)
    assert value.double == 4
    assert key(value) == before


def test_private_and_extra_content_of_a_model_counts() -> None:
    """Of a pydantic model: declared fields, extras, private attributes, and which were set."""

    class Secret(pydantic.BaseModel):
        x: int = 1
        _inner: int = pydantic.PrivateAttr(default=1)

    first, second = Secret(), Secret()
    assert key(first) == key(second)
    second._inner = 2
    assert key(first) != key(second)
    assert key(Secret()) != key(Secret(x=1))


class Hidden:
    __slots__ = ("hidden",)


@dataclasses.dataclass
class HiddenField(Hidden):
    x: int = 1


@attrs.define
class HiddenAttribute(Hidden):
    x: int = 1


class HiddenModel(pydantic.BaseModel):
    __slots__ = ("hidden",)
    x: int = 1


class HiddenError(ValueError):
    __slots__ = ("hidden",)


@pytest.mark.parametrize("kind", [HiddenField, HiddenAttribute, HiddenModel, HiddenError])
def test_a_slot_beside_the_fields_counts(kind: Any) -> None:
    """What a class without fields keeps in its slots is content of the instance as well."""

    def made(content: int) -> Any:
        value = kind()
        object.__setattr__(value, "hidden", content)
        return value

    assert key(made(1)) == key(made(1)) != key(made(2))
    assert key(made(1)) != key(kind())


def model_of(hint: Any) -> Any:
    class Inner(pydantic.BaseModel):
        x: hint

    class Outer(pydantic.BaseModel):
        inner: list[Inner]

    return Outer


def model_with(step: int) -> Any:
    class Checked(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            return value + step

    return Checked


def class_with(value: Any) -> Any:
    class Local:
        shared = value

        def method(self) -> Any:
            return value

    return Local


def class_from(base: type) -> Any:
    class Local(base):  # type: ignore[misc]
        pass

    return Local


def tool(words: str) -> Any:
    def call(x: int) -> int:
        return x

    call.__doc__ = words
    return call


def numbered(x: int) -> int:
    return x


def lettered(x: str) -> int:
    return x  # type: ignore[return-value]


lettered.__qualname__ = lettered.__name__ = "numbered"

DECLARED: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    ("type of a field", lambda: model_of(int), lambda: model_of(str)),
    ("choices", lambda: model_of(typing.Literal["a"]), lambda: model_of(typing.Literal["b"])),
    ("validator", lambda: model_with(1), lambda: model_with(2)),
    ("captured", lambda: class_with(1), lambda: class_with(2)),
    ("base", lambda: class_from(Plain), lambda: class_from(Celsius)),
    (
        "typed dict",
        lambda: typing.TypedDict("X", {"x": int}),  # type: ignore[operator]
        lambda: typing.TypedDict("X", {"x": str}),  # type: ignore[operator]
    ),
    (
        "keys that may be missing",
        lambda: typing.TypedDict("X", {"x": int}),  # type: ignore[operator]
        lambda: typing.TypedDict("X", {"x": int}, total=False),  # type: ignore[operator]
    ),
    ("new type", lambda: typing.NewType("X", int), lambda: typing.NewType("X", str)),
    (
        "default",
        lambda: pydantic.create_model("X", x=(int, 1)),
        lambda: pydantic.create_model("X", x=(int, 2)),
    ),
    (
        "description",
        lambda: pydantic.create_model("X", x=(int, pydantic.Field(description="a"))),
        lambda: pydantic.create_model("X", x=(int, pydantic.Field(description="b"))),
    ),
    (
        "limit",
        lambda: pydantic.create_model("X", x=(int, pydantic.Field(gt=1))),
        lambda: pydantic.create_model("X", x=(int, pydantic.Field(gt=2))),
    ),
    (
        "docstring of a class",
        lambda: pydantic.create_model("X", __doc__="a", x=(int, 1)),
        lambda: pydantic.create_model("X", __doc__="b", x=(int, 1)),
    ),
    (
        "default of a struct",
        lambda: msgspec.defstruct("X", [("x", int, 1)]),
        lambda: msgspec.defstruct("X", [("x", int, 2)]),
    ),
    (
        "tag of a struct",
        lambda: msgspec.defstruct("X", ["x"], tag="a"),
        lambda: msgspec.defstruct("X", ["x"], tag="b"),
    ),
    (
        "default of attrs",
        lambda: attrs.make_class("X", {"x": attrs.field(default=1)}),
        lambda: attrs.make_class("X", {"x": attrs.field(default=2)}),
    ),
    ("docstring of a function", lambda: tool("First."), lambda: tool("Second.")),
    ("annotation", lambda: numbered, lambda: lettered),
]


@pytest.mark.parametrize(("what", "first", "second"), DECLARED, ids=[row[0] for row in DECLARED])
def test_schemas_and_tools_are_told_apart(
    what: str, first: Callable[[], Any], second: Callable[[], Any]
) -> None:
    """Classes and functions that are made at run time, or read, count by what they say."""
    assert key(first()) == key(first())
    assert key(second()) == key(second())
    assert key(first()) != key(second())


def test_urls_of_pydantic_count_by_their_text() -> None:
    """A model with a field for a URL can be keyed."""

    class Linked(pydantic.BaseModel):
        link: pydantic.HttpUrl
        store: pydantic.PostgresDsn | None = None

    def made(**content: str) -> bytes:
        return key(Linked.model_validate(content))

    store = "postgres://u@one,two/db"
    assert made(link="http://a.example") == made(link="http://A.example/")
    assert made(link="http://a.example") != made(link="http://b.example")
    assert made(link="http://a.example") != made(link="http://a.example", store=store)


def test_an_extra_hides_no_field_of_its_name() -> None:
    """A field that is set by its alias counts beside an extra with the field's own name."""

    class Aliased(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        x: int = pydantic.Field(alias="other")
        _inner: int = pydantic.PrivateAttr(default=1)

    def made(**content: Any) -> bytes:
        return key(Aliased.model_validate(content))

    assert made(other=1, x=3) != made(other=2, x=3)
    assert made(other=1, _inner=5) != made(other=1, _inner=6)
    assert made(other=1, model_fields_set=5) != made(other=1, model_fields_set=6)


def test_50_megabytes_are_encoded_once() -> None:
    """A large text needs one encoded copy of itself, not several."""
    import tracemalloc

    text = "x" * 50_000_000
    for value in (text, (text,)):
        key("x"), key(("x",))
        tracemalloc.start()
        key(value)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The encoder's buffer grows by half its size at a time.
        assert peak < 1.6 * len(text)


def test_a_large_array_is_not_copied() -> None:
    """An array's own memory is hashed."""
    import tracemalloc

    value = np.zeros(2_000_000)
    tracemalloc.start()
    key(value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < value.nbytes / 4


def test_operators_of_the_standard_library_are_keyed_by_name() -> None:
    """Builtin functions stand for themselves."""
    assert key(operator.add) == key(operator.add) != key(operator.sub)
