"""The logic of a function or class as bytes: from its syntax tree, or else its bytecode.

A tree is taken from the file only if the file still says what was loaded: it is compiled again,
and the code object found there must be the same. So an edit under a running program, or a test
runner that rewrites what it imports, leads to bytecode instead of to a wrong key.
"""

from __future__ import annotations

import ast
import linecache
import os
import time
import tokenize
import warnings
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from memoleo._platform.forks import RenewedLock
from memoleo.keys._canonical import canonical, frame, is_keyable

__all__ = ["class_node", "code_bytes", "described_bytes", "function_node", "tree_bytes"]

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

# Positions, how a name is used, comments on types and the u of u"…" say nothing about logic.
_SILENT = frozenset({"ctx", "type_comment", "kind", "type_params", "returns"})

# How a method inside a class is cached or timed says nothing about its logic.
_OURS = frozenset({"content_cached", "retried", "timed"})

_LOADED = time.time()


class _File:
    """The definitions in one file, by name and first line."""

    def __init__(self, source: str, filename: str) -> None:
        self.tree = ast.parse(source)
        self.nodes: dict[tuple[str, int], list[ast.AST]] = {}
        self.codes: dict[tuple[str, int], list[CodeType]] = {}
        for node in _definitions(self.tree):
            self.nodes.setdefault((_node_name(node), _first_line(node)), []).append(node)
        for code in _nested(compile(source, filename, "exec", dont_inherit=True)):
            self.codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)

    def find(self, code: CodeType) -> ast.AST | None:
        place = (code.co_name, code.co_firstlineno)
        nodes, codes = self.nodes.get(place, []), self.codes.get(place, [])
        if len(nodes) != len(codes):
            return None
        for node, candidate in zip(nodes, codes, strict=True):
            if _same(candidate, code):
                return node
        return None


_FILES: dict[tuple[str, Any], _File | None] = {}
_LOCK = RenewedLock()


def _file(filename: str, namespace: dict[str, Any]) -> _File | None:
    try:
        state = os.stat(filename)
        version: Any = (state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):
        version = None
    with _LOCK:
        if (filename, version) not in _FILES:
            _FILES[filename, version] = _read(filename, version is not None, namespace)
        return _FILES[filename, version]


def _read(filename: str, exists: bool, namespace: dict[str, Any]) -> _File | None:
    try:
        if exists:
            with tokenize.open(filename) as lines:
                source = lines.read()
        else:
            # Notebooks, the interactive shell of IPython, and modules inside a zip file.
            source = "".join(linecache.getlines(filename, namespace))
        if not source:
            return None
        with warnings.catch_warnings():
            # They were shown when the file was imported.
            warnings.simplefilter("ignore")
            return _File(source, filename)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def function_node(code: CodeType, namespace: dict[str, Any]) -> ast.AST | None:
    """Return the syntax tree of loaded code, or None if no source is in step with it."""
    found = _file(code.co_filename, namespace)
    return None if found is None else found.find(code)


def class_node(cls: type, namespace: dict[str, Any]) -> ast.ClassDef | None:
    """Return the syntax tree of a class, or None if no source is in step with it."""
    filename = namespace.get("__file__")
    found = _file(filename, namespace) if isinstance(filename, str) else None
    if found is None:
        return None
    nodes = [node for path, node in _classes(found.tree) if path == cls.__qualname__]
    if len(nodes) != 1:
        return None
    node = nodes[0]
    inside = {id(one) for one in ast.walk(node)}
    methods = [
        value.__code__
        for value in map(_plain_function, vars(cls).values())
        if value is not None
        and value.__code__.co_filename == filename
        and value.__code__.co_name != "__annotate__"  # it has no definition (PEP 649)
    ]
    for code in methods:
        found_node = found.find(code)
        if found_node is None or id(found_node) not in inside:
            return None
    if not methods and os.stat(str(filename)).st_mtime > _LOADED:
        return None
    return node


def _plain_function(value: Any) -> Any:
    value = getattr(value, "fget", None) or getattr(value, "__func__", value)
    return value if hasattr(value, "__code__") and hasattr(value, "__globals__") else None


def _classes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _classes(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _classes(node, f"{prefix}{node.name}.<locals>.")
        else:
            yield from _classes(node, prefix)


def _definitions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _SCOPES):
            yield node
        yield from _definitions(node)


def _node_name(node: Any) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else str(node.name)


def _first_line(node: Any) -> int:
    decorators = getattr(node, "decorator_list", ())
    return int(decorators[0].lineno if decorators else node.lineno)


def _nested(code: CodeType) -> Iterator[CodeType]:
    for value in code.co_consts:
        if isinstance(value, CodeType):
            if value.co_name == "<lambda>" or not value.co_name.startswith("<"):
                yield value
            yield from _nested(value)


def _same(one: CodeType, other: CodeType) -> bool:
    return (
        one.co_code == other.co_code
        and one.co_names == other.co_names
        and one.co_varnames == other.co_varnames
        and one.co_freevars == other.co_freevars
        and len(one.co_consts) == len(other.co_consts)
        and all(map(_same_constant, one.co_consts, other.co_consts))
    )


def _same_constant(one: Any, other: Any) -> bool:
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        return _same(one, other)
    if type(one) is not type(other):
        return False
    return one is other or (is_keyable(one) and canonical(one) == canonical(other))


def tree_bytes(node: ast.AST) -> bytes:
    """Return the bytes of a definition's logic, the same on every version of Python.

    Comments, layout, docstrings, type annotations and the decorators of the definition itself
    stay out. The annotations of a class body and its decorators are logic: they make fields.

    Parameters
    ----------
    node
        the definition of a function or a class
    """
    pieces: list[bytes] = []
    _write(node, pieces.append, isinstance(node, ast.ClassDef), not isinstance(node, ast.ClassDef))
    return b"".join(pieces)


def described_bytes(node: ast.AST) -> bytes:
    """Return the bytes of a function's annotations, the same on every version of Python."""
    pieces: list[bytes] = []
    arguments: Any = getattr(node, "args", None)
    everyone = [*arguments.posonlyargs, *arguments.args, arguments.vararg]
    everyone += [*arguments.kwonlyargs, arguments.kwarg]
    notes = [getattr(one, "annotation", None) for one in everyone if one is not None]
    _write([*notes, getattr(node, "returns", None)], pieces.append, in_class=True)
    return b"".join(pieces)


def _write(node: Any, put: Callable[[bytes], object], in_class: bool, top: bool = False) -> None:
    if isinstance(node, list):
        put(b"[" + len(node).to_bytes(4, "little"))
        for item in node:
            _write(item, put, in_class)
        return
    if not isinstance(node, ast.AST):
        put(canonical(node))
        return
    put(b"(" + frame(type(node).__name__))
    if isinstance(node, _SCOPES):
        in_class = isinstance(node, ast.ClassDef)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or name in _SILENT or (name == "annotation" and not in_class):
            continue
        if name == "body" and isinstance(node, _DOCUMENTED) and _is_text(value[0]):
            value = value[1:]
        if isinstance(node, ast.JoinedStr):
            value = _merged(value)
        if name == "decorator_list":
            value = [one for one in value if _decorator_name(one) not in _OURS]
        if value == [] or (top and name in ("decorator_list", "name")):
            continue
        put(frame(name))
        _write(value, put, in_class)
    put(b")")


def _merged(parts: list[Any]) -> list[Any]:
    """Return the parts of an f-string with neighbouring texts joined, as some versions do."""
    merged: list[Any] = []
    for part in parts:
        text = part.value if isinstance(part, ast.Constant) else None
        if isinstance(text, str) and merged and isinstance(merged[-1], ast.Constant):
            text = merged.pop().value + text
        if text != "":
            merged.append(part if text is None else ast.Constant(text))
    return merged


def _decorator_name(node: ast.AST) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _is_text(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def code_bytes(code: CodeType) -> bytes:
    """Return the bytes of compiled logic, for code without source; they depend on the version."""
    pieces = [frame(code.co_name), frame(code.co_code)]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    pieces.append(canonical((*shape, code.co_names, code.co_varnames, code.co_freevars)))
    document = code.co_consts[0] if code.co_consts else None
    for place, value in enumerate(code.co_consts):
        if isinstance(value, CodeType):
            pieces.append(frame(code_bytes(value)))
        elif not (place == 0 and isinstance(document, str)) and is_keyable(value):
            pieces.append(frame(canonical(value)))
    return b"".join(pieces)
