"""What a definition reads from outside itself, and what it changes there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType
from typing import Any

__all__ = ["Reads", "reads_of_code", "reads_of_tree"]

# Methods that change what they are called on: those of the builtin and standard containers,
# of files and of queues.
_CHANGES = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "difference_update",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "intersection_update",
        "move_to_end",
        "pop",
        "popitem",
        "popleft",
        "put",
        "put_nowait",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "symmetric_difference_update",
        "update",
        "write",
        "writelines",
        "__setitem__",
        "__delitem__",
    ]
)
_LOADS = ("LOAD_METHOD", "LOAD_ATTR")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Reads:
    """The names that a definition takes from its surroundings.

    Attributes
    ----------
    names
        dotted names as tuples, ``("module", "helper")``, in the order in which they are met
    changed
        dotted names that it binds anew, deletes, or changes in place
    own
        attributes of the instance or class that a method reads
    inherited
        whether it also calls ``super()``
    imports
        names that it imports when it runs, each as (module, level, name or "")
    """

    def __init__(self) -> None:
        self.names: dict[tuple[str, ...], None] = {}
        self.changed: dict[tuple[str, ...], None] = {}
        self.own: dict[str, None] = {}
        self.own_changed: dict[str, None] = {}
        self.inherited = False
        self.imports: dict[str, tuple[str, int, str]] = {}


def reads_of_tree(node: ast.AST) -> Reads:
    """Return what a function, lambda or class reads, from its syntax tree."""
    walker = _Walker()
    if isinstance(node, _FUNCTIONS):
        named = [*node.args.posonlyargs, *node.args.args]
        walker.first = named[0].arg if named else None
        walker.function(node, outermost=True)
    else:
        walker.visit(node)
    return walker.found


def reads_of_code(code: CodeType) -> Reads:
    """Return what code without source may read: every name in it, which is more than it does."""
    found = Reads()
    pending = [code]
    roots: dict[str, None] = {}
    while pending:
        one = pending.pop()
        roots.update(dict.fromkeys(one.co_names))
        pending.extend(value for value in one.co_consts if isinstance(value, CodeType))
        found.changed.update(dict.fromkeys(_stores(one)))
    found.own.update(roots)
    found.names.update({(name,): None for name in roots})
    found.names.update({(name, other): None for name in roots for other in roots if name != other})
    found.inherited = "super" in roots
    return found


def _stores(code: CodeType) -> Iterator[tuple[str, ...]]:
    # A heavy import that code with source never needs.
    import dis

    last: Any = None
    before = ""
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF"):
            yield (str(step.argval),)
        elif step.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME"):
            last = step.argval
        elif isinstance(last, str) and (
            step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR")
            or (
                (step.opname == "STORE_ATTR" or (step.opname in _LOADS and step.argval in _CHANGES))
                # An attribute is one of what was loaded just before: here, of a local variable.
                and "LOAD_FAST" not in before
            )
        ):
            yield (last,)
        before = step.opname


class _Walker(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found = Reads()
        self.first: str | None = None
        # Innermost last. A class body's names are not seen from the functions inside it.
        self.scopes: list[tuple[bool, set[str]]] = []

    def is_local(self, name: str) -> bool:
        for depth, (is_class, names) in enumerate(reversed(self.scopes)):
            if name in names and not (is_class and depth):
                return True
        return False

    def is_first(self, name: str) -> bool:
        """Whether the name is the first parameter of the outermost function."""
        if name != self.first or not self.scopes:
            return False
        return not any(name in names for _, names in self.scopes[1:])

    def function(self, node: Any, outermost: bool = False) -> None:
        if not outermost:
            for one in (*getattr(node, "decorator_list", ()), *node.args.defaults):
                self.visit(one)
            for one in node.args.kw_defaults:
                if one is not None:
                    self.visit(one)
        body = node.body if isinstance(node.body, list) else [node.body]
        arguments = node.args
        names = {one.arg for one in ast.walk(arguments) if isinstance(one, ast.arg)}
        self.inside(body, names, is_class=False)

    def inside(self, body: list[Any], names: set[str], *, is_class: bool) -> None:
        bound, elsewhere = _bindings(body)
        for name in elsewhere & bound:
            if not self.is_local(name):
                self.found.changed[(name,)] = None
        self.scopes.append((is_class, (names | bound) - elsewhere))
        for one in body:
            self.visit(one)
        self.scopes.pop()

    def visit_FunctionDef(self, node: Any) -> None:
        self.function(node)

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for one in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(one)
        self.inside(node.body, set(), is_class=True)

    def comprehension(self, node: Any) -> None:
        targets = {
            one.id
            for part in node.generators
            for one in ast.walk(part.target)
            if isinstance(one, ast.Name)
        }
        self.visit(node.generators[0].iter)
        self.scopes.append((False, targets))
        self.generic_visit(node)
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)
        if self.scopes and self.scopes[-1][0]:
            self.visit(node.annotation)

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            alias = one.asname or one.name.partition(".")[0]
            self.found.imports[alias] = (one.name if one.asname else alias, 0, "")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for one in node.names:
            place = (node.module or "", node.level, one.name)
            self.found.imports[one.asname or one.name] = place

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and not self.is_local(node.id):
            self.found.names[(node.id,)] = None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        stored = not isinstance(node.ctx, ast.Load)
        if chain is None:
            owner = _owner_call(node.value)
            if owner is not None:
                self.found.own[node.attr] = None
                self.found.inherited |= owner == "super"
            if stored:
                self.changes(node.value)
            self.generic_visit(node)
            return
        if self.is_first(chain[0]):
            attributes = chain[2:] if chain[1] == "__class__" else chain[1:]
            if attributes:
                self.found.own[attributes[0]] = None
                if stored:
                    self.found.own_changed[attributes[0]] = None
        elif not self.is_local(chain[0]):
            self.found.names[chain] = None
            if stored:
                self.found.changed[chain] = None

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.changes(node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name) and not self.is_local(node.target.id):
            self.found.names[(node.target.id,)] = None

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            self.changes(node.func.value)
        self.generic_visit(node)

    def changes(self, node: ast.AST) -> None:
        """Note that what `node` evaluates to is changed in place."""
        while isinstance(node, (ast.Subscript, ast.Call)):
            node = node.value if isinstance(node, ast.Subscript) else node.func
        chain = _chain(node)
        if chain is None:
            if isinstance(node, ast.Attribute):
                self.changes(node.value)
        elif self.is_first(chain[0]):
            if len(chain) > 1:
                self.found.own_changed[chain[1]] = None
        elif not self.is_local(chain[0]):
            self.found.changed[chain] = None


def _chain(node: ast.AST) -> tuple[str, ...] | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return (node.id, *reversed(names))


def _owner_call(node: ast.AST) -> str | None:
    """Return "super" or "type" for ``super()`` and ``type(self)``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return None
    if node.func.id == "super" or (node.func.id == "type" and len(node.args) == 1):
        return node.func.id
    return None


def _bindings(body: list[Any]) -> tuple[set[str], set[str]]:
    """Return the names that statements bind, and those declared global or nonlocal."""
    bound: set[str] = set()
    elsewhere: set[str] = set()
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            elsewhere.update(node.names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            # `Reads.imports` tells where these names lead.
            continue
        elif isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
            continue
        elif isinstance(node, ast.Lambda):
            continue
        elif isinstance(node, _COMPREHENSIONS):
            # Its targets are its own; only `:=` inside it binds out here.
            bound.update(
                one.target.id
                for one in ast.walk(node)
                if isinstance(one, ast.NamedExpr) and isinstance(one.target, ast.Name)
            )
            continue
        else:
            for field in ("name", "rest"):
                name = getattr(node, field, None)
                if isinstance(name, str):
                    bound.add(name)
        pending.extend(ast.iter_child_nodes(node))
    return bound, elsewhere
