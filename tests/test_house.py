"""The laws of the house that a machine can check."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "memoleo"

FLOORS: list[tuple[str, set[str]]] = [
    ("ground", {
        "_entry", "_events", "_functions", "_health", "_plain", "_platform", "_units", "_version",
        "errors", "hooks", "http_rules"
    }),
    ("settings", {
        "_switch", "config"
    }),
    ("parts", {
        "_breaker", "_retries", "_stored", "_streams", "backends", "codecs", "keys", "metrics"
    }),
    ("head and hands", {
        "_calls", "_explaining", "_flow", "_verifying"
    }),
    ("cache", {
        "_cache", "_exchanges"
    }),
    ("doors", {
        "_decorators", "_mapping", "http", "launch", "leo", "otel", "patches", "serve", "testing"
    }),
    ("street", {
        "__init__", "__main__", "cli", "demo"
    }),
]  # fmt: skip

# What a program that only imports memoleo must not pay for.
HEAVY = {
    "aiohttp", "asyncio", "attrs", "backoff", "click", "concurrent", "email", "http", "httpx",
    "json", "multiprocessing", "numpy", "ollama", "opentelemetry", "pydantic", "redis", "requests",
    "rich", "selectors", "socket", "sqlite3", "ssl", "starlette", "subprocess", "tomllib",
    "unittest", "uvicorn", "wrapt", "xllamacpp",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOFS = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Every module of ours that a module imports, at the top, in a function, or for types."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "memoleo":
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            if (node.module or "").split(".")[0] == "memoleo":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield (inner if inner in MODULES else str(node.module)), node.lineno


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def floor(name: str) -> int:
    room = room_of(name)
    for number, (_, rooms) in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"{name} is on no floor: name its room in FLOORS")


def test_no_arrow_runs_up() -> None:
    """A room imports only from its own floor and from those below."""
    up = [
        f"{name}:{line} → {target}"
        for name in MODULES
        for target, line in imports(name)
        if floor(target) > floor(name)
    ]
    assert up == []


def test_no_circles() -> None:
    """No module needs itself through others, for types or deferred neither."""
    below = {name: {target for target, _ in imports(name)} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in sorted(below[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_every_floor_names_what_stands() -> None:
    """FLOORS has each room once, and none that was torn down."""
    named = [room for _, rooms in FLOORS for room in rooms]
    assert sorted(named) == sorted({room_of(name) for name in MODULES})


def test_the_manual_names_every_room_on_its_floor() -> None:
    """Whoever looks for something finds its room in `docs/explanation/architecture.md`."""
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    told: dict[str, list[str]] = {}
    for names, room in re.findall(r"^\| ([\w ]*) \| `(\w+)` \|", text, re.MULTILINE):
        told.setdefault(names.strip() or list(told)[-1], []).append(room)
    assert list(told) == [name for name, _ in reversed(FLOORS)]
    assert {name: sorted(rooms) for name, rooms in told.items()} == {
        name: sorted(rooms) for name, rooms in FLOORS
    }


def test_rooms_need_each_other_in_one_direction() -> None:
    """No circles among rooms either: each room could be a package of its own."""
    below: dict[str, set[str]] = {room_of(name): set() for name in MODULES}
    for name in MODULES:
        below[room_of(name)] |= {room_of(target) for target, _ in imports(name)}
    standing = set(below)
    while loose := {room for room in standing if not (below[room] & standing) - {room}}:
        standing -= loose
    assert standing == set()


def test_nothing_inside_imports_a_roof() -> None:
    """An `__init__` re-exports for users; nothing inside imports it but the demo, a user itself."""
    found = [
        f"{name}:{line} → {target}"
        for name in MODULES
        for target, line in imports(name)
        if target in ROOFS and not name.startswith("memoleo.demo.")
    ]
    assert found == []


@pytest.mark.parametrize("name", sorted(ROOFS))
def test_roofs_have_no_code(name: str) -> None:
    """An `__init__` holds imports and names, and `__getattr__` where they wait for first use."""
    for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body:
        allowed = isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If))
        allowed |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        allowed |= isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
        assert allowed, f"{name}:{node.lineno} is code"


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"memoleo.__main__"}))
def test_all_is_true(name: str) -> None:
    """Each module says in `__all__` what it offers, and every name in it exists."""
    module = importlib.import_module(name)
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    names = [] if len(tree.body) == 1 and ast.get_docstring(tree) else list(module.__all__)
    assert len(set(names)) == len(names)
    missing = [each for each in names if not hasattr(module, each)]
    assert missing == []


@pytest.mark.parametrize("name", sorted(ROOFS))
def test_roofs_hide_nothing_public(name: str) -> None:
    """What an `__init__` imports under a public name is in its `__all__`."""
    module = importlib.import_module(name)
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    brought = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("memoleo")
        for alias in node.names
    }
    assert {each for each in brought if not each.startswith("_")} <= set(
        getattr(module, "__all__", ())
    )


def test_every_public_name_has_a_docstring() -> None:
    """Whoever asks `help()` gets an answer."""
    import memoleo

    plain = [
        name
        for name in memoleo.__all__
        if callable(getattr(memoleo, name)) and not getattr(memoleo, name).__doc__
    ]
    assert plain == []


IMPORT_ONLY = """
import sys
before = set(sys.modules)
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.append(arguments[0])
    elif event.startswith(("socket.", "sqlite3.", "subprocess.")):
        opened.append(event)
sys.addaudithook(hook)
import memoleo
taken = list(opened)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}), sep=",")
import os
print(*map(os.fsdecode, taken), sep="\\n")
"""


def test_import_is_light() -> None:
    """`import memoleo` loads no heavy or optional library, and opens nothing but Python code."""
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_ONLY], capture_output=True, text=True, check=True
    )
    loaded, *opened = ran.stdout.splitlines()
    assert set(loaded.split(",")) & HEAVY == set()
    code = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib")
    others = [path for path in opened if path and not re.sub(r"\.\d+$", "", path).endswith(code)]
    assert others == []


def test_no_paths_of_a_machine() -> None:
    """No file of the project mentions where somebody keeps it."""
    pattern = re.compile(r"(?<![\w.~}$])/(?:ro" + r"ot|wo" + r"rk|Users|home)/\w")
    kept = {".ci", ".github", ".vscode"}
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if (name in kept or not name.startswith("."))
            and name not in ("__pycache__", "_build", "build", "dist", "venv", "node_modules")
        ]
        for name in names:
            path = Path(folder, name)
            if path.suffix in (".md", ".py", ".toml", ".ini", ".json", ".yml", ".txt", ""):
                text = path.read_text(encoding="utf-8", errors="ignore")
                found += [f"{path}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.name)
def test_each_test_says_what_it_proves(path: Path) -> None:
    """Every test says in a sentence what it proves; its name may be the sentence."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
        and node.name.count("_") < 5
    ]
    assert silent == []
