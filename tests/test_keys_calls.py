"""Two calls are the same call if and only if their bound arguments are the same content."""

from __future__ import annotations

import dataclasses
import enum
import functools
import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoleo.errors import ConfigError, KeyingError
from memoleo.keys import Keyer


def plain(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **more: Any) -> None: ...


def strict(a: Any, b: Any = 2, /, c: Any = 3, *, d: Any, e: Any = 5) -> None: ...


def keyword_only(*, a: Any = 1, b: Any) -> None: ...


def no_parameters() -> None: ...


def positional_only(a: Any, /) -> None: ...


def spelled(keyer: Keyer, *args: Any, **kwargs: Any) -> bytes:
    return keyer.key(args, kwargs)


def test_a_key_is_32_bytes_and_stays_the_same() -> None:
    """A key has a fixed size, and a second Keyer of the function agrees with the first."""
    keyer = Keyer(plain)
    assert len(spelled(keyer, 1)) == 32
    assert spelled(keyer, 1) == spelled(keyer, 1) == spelled(Keyer(plain), 1)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_are_not_evaluated() -> None:
    """What they name may exist for type checkers only, whatever kind of callable it is."""
    source = (
        "import functools\n"
        "def plain(a: Later) -> Later: ...\n"
        "@functools.wraps(plain)\n"
        "def wrapper(*args, **kwargs): return plain(*args, **kwargs)\n"
        "class Callable:\n"
        "  def __call__(self, a: Later): ...\n"
        "found = plain, wrapper, Callable(), functools.partial(plain)\n"
    )
    space: dict[str, Any] = {"__name__": "made"}
    exec(compile(source, "<made>", "exec", dont_inherit=True), space)
    for callable_ in space["found"]:
        keyer = Keyer(callable_)
        assert spelled(keyer, 1) == spelled(keyer, a=1) != spelled(keyer, 2)


def test_the_spelling_of_a_call_has_no_meaning() -> None:
    """Position or keyword, given or default, and the order of keywords are all one call."""
    keyer = Keyer(plain)
    same = [
        spelled(keyer, 1),
        spelled(keyer, a=1),
        spelled(keyer, 1, 2),
        spelled(keyer, b=2, a=1),
        spelled(keyer, 1, c=3),
        spelled(keyer, c=3, b=2, a=1),
    ]
    assert len(set(same)) == 1
    assert spelled(keyer, 1, x=1, y=2) == spelled(keyer, 1, y=2, x=1)
    different = [
        spelled(keyer, 1),
        spelled(keyer, 1.0),
        spelled(keyer, True),
        spelled(keyer, "1"),
        spelled(keyer, 1, 3),
        spelled(keyer, 1, 2, 3),
        spelled(keyer, 1, 2, [3]),
        spelled(keyer, 1, 2, 3, 4),
        spelled(keyer, 1, c=4),
        spelled(keyer, 1, d=4),
        spelled(keyer, 1, d=4.0),
        spelled(keyer, 1, rest=(3,)),
        spelled(keyer, 1, more={"d": 4}),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("func", [plain, strict, keyword_only, no_parameters, positional_only])
@settings(max_examples=60, deadline=None)
@given(
    args=st.lists(st.integers(0, 2), max_size=4),
    kwargs=st.dictionaries(st.sampled_from("abcdex"), st.integers(0, 2), max_size=4),
)
def test_binding_agrees_with_inspect(
    func: Callable[..., Any], args: list[int], kwargs: dict[str, int]
) -> None:
    """The compiled binder takes the calls that Python takes, and refuses the others."""
    import inspect

    keyer = Keyer(func)
    try:
        expected = inspect.signature(func).bind(*args, **kwargs)
    except TypeError:
        for method in (keyer.bind, keyer.key):
            with pytest.raises(TypeError) as caught:
                method(tuple(args), kwargs)
            assert not isinstance(caught.value, KeyingError)
        return
    expected.apply_defaults()
    assert keyer.bind(tuple(args), kwargs) == dict(expected.arguments)
    assert len(keyer.key(tuple(args), kwargs)) == 32


def test_functions_without_a_signature_are_keyed_as_spelled() -> None:
    """A builtin that doesn't tell its parameters still has exact keys."""
    keyer = Keyer(dict)
    assert spelled(keyer, a=1, b=2) == spelled(keyer, b=2, a=1)
    assert spelled(keyer, a=1) != spelled(keyer, {"a": 1})
    assert keyer.bind((1,), {"a": 2}) == {"args": (1,), "kwargs": {"a": 2}}
    assert spelled(Keyer(len), [1]) != spelled(Keyer(len), [2]) != spelled(Keyer(abs), [2])


def test_the_lane_depends_on_content_alone() -> None:
    """Text that msgpack can't hold and integers beyond 64 bits are keyed like anything else."""
    keyer = Keyer(plain)
    values = ["a", "\ud800", "\udfff", 2**63, 2**64, 2**65, -(2**64), [2**64], {"a": "\ud800"}]
    assert len({spelled(keyer, value) for value in values}) == len(values)
    assert spelled(keyer, 2**65) == spelled(keyer, 2**64 * 2)


def test_type_function_and_version_separate_calls() -> None:
    """The same arguments mean nothing across categories, functions or versions."""

    def other(a: Any) -> None: ...

    keys = {
        spelled(Keyer(positional_only), 1),
        spelled(Keyer(positional_only, type="x"), 1),
        spelled(Keyer(positional_only, version=1), 1),
        spelled(Keyer(positional_only, version=True), 1),
        spelled(Keyer(positional_only, version="1"), 1),
        spelled(Keyer(positional_only, version=(1, {"a": 2})), 1),
        spelled(Keyer(other), 1),
    }
    assert len(keys) == 7


def test_ignored_parameters_leave_the_key() -> None:
    """A parameter in `ignore` can be anything, also something that can't be keyed."""
    keyer = Keyer(plain, ignore=("b", "request_id"))
    assert spelled(keyer, 1, 2) == spelled(keyer, 1, object()) == spelled(keyer, 1, b=threading)
    assert spelled(keyer, 1, request_id=1) == spelled(keyer, 1, request_id=2) == spelled(keyer, 1)
    assert spelled(keyer, 1, other=1) != spelled(keyer, 1)
    assert spelled(keyer, 1) != spelled(keyer, 2)
    assert spelled(Keyer(plain, ignore="b"), 1, 2) == spelled(Keyer(plain, ignore="b"), 1, 3)
    assert keyer.bind((1, 7), {"request_id": 5})["b"] == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ignore": ("txt",)}, "ignore= names 'txt'.*Did you mean 'text'"),
        ({"ignore": ("zzz",)}, "It has: text, model"),
        ({"normalize": {"txt": "text"}}, "normalize= names 'txt'.*Did you mean 'text'"),
        ({"normalize": "upper"}, 'normalize= takes "text"'),
        ({"normalize": {"text": 3}}, 'normalize= takes "text"'),
        ({"normalize": 5}, 'normalize= takes "text"'),
        ({"state": ("not a name",)}, "state= takes attribute names"),
        ({"state": (3,)}, "state= takes attribute names"),
        ({"state": 3}, "state= takes attribute names"),
        ({"ignore": 3}, "ignore= takes parameter names"),
        ({"ignore": (3,)}, "ignore= takes parameter names"),
        ({"version": object()}, "version= must have content"),
        ({"version": {"a": [object()]}}, r"version\['a'\]\[0\]"),
    ],
)
def test_a_wrong_setting_fails_when_the_decorator_is_applied(
    settings: dict[str, Any], message: str
) -> None:
    """ConfigError comes at once and names the way out."""

    def ask(text: str, model: str = "m") -> None: ...

    with pytest.raises(ConfigError, match=message):
        Keyer(ask, **settings)


def test_normalized_text() -> None:
    """ "text" unifies case, white space and composition, in texts and in containers of texts."""
    keyer = Keyer(plain, normalize="text")
    assert spelled(keyer, " Why  is\tthe SKY\nblue? ") == spelled(keyer, "why is the sky blue?")
    assert spelled(keyer, "CAFE\u0301") == spelled(keyer, "café")
    assert spelled(keyer, "STRASSE") == spelled(keyer, "straße")
    assert spelled(keyer, "\u1e9e  A") == spelled(keyer, "ss a")
    assert spelled(keyer, ["A", {"k": ("B",)}]) == spelled(keyer, ["a", {"k": ("b",)}])
    assert spelled(keyer, {"K": 1}) != spelled(keyer, {"k": 1})
    assert spelled(keyer, 1, 2, "A", x="B") == spelled(keyer, 1, 2, "a", x="b")
    assert spelled(keyer, "a b") != spelled(keyer, "ab")
    assert spelled(keyer, b"A") != spelled(keyer, b"a")
    assert spelled(keyer, "a") != spelled(Keyer(plain), "a")


def test_normalizing_by_parameter() -> None:
    """A callable gets one whole argument; the other parameters are keyed as they are."""
    keyer = Keyer(plain, normalize={"a": "text", "b": sorted, "x": abs})
    assert spelled(keyer, "A", [2, 1], x=-1) == spelled(keyer, "a", [1, 2], x=1)
    assert spelled(keyer, "A", [2, 1], x=1, y=-1) != spelled(keyer, "a", [1, 2], x=1, y=1)
    lone = Keyer(positional_only, normalize=str.strip)
    assert spelled(lone, " A ") == spelled(lone, "A") != spelled(lone, "a")


def test_an_error_in_a_normalizer_is_not_a_binding_error() -> None:
    """A bad normalizer shows itself; it must not look like a call that doesn't fit."""
    keyer = Keyer(positional_only, normalize=lambda value: value + 1)
    with pytest.raises(KeyingError, match="normalize") as caught:
        spelled(keyer, "a")
    assert isinstance(caught.value.__cause__, TypeError)


MISSING = object()


class Missing:
    __slots__ = ()


def with_sentinels(a: Any, b: Any = MISSING, c: Any = Missing()) -> None: ...  # noqa: B008


def test_a_default_without_content_is_known_by_being_the_default() -> None:
    """The usual sentinel default doesn't make a function uncacheable."""
    keyer = Keyer(with_sentinels)
    assert spelled(keyer, 1) == spelled(keyer, 1, MISSING)
    assert spelled(keyer, 1) != spelled(keyer, 1, None)
    with pytest.raises(KeyingError, match=r"^b: object"):
        spelled(keyer, 1, object())


class Scorer:
    kind = "base"

    def __init__(self, model: str, **more: Any) -> None:
        self.model = model
        self.__dict__.update(more)

    def score(self, text: str, n: int = 1) -> None: ...

    def other(self, text: str, n: int = 1) -> None: ...

    def of_class(cls, text: str) -> None: ...


class Sub(Scorer):
    pass


class Slots:
    __slots__ = ("__weakref__", "_private", "model")

    def __init__(self, model: Any) -> None:
        self.model = model

    def score(self, text: str) -> None: ...


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def score(self, text: str) -> None: ...


def method(func: Any, **settings: Any) -> Keyer:
    keyer = Keyer(func, **settings)
    keyer.is_method = True
    return keyer


def test_a_method_is_keyed_by_class_and_content_of_its_instance() -> None:
    """Equal instances share entries; another class, attribute or type doesn't."""
    keyer = method(Scorer.score)
    assert spelled(keyer, Scorer("a"), "t") == spelled(keyer, Scorer("a"), n=1, text="t")
    assert spelled(keyer, self=Scorer("a"), text="t") == spelled(keyer, Scorer("a"), "t")
    different = [
        spelled(keyer, Scorer("a"), "t"),
        spelled(keyer, Scorer("b"), "t"),
        spelled(keyer, Sub("a"), "t"),
        spelled(keyer, Scorer("a", extra=None), "t"),
        spelled(keyer, Scorer("a", extra=(1,)), "t"),
        spelled(keyer, Scorer("a", extra=[1]), "t"),
        spelled(method(Scorer.other), Scorer("a"), "t"),
        spelled(keyer, Scorer, "t"),
    ]
    assert len(set(different)) == len(different)


def test_slots_and_hashless_instances_are_keyed() -> None:
    """Slots are content, private and unset ones included; hash and equality aren't needed."""
    keyer = method(Slots.score)
    first, second = Slots([1]), Slots([1])
    assert spelled(keyer, first, "t") == spelled(keyer, second, "t")
    second._private = 1
    assert spelled(keyer, first, "t") != spelled(keyer, second, "t")
    empty = method(Unhashable.score)
    assert spelled(empty, Unhashable(), "t") == spelled(empty, Unhashable(), "t")


class Row(NamedTuple):
    x: Any

    def score(self, text: str) -> None: ...


class Words(str):
    __slots__ = ()

    def score(self, text: str) -> None: ...


class Level(enum.Enum):
    LOW = 1
    HIGH = 2

    def score(self, text: str) -> None: ...


@dataclasses.dataclass
class Data:
    x: Any
    kind: str = dataclasses.field(init=False, default="a")

    def score(self, text: str) -> None: ...


class Model(pydantic.BaseModel):
    x: Any

    def score(self, text: str) -> None: ...


class Struct(msgspec.Struct):
    x: Any

    def score(self, text: str) -> None: ...


class Named:
    def __init__(self, x: Any) -> None:
        self.x = x
        self.lock = threading.Lock()

    def __memoleo_key__(self) -> Any:
        return self.x

    def score(self, text: str) -> None: ...


@pytest.mark.parametrize("make", [Row, Words, Level, Data, Model, Struct, Named])
def test_an_instance_of_any_kind_counts_by_its_content(make: Any) -> None:
    """Content that isn't in attributes counts too, and so does what an adapter says."""
    keyer = method(make.score)

    def key(n: int) -> bytes:
        if make is Words:
            return spelled(keyer, Words(n), "t")
        return spelled(keyer, make(n) if make is Level else make(x=n), "t")

    assert key(1) == key(1) != key(2)


def test_a_method_of_an_instance_without_attributes_is_a_function() -> None:
    """Its class says all there is to know."""
    keyer = Keyer(positional_only)
    assert spelled(keyer, Unhashable().score) == spelled(keyer, Unhashable().score)
    assert spelled(Keyer(Unhashable().score), "t") == spelled(Keyer(Unhashable().score), "t")


def test_state_says_what_of_the_instance_counts() -> None:
    """Attribute names, a callable, or nothing; the class counts in any case."""
    first, second = Scorer("a", lock=threading.Lock()), Scorer("a", lock=threading.Lock())
    third = Scorer("b", lock=threading.Lock())
    for state in (("model",), "model", lambda self: self.model):
        keyer = method(Scorer.score, state=state)
        assert spelled(keyer, first, "t") == spelled(keyer, second, "t")
        assert spelled(keyer, first, "t") != spelled(keyer, third, "t")
    nothing = method(Scorer.score, state=None)
    assert spelled(nothing, first, "t") == spelled(nothing, third, "t")
    assert spelled(nothing, first, "t") != spelled(nothing, Sub("a"), "t")


def test_an_attribute_that_cannot_be_keyed_is_named() -> None:
    """The error of a method names the attribute and the ways out by `state`."""
    with pytest.raises(KeyingError) as caught:
        spelled(method(Scorer.score), Scorer("a", client=threading.Lock()), "t")
    assert str(caught.value).startswith("self.client: ")
    for way in ("state=(", "state=f", "state=None"):
        assert way in str(caught.value)
    with pytest.raises(KeyingError, match=r"^self\.mode: .*there is no attribute mode"):
        spelled(method(Scorer.score, state=("mode",)), Scorer("a"), "t")


def test_a_class_method_is_keyed_by_its_class() -> None:
    """The raw function of a classmethod counts the class, not its attributes' identity."""
    keyer = method(Scorer.of_class)
    assert spelled(keyer, Scorer, "t") == spelled(keyer, Scorer, text="t")
    assert spelled(keyer, Scorer, "t") != spelled(keyer, Sub, "t")


def test_partials_and_callable_objects_are_functions_too() -> None:
    """What a partial or a callable object holds is part of the function."""

    class Adder:
        def __init__(self, n: Any) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            return x + int(self.n)

    assert spelled(Keyer(Adder(1)), 1) == spelled(Keyer(Adder(1)), x=1)
    assert spelled(Keyer(Adder(1)), 1) != spelled(Keyer(Adder(2)), 1)
    half = functools.partial(plain, 1, c=[2])
    assert spelled(Keyer(half), 1) == spelled(Keyer(functools.partial(plain, 1, c=[2])), b=1)
    assert spelled(Keyer(half), 1) != spelled(Keyer(functools.partial(plain, 2, c=[2])), 1)
    assert spelled(Keyer(Scorer("a").score), "t") == spelled(Keyer(Scorer("a").score), "t")
    assert spelled(Keyer(Scorer("a").score), "t") != spelled(Keyer(Scorer("b").score), "t")


def test_remembered_keys_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a Keyer is bounded, and forgetting changes no key."""
    import memoleo.keys._keyer as module

    monkeypatch.setattr(module, "_MOST", 10)
    keyer = Keyer(positional_only, version=1)
    assert [spelled(keyer, n) for n in range(100)] == [spelled(keyer, n) for n in range(100)]
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(2000):
            keyer.make(n)
            keyer.make((n,))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 4000 keys with their dictionary would be at least 400 kB.
    assert after - before < 50_000


def test_many_threads_agree_on_the_first_key() -> None:
    """The first call prepares the function; doing that at once in many threads is harmless."""
    for _ in range(5):
        keyer = Keyer(plain)
        barrier = threading.Barrier(8)

        def call(_: int, keyer: Keyer = keyer, barrier: threading.Barrier = barrier) -> bytes:
            barrier.wait()
            return spelled(keyer, "a", [1])

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(call, range(8)))) == 1


def test_a_call_beyond_those_that_are_remembered_keeps_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("memoleo.keys._keyer._MOST", 4)
    monkeypatch.setattr("memoleo.keys._keyer._PASSED", 3)
    keyer = Keyer(lambda number: number, version=1)

    keys = [keyer.key((number,), {}) for number in range(20)]

    assert len(set(keys)) == 20
    assert [keyer.key((number,), {}) for number in reversed(range(20))] == keys[::-1]
