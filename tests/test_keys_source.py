"""What counts as the logic of a function: edits of real files, seen by real processes."""

from __future__ import annotations

import functools
import json
import logging
import operator
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from memoleo import timed
from memoleo.errors import KeyingError
from memoleo.keys import Keyer

SOURCE = pathlib.Path(__file__).parent.parent / "src"

MAIN = '''
import dataclasses
import enum
import functools
import re

from program import tools
from program.tools import clean as tidy

PATTERN = re.compile("[a-z]+")
LIMITS = {"low": 1, "high": [2, 3]}
TABLE = {"clean": tidy}
calls = []
count = 0
stamps = {}


class Mood(enum.Enum):
    CALM = "calm"


def layered(func):
    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        return func(*args, **kwargs)

    return wrapper


@layered
def ask(text: str) -> str:
    """Ask."""
    return tools.shout(tidy(text))


def lazily(text):
    from program.lazy import late

    return late(text)


class Base:
    PROMPT = "one"

    def helped(self, text):
        return text + self.PROMPT


class Scorer(Base):
    def __init__(self, model):
        self.model = model

    def helped(self, text):
        return super().helped(text) + self.inner(text)

    def inner(self, text):
        return ask(text)

    def score(self, text):
        return self.helped(text)


def target(text, k=1):
    global count
    count += 1
    calls.append(text)
    stamps[text] = 1
    handlers = [lambda part: TABLE["clean"](part)]
    found = [ask(part) for part in PATTERN.findall(text)]
    return f"{found!r:>{10}} {LIMITS} {Mood.CALM.value} {k=} {handlers}"


def factory(size):
    def inside(text):
        return ask(text) * size

    return inside


small = lambda text: tidy(text)


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


@dataclasses.dataclass
class Options:
    level: int = 1
    words: list = dataclasses.field(default_factory=lambda: ["first"])

    def all(self) -> list:
        return self.words * self.level


def options(level):
    return Options(level).all()
'''
TOOLS = """
FACTOR = 2


def shout(text):
    # Loudly.
    return text.upper() * FACTOR


def clean(text):
    return " ".join(text.split())


def unrelated():
    return 1
"""
LAZY = """
def late(text):
    return text + "!"
"""
PROBE = """
import json, sys
from program import main
from memoleo.keys import Keyer

def key(func, *args, method=False):
    keyer = Keyer(func)
    keyer.is_method = method
    return keyer.key(args, {}).hex()

print(json.dumps({
    "target": key(main.target, "a"),
    "lazily": key(main.lazily, "a"),
    "score": key(main.Scorer.score, main.Scorer("m"), "a", method=True),
    "factory": key(main.factory(3), "a"),
    "small": key(main.small, "a"),
    "even": key(main.even, 3),
    "options": key(main.options, 2),
    "argument": key(lambda func: func, main.target),
}))
"""


def write(folder: pathlib.Path, main: str = MAIN, tools: str = TOOLS, lazy: str = LAZY) -> None:
    package = folder / "program"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    for name, text in (("main", main), ("tools", tools), ("lazy", lazy)):
        (package / f"{name}.py").write_text(text)


def probe(folder: pathlib.Path, code: str = PROBE) -> dict[str, str]:
    """Return the keys that a new process arrives at."""
    path = [str(SOURCE), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "random"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


# Recorded once: the logic of these functions is the same on every Python version.
GOLDEN = {
    "even": "0b63aa14c4cc629b20155d63",
    "factory": "6b61625505e60260c5b7b9e4",
    "lazily": "df2ab4c8b1d7d2596e6c582b",
    "options": "2f80374f0432a08287468374",
    "score": "425504279bf223a3a56f4d34",
    "small": "9bf3fd7622f70b86b8c9c692",
    "target": "e209628240c728ba25ed9f46",
}


def test_the_logic_is_the_same_in_every_process_and_python_version(tmp_path: pathlib.Path) -> None:
    """Two processes agree, and they agree with what other Python versions arrived at."""
    write(tmp_path)
    found = probe(tmp_path)
    assert found == probe(tmp_path)
    del found["argument"]
    assert {name: digest[:24] for name, digest in found.items()} == GOLDEN


EVERY = {"target", "score", "factory", "small", "lazily", "even", "options"}
CALLERS_OF_ASK = {"target", "score", "factory"}

EDITS: list[tuple[str, str, str, str, set[str]]] = [
    # (what is done, the file, the old text, the new text, whose keys change)
    ("comment in a helper", "tools", "# Loudly.", "# Very loudly.", set()),
    ("layout of a helper", "tools", "    return text.upper() * FACTOR",
     "\n\n    return (text.upper()\n            * FACTOR)", set()),
    ("docstring", "main", '"""Ask."""', '"""Ask it."""\n    # Now.', set()),
    ("annotation", "main", "(text: str) -> str:", "(text: object):", set()),
    ("a function nobody calls", "tools", "return 1", "return 2", set()),
    ("lines moved", "main", "import re\n", "import re\nimport os\n\n\n", set()),
    ("u prefix and quotes", "main", '"calm"', "u'calm'", set()),
    ("logic of a helper's helper", "tools", "text.upper()", "text.lower()", CALLERS_OF_ASK),
    ("constant of a helper", "tools", "FACTOR = 2", "FACTOR = 3", CALLERS_OF_ASK),
    ("helper imported under another name", "tools", '" ".join', '"_".join',
     CALLERS_OF_ASK | {"small"}),
    ("own logic", "main", "{k=}", "{k=!s}", {"target"}),
    ("nested constant", "main", "[2, 3]", "[2, 4]", {"target"}),
    ("pattern", "main", "[a-z]+", "[a-z]*", {"target"}),
    ("value of an Enum", "main", 'CALM = "calm"', 'CALM = "quiet"', {"target"}),
    ("decorator of a helper", "main", "return func(*args, **kwargs)",
     "return func(*args, **kwargs) + ''", CALLERS_OF_ASK),
    ("attribute of the class", "main", 'PROMPT = "one"', 'PROMPT = "two"', {"score"}),
    ("method found through super", "main", "text + self.PROMPT", "self.PROMPT + text", {"score"}),
    ("method of self", "main", "return ask(text)\n\n    def score",
     "return ask(text + '')\n\n    def score", {"score"}),
    ("import inside the function", "lazy", '"!"', '"?"', {"lazily"}),
    ("mutual recursion", "main", "n != 0 and", "n > 0 and", {"even"}),
    ("lambda", "main", "lambda text: tidy(text)", "lambda text: tidy(text) + ''", {"small"}),
    ("annotation of a method", "main", "def all(self) -> list:", "def all(self):", set()),
    ("annotation of a field", "main", "level: int", "level: float", {"options"}),
    ("default of a field", "main", '["first"]', '["second"]', {"options"}),
    ("initial value of its own state", "main", "count = 0", "count = 5", set()),
    ("initial value of its own list", "main", "calls = []", "calls = [1]", set()),
    ("initial value of its own dict", "main", "stamps = {}", "stamps = {1: 2}", set()),
]  # fmt: skip


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("before")
    write(folder)
    return probe(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS]
)
def test_an_edit_changes_the_keys_of_those_it_concerns(
    tmp_path: pathlib.Path,
    before: dict[str, str],
    name: str,
    old: str,
    new: str,
    changed: set[str],
) -> None:
    """Logic that a call reaches changes its key; comments, layout and strangers don't."""
    texts = {"main": MAIN, "tools": TOOLS, "lazy": LAZY}
    assert texts[name].count(old) == 1
    texts[name] = texts[name].replace(old, new)
    write(tmp_path, **texts)
    after = probe(tmp_path)
    if "target" in changed:
        assert after["argument"] != before["argument"]
    assert {one for one in EVERY if after[one] != before[one]} == changed


def test_the_main_module_has_the_name_it_is_imported_by(tmp_path: pathlib.Path) -> None:
    """`python -m package.module` shares its keys with programs that import the module."""
    code = textwrap.dedent(
        """
        from memoleo.keys import Keyer
        def f(x): return x + 1
        def key(): return Keyer(f).key((1,), {}).hex()
        if __name__ == "__main__":
            print(key())
        """
    )
    write(tmp_path)
    (tmp_path / "program" / "run.py").write_text(code)
    path = os.pathsep.join([str(SOURCE), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path}
    commands = (
        ["-m", "program.run"],
        ["-c", "from program import run; print(run.key())"],
    )
    found = {
        subprocess.run(
            [sys.executable, "-B", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    }
    assert len(found) == 1


def test_a_script_counts_the_modules_beside_it(tmp_path: pathlib.Path) -> None:
    """Without a package, the modules in the same folder are the program."""
    (tmp_path / "script.py").write_text(
        "from memoleo.keys import Keyer\nimport beside\n"
        "def f(x): return beside.g(x)\nprint(Keyer(f).key((1,), {}).hex())\n"
    )

    def run(text: str) -> str:
        (tmp_path / "beside.py").write_text(text)
        return subprocess.run(
            [sys.executable, "-B", str(tmp_path / "script.py")],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    first = run("def g(x): return x\n")
    assert first == run("def g(x):  # same\n    return x\n")
    assert first != run("def g(x): return -x\n")


def test_code_that_is_out_of_step_with_its_file_is_keyed_by_bytecode(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file edited under a running program can't lend its new logic to the old code."""
    import importlib

    module = tmp_path / "edited_under_us.py"
    module.write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    old = importlib.import_module("edited_under_us")
    try:
        in_step = Keyer(old.f).key((1,), {})
        namespace: dict[str, Any] = {}
        module.write_text("def f(x):\n    return x + 1000\n")
        out_of_step = Keyer(renewed(old.f)).key((1,), {})
        namespace = importlib.reload(old).__dict__
        new = Keyer(namespace["f"]).key((1,), {})
    finally:
        del sys.modules["edited_under_us"]
    assert len({in_step, out_of_step, new}) == 3


def renewed(func: Any) -> Any:
    """Return a copy of a function whose code nothing is remembered of."""
    import types

    return types.FunctionType(func.__code__.replace(), func.__globals__, func.__name__)


DATACLASS = """
import dataclasses
@dataclasses.dataclass
class A:
    x: list = dataclasses.field(default_factory=lambda: [{}])
def f(x): return A()
"""


def test_functions_without_source_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `exec` made is keyed by its bytecode, constants and the names it uses."""

    def make(body: str) -> Any:
        module = ModuleType("made")
        monkeypatch.setitem(sys.modules, "made", module)
        exec(compile(body, "<made>", "exec", dont_inherit=True), vars(module))
        return vars(module)["f"]

    def key(body: str) -> bytes:
        return Keyer(make(body)).key((1,), {})

    assert key("def f(x): return x + 1") == key("def f(x):\n\n  return x + 1")
    bodies = (
        "def f(x): return x + 1",
        "def f(x): return x + 2",
        "def f(x): return x - 1",
        "def f(x): return [x + 1 for x in [1]]",
        "def f(x): return [x + 2 for x in [1]]",
        "def g(x): return x\ndef f(x): return g(x)",
        "def g(x): return -x\ndef f(x): return g(x)",
        "class A:\n  x: int\ndef f(x): return A",
        "class A:\n  x: str\ndef f(x): return A",
        DATACLASS.format(1),
        DATACLASS.format(2),
    )
    assert len({key(body) for body in bodies}) == len(bodies)


def test_two_lambdas_on_one_line_are_told_apart() -> None:
    """Each lambda finds its own source."""
    first, second = (lambda x: x + 1), (lambda x: x + 2)
    assert Keyer(first).key((1,), {}) != Keyer(second).key((1,), {})


def capturing(value: Any) -> Any:
    def inner(x: Any) -> Any:
        return x, value

    return inner


def test_captured_values_count_by_content_at_each_call() -> None:
    """Changing a captured list changes the key; an equal one made elsewhere doesn't."""
    box = [1]
    keyer = Keyer(capturing(box))
    first = keyer.key((1,), {})
    assert first == Keyer(capturing([1])).key((1,), {})
    assert first != Keyer(capturing([1.0])).key((1,), {})
    box.append(2)
    assert keyer.key((1,), {}) == Keyer(capturing([1, 2])).key((1,), {}) != first


def test_captured_functions_count_by_logic() -> None:
    """A closure over a function counts that function, and what that one captured."""

    def plus(x: int) -> int:
        return x + 1

    def minus(x: int) -> int:
        return x - 1

    keys = [
        Keyer(capturing(value)).key((1,), {})
        for value in (plus, minus, capturing(1), capturing(2), capturing([1]), len, threading)
    ]
    assert len(set(keys)) == len(keys)
    assert Keyer(capturing(capturing(1))).key((1,), {}) == keys[2]


def plus_one(x: int) -> int:
    return x + 1


def twice(x: int) -> int:
    return x * 2


def negative(x: int) -> int:
    return -x


def compose(outer: Any, inner: Any) -> Any:
    def composed(x: Any) -> Any:
        return outer(inner(x))

    return composed


def test_where_each_captured_function_stands_counts() -> None:
    """Compositions of the same functions in another order are other functions, also lambdas."""
    found = [
        compose(plus_one, compose(twice, negative)),
        compose(twice, compose(plus_one, negative)),
        compose(twice, compose(negative, plus_one)),
        compose(lambda x: x + 1, lambda x: x * 2),
        compose(lambda x: x * 2, lambda x: x + 1),
    ]
    keys = [Keyer(one).key((1,), {}) for one in found]
    assert len(set(keys)) == len(keys)
    assert Keyer(compose(plus_one, compose(twice, negative))).key((1,), {}) == keys[0]


class Times:
    """A decorator that is a class, and is told something."""

    def __init__(self, func: Any, count: int) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.count = count
        self.calls = 0

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        return [self.func(x)] * self.count


class Otherwise(Times):
    def __call__(self, x: Any) -> Any:
        return (self.func(x),) * self.count


class Adder:
    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, x: int) -> int:
        return x + self.count


class Inherited(Adder):
    pass


class Timed(Adder):
    @timed
    def __call__(self, x: int) -> int:
        return x - self.count

    @timed
    def timed_method(self, x: int) -> int:
        return x * self.count

    @classmethod
    @timed
    def of_class(cls, x: int) -> int:
        return len(cls.__name__) + x


class Further(Timed):
    pass


class Partial(functools.partial):  # type: ignore[type-arg]
    pass


CALLABLES: list[Callable[[], Any]] = [
    lambda: Inherited(1),
    lambda: Inherited(2),
    lambda: Timed(1),
    lambda: Timed(2),
    lambda: Timed(1).timed_method,
    lambda: Timed(2).timed_method,
    lambda: Timed.of_class,
    lambda: Further.of_class,
    lambda: Times(plus_one, 1),
    lambda: Times(plus_one, 2),
    lambda: Times(twice, 2),
    lambda: Otherwise(plus_one, 2),
    lambda: Times(Times(plus_one, 1), 2),
    lambda: Times(Times(plus_one, 2), 1),
    lambda: functools.partial(Timed(1).timed_method),
    lambda: functools.partial(Timed(2).timed_method),
    lambda: Partial(pow, 2),
    lambda: Partial(pow, 3),
    lambda: "a".join,
    lambda: "b".join,
    lambda: {1: 1}.get,
    lambda: {1: 2}.get,
    lambda: (1).__add__,
    lambda: (2).__add__,
    lambda: re.compile("a").findall,
    lambda: re.compile("b").findall,
    lambda: operator.itemgetter(0),
    lambda: operator.itemgetter(1),
    lambda: operator.attrgetter("real"),
    lambda: operator.methodcaller("split", ","),
    lambda: operator.methodcaller("split", sep=","),
]


@pytest.mark.parametrize("version", [None, "1"])
def test_callables_are_told_apart_by_what_they_hold(version: str | None) -> None:
    """What a callable was reached through, or was told, counts: decorated, and as an argument."""

    def decorated(func: Any) -> bytes:
        return Keyer(func, version=version).key((1,), {})

    keys = [decorated(make()) for make in CALLABLES]
    assert keys == [decorated(make()) for make in CALLABLES]
    alike = [make() for make, found in zip(CALLABLES, keys, strict=True) if keys.count(found) > 1]
    # A version stands for the code, and these two differ in nothing else.
    assert [type(one) for one in alike] == ([Times, Otherwise] if version else [])

    keyer = Keyer(plus_one)
    arguments = [keyer.key((make(),), {}) for make in CALLABLES]
    assert arguments == [keyer.key((make(),), {}) for make in CALLABLES]
    assert len(set(arguments)) == len(arguments)


CALLABLES_PROBE = """
import json
from test_keys_source import CALLABLES, plus_one
from memoleo.keys import Keyer

keyer = Keyer(plus_one)
print(json.dumps({
    str(place): [Keyer(make()).key((1,), {}).hex(), keyer.key((make(),), {}).hex()]
    for place, make in enumerate(CALLABLES)
}))
"""


def test_callables_have_the_same_keys_in_every_process() -> None:
    """What is held at some address, or in some order, leaves no trace."""
    here = pathlib.Path(__file__).parent
    assert probe(here, CALLABLES_PROBE) == probe(here, CALLABLES_PROBE)


def test_what_a_decorator_that_is_a_class_counts_is_its_own_affair() -> None:
    """A decorator that counts calls leaves the key as it was."""
    counting = Times(plus_one, 1)
    keyer = Keyer(counting)
    first = keyer.key((1,), {})
    counting(1)
    assert keyer.key((1,), {}) == first


def test_a_rebound_captured_function_is_noticed() -> None:
    """A closure whose helper is replaced later gets other keys."""

    def helper(x: int) -> int:
        return x + 1

    def other(x: int) -> int:
        return x + 2

    def func(x: int) -> int:
        return helper(x)

    keyer = Keyer(func)
    first = keyer.key((1,), {})
    helper = other  # noqa: F811
    assert keyer.key((1,), {}) != first


def test_state_of_the_function_itself_does_not_count() -> None:
    """A captured counter or list that the function changes is its own affair."""

    def make() -> Any:
        calls: list[int] = []
        total = 0

        def func(x: int) -> int:
            nonlocal total
            total += x
            calls.append(x)
            return x

        return func

    func = make()
    keyer = Keyer(func)
    first = keyer.key((1,), {})
    func(5)
    assert keyer.key((1,), {}) == first == Keyer(make()).key((1,), {})


def test_a_function_may_refer_to_itself() -> None:
    """Local recursion, direct and mutual, has an end."""

    def make(step: int) -> Any:
        def even(n: int) -> bool:
            return n == 0 or odd(n - step)

        def odd(n: int) -> bool:
            return n != 0 and even(n - step)

        return even

    assert Keyer(make(1)).key((4,), {}) == Keyer(make(1)).key((4,), {})
    assert Keyer(make(1)).key((4,), {}) != Keyer(make(2)).key((4,), {})


def test_a_captured_client_is_known_by_identity(caplog: pytest.LogCaptureFixture) -> None:
    """What can't be keyed keeps closures apart, within this process only, and says so once."""
    client, other = threading.Lock(), threading.Lock()
    with caplog.at_level(logging.WARNING, logger="memoleo"):
        first = Keyer(capturing(client)).key((1,), {})
        assert first == Keyer(capturing(client)).key((1,), {})
        assert first != Keyer(capturing(other)).key((1,), {})
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "'value'" in messages[0]
    assert "version=" in messages[0]
    versioned = Keyer(capturing(client), version=1)
    assert versioned.key((1,), {}) == Keyer(capturing(other), version=1).key((1,), {})


def test_a_captured_instance_is_known_by_identity() -> None:
    """An object that counts its own calls doesn't change the key each time."""

    class Upstream:
        def __init__(self) -> None:
            self.calls = 0

        def ask(self, x: int) -> int:
            self.calls += 1
            return x

    upstream = Upstream()

    def ask(x: int) -> int:
        return upstream.ask(x)

    keyer = Keyer(ask)
    first = keyer.key((1,), {})
    ask(1)
    assert keyer.key((1,), {}) == first


def test_a_captured_container_that_can_no_longer_be_keyed_counts_by_identity() -> None:
    """A call never fails for what its closure has come to hold."""
    held: list[Any] = [1]

    def size(x: int) -> int:
        return x + len(held)

    keyer = Keyer(size)
    first = keyer.key((1,), {})
    held.append(threading.Lock())
    second = keyer.key((1,), {})
    assert second != first
    assert keyer.key((1,), {}) == second


def test_an_argument_that_captured_something_is_refused_by_a_closure_too() -> None:
    """What an argument captured is the argument's affair, and named as such."""
    held: list[Any] = [1]
    shared: list[Any] = [2]

    def take(func: Any) -> Any:
        return func, held

    def given() -> Any:
        return shared

    keyer = Keyer(take)
    first = keyer.key((given,), {})
    assert first == keyer.key((given,), {})
    shared.append(threading.Lock())
    with pytest.raises(KeyingError, match=r"^func\.shared \(captured\)\[1\]: _thread"):
        keyer.key((given,), {})


def test_module_level_settings_count(tmp_path: Path) -> None:
    """The arguments of a command line, and instances of declared classes, are read as constants."""
    script = tmp_path / "job.py"
    script.write_text(
        "import argparse, dataclasses, sys\n"
        "from memoleo.keys._keyer import Keyer\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--model')\n"
        "args = parser.parse_args()\n"
        "def ask(x): return args.model, x\n"
        "print(Keyer(ask).key((1,), {}).hex())\n"
    )
    keys = {
        subprocess.run(
            [sys.executable, str(script), "--model", model],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for model in ("a", "b", "a")
    }
    assert len(keys) == 2
