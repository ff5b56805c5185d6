"""Values of the program's own classes: the whole state comes back, and no code of theirs runs."""

from __future__ import annotations

import collections
import enum
import functools
import gc
import subprocess
import sys
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timezone
from types import ModuleType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import ollama
import pydantic
import pytest

from memoleo.codecs import AutoCodec, register
from memoleo.errors import CodecError, ConfigError

codec = AutoCodec()
T = TypeVar("T")
ran: list[str] = []


def copied(value: Any) -> Any:
    ran.clear()
    result = codec.decode(codec.encode(value))
    assert ran == [], "code of the class ran"
    return result


class Noisy:
    """Notes every way in which a class could notice that it is being rebuilt."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        ran.append("__new__")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        ran.append(f"set {name}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        ran.append(f"get {name}")
        raise AttributeError(name)

    def __setstate__(self, state: Any) -> None:
        ran.append("__setstate__")

    def __reduce__(self) -> Any:
        ran.append("__reduce__")
        return super().__reduce__()


@dataclass
class Point(Noisy):
    x: int
    tags: list[str] = field(default_factory=list)
    length: float = field(init=False)
    scale: InitVar[int] = 1
    shared: ClassVar[int] = 3

    def __post_init__(self, scale: int) -> None:
        ran.append("__post_init__")
        self.length = self.x * scale
        self.hidden = ("not", "a field")


@dataclass(frozen=True)
class Frozen:
    when: datetime
    inner: Frozen | None = None


@dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    b: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SlottedChild(Slotted):
    c: Any = None


@dataclass
class Box(Generic[T]):
    content: T


class Undecorated(Point):
    pass


class Pair(NamedTuple):
    left: Any
    right: Any = None


OldPair = collections.namedtuple("OldPair", "left right")


class Inner(pydantic.BaseModel):
    n: int = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    inner: Inner = Inner()
    many: dict[str, list[Inner]] = {}
    when: datetime | None = None
    _secret: int = pydantic.PrivateAttr(default=1)

    @pydantic.field_validator("name")
    @classmethod
    def _check(cls, value: str) -> str:
        ran.append("validator")
        return value

    def model_post_init(self, context: Any) -> None:
        ran.append("model_post_init")


class FrozenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    a: tuple[int, ...]


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Envelope(pydantic.BaseModel, Generic[T]):
    body: T


IntEnvelope = Envelope[int]


class Linked(pydantic.BaseModel):
    link: pydantic.HttpUrl
    any_link: pydantic.AnyUrl
    store: pydantic.PostgresDsn


@pydantic.dataclasses.dataclass
class CheckedPoint:
    x: int
    y: list[int]


class Row(msgspec.Struct):
    a: int
    b: Any = None


class FrozenRow(msgspec.Struct, frozen=True, kw_only=True, tag="row"):
    a: int
    b: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ran.append("Struct post_init")


class ChildRow(FrozenRow, frozen=True, dict=True):
    c: Any = None


@attrs.define
class Defined:
    a: int
    b: list[int] = attrs.field(factory=list, validator=lambda *_: ran.append("attrs validator"))
    _c: int = 5

    def __attrs_post_init__(self) -> None:
        ran.append("attrs post_init")


@attrs.frozen(cache_hash=True)
class Hashed:
    a: str


@attrs.define(slots=False)
class Open:
    a: int


@attrs.define(slots=False, frozen=True, cache_hash=True)
class OpenHashed:
    a: str


class Outer:
    @dataclass
    class Nested:
        x: int

    class Choice(enum.Enum):
        YES = 1


CHAT = {
    "model": "m",
    "message": {
        "role": "assistant",
        "content": "hi",
        "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, {"y": 2}]}}}],
    },
    "done": True,
    "done_reason": "stop",
}
VALUES = [
    Point(2, ["a"], scale=3), Undecorated(1), Frozen(datetime(2024, 1, 1), Frozen(datetime.min)),
    Slotted(1, (2, 3)), SlottedChild(1, (2,), {3: Slotted(4)}), Box([Box((1,))]),
    Pair(1), Pair((1,), Pair(2, [3])), OldPair(1, {2}), Outer.Nested(1), Outer.Choice.YES,
    Model(name="n", extra=(1, 2), inner=Inner(n=3), many={"a": [Inner(), Inner(n=0)]}),
    Model.model_validate({"name": "n", "when": "2024-01-01T00:00:00+02:00"}),
    Model.model_validate({"name": "n", "when": "2024-01-01T00:00:00Z"}), FrozenModel(a=(1, 2)),
    Numbers([1, 2]), IntEnvelope(body=1), CheckedPoint(1, [2]), Row(1), Row(1, (Row(2),)),
    FrozenRow(a=1, b=(2,)), ChildRow(a=1, c=[FrozenRow(a=2)]), Defined(1, [2], 3),
    Hashed("x"), Open(1),
    ollama.ChatResponse.model_validate(CHAT), ollama.Message(role="user", content="x"),
    ollama.GenerateResponse(response="x", context=[1, 2], done=True),
    Linked(link="HTTP://a.example/é?q=a b#f", any_link="x:y", store="postgres://u:p@a:1,b:2/db"),
    ollama.EmbedResponse(embeddings=[[0.1, 0.2]]),
    ollama.ListResponse.model_validate({"models": [{"modified_at": "2024-01-01T00:00:00Z"}]}),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_class_round_trip(value: Any) -> None:
    """A value of a class comes back equal without running its code."""
    result = copied(value)
    assert type(result) is type(value)
    assert result == value
    assert repr(result) == repr(value)
    assert getattr(result, "__dict__", None) == getattr(value, "__dict__", None)
    many = copied({"a": [value, (value,)]})
    assert many == {"a": [value, (value,)]}
    assert many["a"][0] is not many["a"][1][0] or isinstance(value, enum.Enum)


def test_further_attributes() -> None:
    """Attributes beyond the fields come back."""
    assert copied(Point(2)).hidden == ("not", "a field")
    row = ChildRow(a=1)
    row.__dict__["more"] = {1: 2}
    assert copied(row).__dict__ == {"more": {1: 2}}


def test_unset_slot() -> None:
    """A slot that was never set stays unset."""
    value = Slotted(1)
    object.__delattr__(value, "b")
    result = copied(value)
    assert result.a == 1
    assert not hasattr(result, "b")


def test_pydantic_state() -> None:
    """Pydantic state is exact."""
    model = Model(name="n", other=1)
    model._secret = 7
    model.inner = Inner()
    result = copied(model)
    assert result.model_fields_set == {"name", "other", "inner"}
    assert result.model_extra == {"other": 1}
    assert result._secret == 7
    assert result.inner.model_fields_set == set()
    assert result.model_dump(exclude_unset=True) == model.model_dump(exclude_unset=True)
    assert result.model_copy(update={"name": "x"}).name == "x"


def test_pydantic_unvalidated() -> None:
    """Pydantic values are kept as they are even if they would not validate."""
    assert copied(Inner.model_construct(n="no number")).n == "no number"


def test_ollama_fields_set() -> None:
    """Ollama answers know which fields were set."""
    response = ollama.ChatResponse.model_validate(CHAT)
    result = copied(response)
    assert result.model_fields_set == set(CHAT)
    assert "done" in result
    assert "created_at" not in result
    assert result["message"]["content"] == "hi"
    assert result.message.model_fields_set == response.message.model_fields_set
    assert result.model_dump_json() == response.model_dump_json()


def test_attrs_cached_hash() -> None:
    """A cached hash is not carried to another process."""
    value = Hashed("x")
    hash(value)
    assert copied(value)._attrs_cached_hash is None
    assert {copied(value): 1}[value] == 1
    unslotted = OpenHashed("x")
    hash(unslotted)
    assert vars(copied(unslotted))["_attrs_cached_hash"] is None


def test_cached_property() -> None:
    """A cached property comes back with its value."""

    @dataclass
    class Lazy:
        x: int

        @functools.cached_property
        def double(self) -> int:
            ran.append("double")
            return self.x * 2

    value = Lazy(2)
    assert value.double == 4
    assert copied(value).__dict__ == {"x": 2, "double": 4}


def test_local_classes() -> None:
    """A class inside a function is found while it lives."""

    def make() -> tuple[type, Any]:
        @dataclass
        class Local:
            x: int

        return Local, Local(1)

    cls, value = make()
    assert type(copied(value)) is cls
    payload = codec.encode(value)
    other, twin = make()
    with pytest.raises(CodecError, match="2 classes named"):
        codec.encode(twin)
    with pytest.raises(CodecError, match="2 classes named"):
        codec.decode(payload)
    del cls, value
    gc.collect()
    assert type(codec.decode(payload)) is other
    del other, twin
    gc.collect()
    with pytest.raises(CodecError, match="no class"):
        codec.decode(payload)


def test_main_class() -> None:
    """Classes of the script itself come back, also in its next run."""
    program = """
import sys
from dataclasses import dataclass
from memoleo.codecs import AutoCodec

@dataclass
class Mine:
    x: object

codec = AutoCodec()
payload = bytes.fromhex(sys.argv[1]) if sys.argv[1:] else codec.encode(Mine(Mine({1})))
assert codec.decode(payload) == Mine(Mine({1}))
print(payload.hex())
"""
    payload = ""
    for _ in range(2):
        command = [sys.executable, "-c", program, *payload.split()]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        payload = ran.stdout


def test_replaced_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A class that was replaced in its module gives values of the new one."""
    module = sys.modules[__name__]
    payload = codec.encode(Box(1))
    new = dataclass(type("Box", (), {"__annotations__": {"content": int}, "__module__": __name__}))
    monkeypatch.setattr(module, "Box", new)
    assert type(codec.decode(payload)) is new


@pytest.mark.parametrize("names", [("content", "more"), ("other",), ()])
def test_changed_fields(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """A class with other fields than stored is a `CodecError`."""
    payload = codec.encode(Box(1))
    body = {"__annotations__": dict.fromkeys(names, int), "__module__": __name__}
    monkeypatch.setattr(sys.modules[__name__], "Box", dataclass(type("Box", (), body)))
    with pytest.raises(CodecError, match="has changed"):
        codec.decode(payload)


def test_changed_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A class of another kind than stored is a `CodecError`."""
    payload = codec.encode(Box(1))
    monkeypatch.setattr(
        sys.modules[__name__],
        "Box",
        msgspec.defstruct("Box", ["content"], module=__name__),
    )
    with pytest.raises(CodecError, match="has changed"):
        codec.decode(payload)


def test_missing_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A missing class or module is a `CodecError` and imports nothing."""
    payload = codec.encode(Frozen(datetime(2024, 1, 1)))
    monkeypatch.delattr(sys.modules[__name__], "Frozen")
    with pytest.raises(CodecError, match="no class"):
        codec.decode(payload)
    monkeypatch.delitem(sys.modules, __name__)
    before = set(sys.modules)
    with pytest.raises(CodecError, match="no class"):
        codec.decode(payload)
    assert set(sys.modules) == before


def test_removed_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed enum member is a `CodecError`."""

    class Choice(enum.Enum):
        YES = 1
        NO = 2

    payload = codec.encode(Choice.NO)
    monkeypatch.delitem(Choice._member_map_, "NO")
    with pytest.raises(CodecError):
        codec.decode(payload)


def test_lazy_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for a class wakes no lazy module."""

    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    payload = codec.encode(Frozen(datetime(2024, 1, 1)))
    monkeypatch.setitem(sys.modules, __name__, Lazy(__name__))
    with pytest.raises(CodecError, match="no class"):
        codec.decode(payload)


class Plain:
    def __init__(self) -> None:
        self.x = 1


class ListChild(list):  # type: ignore[type-arg]
    pass


class StrChild(str):
    __slots__ = ()


@dataclass
class WithDel:
    x: int

    def __del__(self) -> None:
        pass


@dataclass
class Failure(Exception):
    x: int


class HookedRow(msgspec.Struct):
    a: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        ran.append("init_subclass")

    def __post_init__(self) -> None:
        ran.append("post_init")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Plain(), "Plain can't be stored"),
        (object(), "object can't be stored"),
        ([1, {"a": (Plain(),)}], r"^\[1\]\['a'\]\[0\]: .*Plain can't be stored"),
        (Box([Pair(1, Plain())]), r"^\.content\[0\]\.right: .*Plain can't be stored"),
        (Model(name="x", extra={1: object()}), r"\[1\]: object can't be stored"),
        ({"a": {1, Plain}}, "type can't be stored"),
        (ListChild([1]), "ListChild can't be stored"),
        ([StrChild("x")], r"^\[0\]: .*StrChild can't be stored"),
        (len, "builtin_function_or_method can't be stored"),
        (lambda: None, "function can't be stored"),
        (sys, "module can't be stored"),
        ((number for number in range(3)), "generator can't be stored"),
        (ValueError("x"), "ValueError can't be stored"),
        (Failure(1), "it derives from a builtin type"),
        (WithDel(1), "it has a __del__ method"),
        (collections.defaultdict(lambda: 1), "default_factory is not a builtin type"),
        (sys.version_info, "version_info can't be stored"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused(value: Any, message: str) -> None:
    """What has no exact form is refused with its place."""
    with pytest.raises(CodecError, match=message) as caught:
        codec.encode(value)
    assert 'codec="pickle"' in str(caught.value)
    assert "memoleo.codecs.register()" in str(caught.value)


@pytest.mark.parametrize("value", [HookedRow(1)])
def test_refused_struct(value: Any) -> None:
    """A struct that could only be rebuilt by its own code is refused."""
    with pytest.raises(CodecError, match="__init_subclass__"):
        codec.encode(value)


def test_cycles() -> None:
    """Cycles are refused."""
    loop: list[Any] = [1]
    loop.append(loop)
    knot: dict[str, Any] = {"a": ()}
    knot["a"] = (knot,)
    ring = Box(None)
    ring.content = [ring]  # type: ignore[assignment]
    for value in (loop, knot, ring):
        with pytest.raises(CodecError, match="contains itself"):
            codec.encode(value)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), Box])
def test_absurd_depth(wrap: Any) -> None:
    """Absurd depth is a `CodecError`."""
    value: Any = 1
    for _ in range(100_000):
        value = wrap(value)
    try:
        with pytest.raises(CodecError):
            codec.encode(value)
    finally:
        while not isinstance(value, int):
            value = (
                value.content
                if isinstance(value, Box)
                else next(iter(value.values() if isinstance(value, dict) else value))
            )


def test_shared_object() -> None:
    """The same object twice comes back as two copies."""
    shared = Box([1])
    left, right = copied((shared, shared))
    assert left == right == shared
    assert left is not right


def test_errors_of_users_code() -> None:
    """Errors of the user's code become `CodecError`."""

    class Evil(str):
        @property
        def __class__(self) -> Any:
            raise RuntimeError("no")

    with pytest.raises(CodecError):
        codec.encode([Evil()])

    class Angry:
        def __hash__(self) -> int:
            raise RuntimeError("no hash")

    register(Angry, encode=lambda value: 1, decode=lambda content: Angry())
    payload = codec.encode(Pair(Angry()))
    assert type(codec.decode(payload).left) is Angry
    register(Angry, encode=lambda value: 1 // 0, decode=lambda content: 1 // 0)
    with pytest.raises(CodecError, match="ZeroDivisionError"):
        codec.encode(Angry())
    with pytest.raises(CodecError, match="ZeroDivisionError"):
        codec.decode(payload)


class Money:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)


class DearMoney(Money):
    pass


def test_register() -> None:
    """A registered type is stored by its functions and its subclasses are not."""
    register(Money, encode=lambda value: (value.amount,), decode=lambda content: Money(*content))
    assert copied([Money(3), {"x": Money(2**80)}]) == [Money(3), {"x": Money(2**80)}]
    with pytest.raises(CodecError, match="DearMoney can't be stored"):
        codec.encode(DearMoney(1))


def test_register_wins() -> None:
    """Registering wins over what memoleo does by itself."""

    @dataclass
    class Temperature:
        celsius: float

    register(Temperature, encode=lambda v: "hot", decode=lambda content: Temperature(99.0))
    assert copied(Temperature(1.0)) == Temperature(99.0)


def test_register_content() -> None:
    """Content that a registered function returns must be storable."""

    class Deep:
        pass

    register(Deep, encode=lambda value: [object()], decode=lambda content: Deep())
    with pytest.raises(CodecError, match=r"^\[0\]→encode\[0\]: object can't be stored"):
        codec.encode([Deep()])
    register(Deep, encode=lambda value: value, decode=lambda content: Deep())
    with pytest.raises(CodecError, match="contains itself"):
        codec.encode(Deep())


def test_register_misuse() -> None:
    """Register refuses what makes no sense."""
    for cls in (int, dict, type(None)):
        with pytest.raises(ConfigError, match="plain data"):
            register(cls, encode=str, decode=str)
    with pytest.raises(ConfigError, match="takes a class"):
        register("Money", encode=str, decode=str)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="callable"):
        register(Money, encode=None, decode=str)  # type: ignore[arg-type]
    assert timezone.utc
