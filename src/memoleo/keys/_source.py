"""The fingerprint of a function: what it is called, and the logic that a call of it runs.

Its own logic counts, that of the helpers of the same package which it reaches, transitively,
and the constants that they read. What is installed beside the program does not: a new version
of a library keeps the entries.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from types import (
    CodeType,
    FunctionType,
    ModuleType,
)
from typing import Any, NamedTuple

from memoleo._functions.callable import WrappedCallable
from memoleo._functions.compiled import UNSET
from memoleo.keys._canonical import (
    Unkeyable,
    canonical,
    class_name,
    frame,
    is_keyable,
    is_settled,
    module_name,
)
from memoleo.keys._instances import (
    declared_details,
    instance_content,
    is_bare,
    is_python_class,
)
from memoleo.keys._labels import labelled
from memoleo.keys._package import Package
from memoleo.keys._reads import Reads, reads_of_code, reads_of_tree
from memoleo.keys._resolve import resolve
from memoleo.keys._standard import is_constant_type, is_record
from memoleo.keys._tokens import token_of
from memoleo.keys._tree import class_node, code_bytes, function_node, tree_bytes
from memoleo.keys._wrapped import (
    accessors,
    home_of,
    innermost,
    label_of,
    layer_below,
    logic_below,
    receiver_of,
)

__all__ = ["Live", "Logic", "examine"]


class Live(NamedTuple):
    """Something whose content counts anew at each call: a closure's cell, or a callable object."""

    cell: Any
    name: str


_NO_FACTS: Mapping[str, bytes] = {}


class _Held(NamedTuple):
    """Looks like a cell, and always holds the same object."""

    cell_contents: Any


class Logic(NamedTuple):
    """What is known of a function's logic.

    Parameters
    ----------
    digest
        32 bytes: name, logic, helpers, constants
    live
        what counts by content at each call
    pins
        cells with what they held: if one holds something else, the digest is out of date
    process
        the process in which alone it holds, or 0: it names an object by its identity
    facts
        what the digest was made from: a name for each part, and a digest of what it is
    """

    digest: bytes
    live: tuple[Live, ...] = ()
    pins: tuple[tuple[Any, Any], ...] = ()
    process: int = 0
    facts: Mapping[str, bytes] = _NO_FACTS

    def is_current(self) -> bool:
        """Return whether every pinned cell holds what it held, in this process."""
        if self.process and self.process != os.getpid():
            return False
        try:
            return all(cell.cell_contents is held for cell, held in self.pins)
        except ValueError:
            return False

    @classmethod
    def of_version(cls, func: Any, version: bytes, owner: type | None = None) -> Logic:
        """Return the logic of a function whose user says its version: its name and that.

        What its closures hold still counts, as far as it is data: two functions that one factory
        made are two functions, whatever their version. Objects without content don't count.
        """
        parts = [frame(b"version"), frame(label_of(func)), frame(_script(func)), frame(version)]
        digest = hashlib.sha256(b"".join(parts)).digest()
        live = _Examination(func, owner, versioned=True).result().live
        return cls(digest, live, facts={"version": hashlib.sha256(version).digest()})


def examine(func: Any, owner: type | None = None) -> Logic:
    """Return what the logic of `func` consists of.

    Parameters
    ----------
    func
        any callable
    owner
        for a method, the class in which its attributes are looked up
    """
    return _Examination(func, owner).result()


def _script(func: Any) -> str:
    """Return the path of the script that a function belongs to; "" for an importable module.

    Every script is called ``__main__``, and many have a function of the same name.
    """
    if module_name(home_of(innermost(func))) != "__main__":
        return ""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(path) if isinstance(path, str) else ""


def _annotations(cls: type) -> Any:
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        try:
            return get_annotations(cls)
        except Exception:
            # What they name may not exist yet, or for type checkers only.
            return get_annotations(cls, format=Format.STRING)
    return vars(cls).get("__annotations__", {})


def _is_in_its_module(value: Any) -> bool:
    """Return whether a module holds `value` under its own name, which says all about it then."""
    try:
        found = sys.modules[value.__module__]
        for name in value.__qualname__.split("."):
            found = getattr(found, name)
    except Exception:
        return False
    return found is value


_SETTINGS = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset)

_KNOWN_CODE: dict[int, tuple[CodeType, bytes, Reads]] = {}


def _logic_of_code(func: FunctionType) -> tuple[bytes, Reads]:
    code = func.__code__
    known = _KNOWN_CODE.get(id(code))
    if known is not None and known[0] is code:
        return known[1], known[2]
    try:
        node = function_node(code, func.__globals__)
        found = (tree_bytes(node), reads_of_tree(node)) if node else None
    except RecursionError:
        found = None
    block, reads = found or (b"code" + code_bytes(code), reads_of_code(code))
    if len(_KNOWN_CODE) >= 16_384:
        _KNOWN_CODE.clear()
    _KNOWN_CODE[id(code)] = (code, block, reads)
    return block, reads


class _Examination:
    """One walk over a function and the helpers that it reaches."""

    def __init__(self, func: Any, owner: type | None, *, versioned: bool = False) -> None:
        self.root = func
        self.versioned = versioned
        self.owner = owner
        self.home = home_of(innermost(func))
        self.package = Package(self.home)
        self.facts: dict[bytes, tuple[str | bytes, ...]] = {}
        self.seen: dict[tuple[int, int], Any] = {}
        self.named: dict[str, dict[int, tuple[int, Any]]] = {}
        self.pending: list[tuple[Any, type | None]] = []
        self.constants: dict[tuple[str, ...], Any] = {}
        self.changed: set[tuple[str, ...]] = set()
        self.cells: dict[int, tuple[Any, str, str, str]] = {}
        self.changed_cells: set[int] = set()
        self.pins: list[tuple[Any, Any]] = []
        self.live: list[Live] = []
        self.process = 0
        self.seen_places: set[tuple[str, ...]] = set()
        self.seen_cells: set[int] = set()

    def fact(self, *parts: str | bytes) -> None:
        """Note something that the digest depends on; the order of facts has no meaning."""
        self.facts[b"".join(map(frame, parts))] = parts

    def name_of(self, value: Any) -> str:
        """Return the label of a function or class, with a number from the second of its kind on.

        What a factory makes has one label, and so have lambdas: which of them stands where
        counts too.
        """
        while issubclass(type(value), WrappedCallable):
            value = value.__memoleo_wrapped__
        label = label_of(value)
        alike = self.named.setdefault(label, {})
        number, _ = alike.setdefault(id(value), (len(alike), value))
        return f"{label}#{number}" if number else label

    def result(self) -> Logic:
        self.fact("root", self.name_of(self.root))
        self.follow(self.root, self.owner)
        while True:
            while self.pending:
                self.unit(*self.pending.pop())
            # Constants and cells may hold further functions.
            if not (self.read_constants() or self.read_cells()):
                break
        whole = hashlib.sha256(b"logic")
        for fact in sorted(self.facts):
            whole.update(frame(fact))
        return Logic(
            whole.digest(), tuple(self.live), tuple(self.pins), self.process, self.named_facts()
        )

    def named_facts(self) -> dict[str, bytes]:
        """Return the facts by name: what of them is text is the name, and bytes are digested."""
        found: dict[str, Any] = {}
        for fact in sorted(self.facts):
            parts = self.facts[fact]
            name = " ".join(part for part in parts if isinstance(part, str))
            digest = found.setdefault(name, hashlib.sha256())
            for part in parts:
                if isinstance(part, bytes):
                    digest.update(frame(part))
        return {name: digest.digest() for name, digest in found.items()}

    def follow(self, value: Any, owner: type | None = None) -> None:
        """Put a function or class on the list, once."""
        key = (id(value), id(owner))
        if key not in self.seen:
            self.seen[key] = value
            self.pending.append((value, owner))

    def unit(self, value: Any, owner: type | None) -> None:
        receiver = receiver_of(value)
        if receiver is not UNSET:
            self.method(value, receiver)
            return
        inner = layer_below(value)
        if inner is not None:
            self.follow(inner, owner)
            if getattr(value, "__memoleo_wrapped__", None) is inner:
                # Caching, timing and retrying change no result.
                return
            self.fact("layer", self.name_of(value), self.name_of(inner))
        if type(value) is FunctionType:
            self.function(value, owner)
        elif isinstance(value, type):
            self.class_(value)
        elif type(value).__name__ == "partial" and hasattr(value, "func"):
            label = self.name_of(value)
            self.fact("layer", label, self.name_of(value.func))
            self.follow(value.func)
            self.hold([*value.args], "arguments of the partial", label)
            self.hold(dict(value.keywords), "keywords of the partial", label)
        else:
            self.callable_object(value, inner)

    def method(self, value: Any, receiver: Any) -> None:
        label = self.name_of(value)
        owner = receiver if isinstance(receiver, type) else type(receiver)
        if hasattr(value, "__func__"):
            self.fact("layer", label, self.name_of(value.__func__))
            self.follow(value.__func__, owner)
        if self.versioned and owner is receiver:
            # The version stands for the code of the class; its name is what is left.
            self.hold(class_name(owner), "self", label)
        elif not is_bare(receiver):
            self.hold(receiver, "self", label)

    def callable_object(self, value: Any, inner: Any) -> None:
        cls = type(value)
        layers = (vars(layer) for layer in cls.__mro__)
        call = next((layer["__call__"] for layer in layers if "__call__" in layer), None)
        label = self.name_of(value)
        if logic_below(call) is not None:
            self.fact("layer", label, self.name_of(call))
            self.follow(call, cls)
        elif _is_in_its_module(value):
            return
        if inner is not None:
            self.layer_object(value, inner, label)
        elif not is_bare(value):
            self.hold(value, "self", label)

    def layer_object(self, value: Any, inner: Any, label: str) -> None:
        """Take in what a decorator that is a class was told, beside the function below it."""
        cls = type(value)
        if not is_python_class(cls):
            return
        ours = self.package.holds(cls.__module__)
        for name, item in instance_content(cls)(value).items():
            if name.startswith("__") or item is inner:
                continue
            if isinstance(item, _SETTINGS) and self.versioned:
                self.hold(item, name, label)
            elif (ours or isinstance(item, _SETTINGS)) and (block := self.content(item)):
                self.fact("held", label, name, block)

    def hold(self, value: Any, name: str, label: str) -> None:
        cell = _Held(value)
        self.cells[id(cell)] = (cell, name, label, self.home)

    def function(self, func: FunctionType, owner: type | None) -> None:
        block, reads = _logic_of_code(func)
        label = self.name_of(func)
        self.fact("logic", label, block)
        if func is not self.root:
            self.defaults(func, label)
        free = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))
        home = module_name(func.__globals__.get("__name__"))
        for chain in reads.changed:
            if chain[0] in free:
                self.changed_cells.add(id(free[chain[0]]))
            else:
                self.note_change(chain, func.__globals__, reads, home)
        for name, cell in free.items():
            if name != "__class__":
                self.cells.setdefault(id(cell), (cell, name, label, home))
        if not self.package.holds(home):
            # Of a decorator from a library, the function below it counts, not its own helpers.
            return
        for chain in reads.names:
            if chain[0] not in free:
                self.read(chain, func.__globals__, reads, home, label)
            else:
                self.read_in_module(chain, free[chain[0]], label)
        if owner is not None:
            self.members(reads, owner, label)

    def defaults(self, func: FunctionType, label: str) -> None:
        found = {"": func.__defaults__ or (), **(func.__kwdefaults__ or {})}
        for name, value in found.items():
            if block := self.content(value):
                self.fact("default", label, name, block)

    def read(
        self, chain: tuple[str, ...], names: dict[str, Any], reads: Reads, home: str, label: str
    ) -> None:
        place, value = resolve(chain, names, reads, home, self.package)
        if place:
            self.meet(value, place, label, ".".join(chain))

    def note_change(
        self, chain: tuple[str, ...], names: dict[str, Any], reads: Reads, home: str
    ) -> None:
        place, value = resolve(chain, names, reads, home, self.package)
        if place:
            self.changed.add(place)
        if isinstance(value, type):
            self.changed.update((class_name(value), name) for name in chain[1:])

    def read_in_module(self, chain: tuple[str, ...], cell: Any, label: str) -> None:
        """Follow ``module.helper`` where `module` is a captured variable."""
        try:
            module = cell.cell_contents
        except ValueError:
            return
        if isinstance(module, ModuleType) and len(chain) > 1:
            self.read(chain, {chain[0]: module}, Reads(), "", label)

    def meet(self, value: Any, place: tuple[str, ...], label: str, name: str) -> None:
        """Take in what a name stands for; what is neither logic nor constant is skipped."""
        target = logic_below(value)
        if target is not None:
            if self.package.holds(home_of(target)) or self.package.holds(home_of(value)):
                self.fact("reads", label, name, self.name_of(value))
                self.follow(value)
        elif is_constant_type(value) or is_record(value):
            self.constants.setdefault(place, value)

    def members(self, reads: Reads, owner: type, label: str) -> None:
        """Follow what a method reads from its own class: the one found first, or all for super."""
        for name in reads.own_changed:
            self.changed.update((class_name(layer), name) for layer in owner.__mro__)
        for name in reads.own:
            for layer in owner.__mro__:
                if name not in vars(layer):
                    continue
                if self.package.holds(layer.__module__):
                    self.member(vars(layer)[name], (class_name(layer), name), owner, label)
                if not reads.inherited:
                    break

    def member(self, value: Any, place: tuple[str, str], owner: type, label: str) -> None:
        for function in accessors(value):
            self.fact("reads", label, ".".join(place), self.name_of(function))
            self.follow(function, owner)
            return
        if is_constant_type(value):
            self.constants.setdefault(place, value)

    def class_(self, cls: type) -> None:
        module = sys.modules.get(cls.__module__)
        label = self.name_of(cls)
        node = class_node(cls, vars(module)) if module is not None else None
        if node is None:
            self.fact("class", label)
        else:
            assert module is not None
            reads = reads_of_tree(node)
            self.fact("class", label, tree_bytes(node))
            home = module_name(cls.__module__)
            for chain in reads.changed:
                self.note_change(chain, vars(module), reads, home)
            for chain in reads.names:
                self.read(chain, vars(module), reads, home, label)
        if node is None or "<locals>" in cls.__qualname__:
            # What a function declares may be made of that function's variables.
            self.class_as_made(cls, label)

    def class_as_made(self, cls: type, label: str) -> None:
        for base in cls.__bases__:
            self.fact("base", label, self.name_of(base))
            if self.package.holds(base.__module__):
                self.follow(base)
        for name, value in sorted(vars(cls).items()):
            for function in accessors(value):
                if type(function) is FunctionType and self.package.holds(home_of(function)):
                    self.fact("member", label, name, self.name_of(function))
                    self.follow(function, cls)
                break
            else:
                if is_constant_type(value) and not name.startswith("__"):
                    self.constants.setdefault((label, name), value)
        if block := self.content(_annotations(cls)):
            self.fact("fields", label, block)
        for place, value in declared_details(cls):
            if block := self.content(value):
                self.fact("field", label, *place, block)

    def content(self, value: Any) -> bytes:
        """Return the content of a value in which functions stand for themselves by name."""
        try:
            with labelled(self.name_of) as functions:
                block = canonical(value)
        except Unkeyable:
            return b""
        for function in functions:
            if self.package.holds(home_of(function)):
                self.follow(function)
        return block

    def read_constants(self) -> bool:
        found = False
        for place, value in list(self.constants.items()):
            del self.constants[place]
            if place not in self.changed and place not in self.seen_places:
                self.seen_places.add(place)
                block = self.content(value)
                if block:
                    found = True
                    self.fact("constant", *place, block)
        return found or bool(self.pending)

    def read_cells(self) -> bool:
        for mark, (cell, name, label, home) in list(self.cells.items()):
            if mark in self.changed_cells or mark in self.seen_cells:
                continue
            self.seen_cells.add(mark)
            self.cell(cell, name, label, home)
        return bool(self.pending)

    def cell(self, cell: Any, name: str, label: str, home: str) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            return
        if isinstance(value, ModuleType):
            self.fact("cell", label, name, module_name(value.__name__))
            self.pins.append((cell, value))
        elif logic_below(value) is not None and receiver_of(value) is UNSET:
            self.fact("cell", label, name, self.name_of(value))
            self.follow(value)
            self.pins.append((cell, value))
        elif not self.package.holds(home) and not isinstance(cell, _Held):
            # A library's decorator keeps its own affairs beside what the user told it.
            if isinstance(value, _SETTINGS) and is_keyable(value):
                self.count_live(cell, name, label)
        elif is_keyable(value) if isinstance(cell, _Held) else is_settled(value):
            self.count_live(cell, name, label)
        elif not self.versioned:
            self.process = os.getpid()
            self.fact("cell", label, name, token_of(value, name, label_of(self.root)))
            self.pins.append((cell, value))

    def count_live(self, cell: Any, name: str, label: str) -> None:
        self.fact("live", label, name, str(len(self.live)))
        self.live.append(Live(cell, name))
