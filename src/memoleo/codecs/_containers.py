"""Exact trees for the containers of the standard library."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from memoleo.codecs._plain import SCALARS
from memoleo.codecs._tree import READERS, WRITERS, Node, Reader, Unstorable, Writer
from memoleo.errors import CodecError

__all__: list[str] = []

# The tags are part of the stored format.
_PLAIN, _LIST, _DICT, _TUPLE, _SET, _FROZENSET, _DEQUE, _ORDERED, _DEFAULT, _COUNTER = range(10)

_FACTORIES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple,
    )
}  # fmt: skip


def _by_index(index: int) -> str:
    return f"[{index}]"


def _inside(_index: int) -> str:
    return "{…}"


def _all_plain(nodes: Iterable[Node]) -> bool:
    return all(type(node) is not list or node[0] == _PLAIN for node in nodes)


def _write_list(writer: Writer, value: list[Any]) -> Node:
    nodes = writer.nodes(value, value, _by_index)
    if _all_plain(nodes) and not writer.careful:
        return [_PLAIN, value]
    return [_LIST, *nodes]


def _pairs(writer: Writer, value: dict[Any, Any]) -> tuple[list[Node], list[Node]]:
    keys = list(value)

    def step(index: int) -> str:
        key = keys[index]
        return f"[{key!r}]" if type(key) in SCALARS else _inside(index)

    return writer.nodes(value, keys, _inside), writer.nodes(value, value.values(), step)


def _write_dict(writer: Writer, value: dict[Any, Any]) -> Node:
    keys, values = _pairs(writer, value)
    if not writer.careful and {*map(type, value)} <= {str} and _all_plain(values):
        return [_PLAIN, value]
    return [_DICT, keys, values]


def _read_pairs(reader: Reader, keys: Node, values: Node) -> zip[tuple[Any, Any]]:
    if type(keys) is not list or type(values) is not list or len(keys) != len(values):
        raise CodecError("a dict without as many values as keys")
    return zip(reader.lifts(keys), reader.lifts(values), strict=True)


def _write_deque(writer: Writer, value: deque[Any]) -> Node:
    return [_DEQUE, value.maxlen, *writer.nodes(value, value, _by_index)]


def _write_default(writer: Writer, value: defaultdict[Any, Any]) -> Node:
    factory: Any = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and _FACTORIES.get(name) is not factory:
        raise Unstorable(defaultdict, "its default_factory is not a builtin type")
    return [_DEFAULT, name, *_pairs(writer, value)]


def _read_default(reader: Reader, node: list[Node]) -> defaultdict[Any, Any]:
    _, name, keys, values = node
    factory = None if name is None else _FACTORIES[name]
    return defaultdict(factory, _read_pairs(reader, keys, values))


def _sequence(tag: int, kind: type, step: Callable[[int], str]) -> None:
    def write(writer: Writer, value: Any) -> Node:
        return [tag, *writer.nodes(value, value, step)]

    def read(reader: Reader, node: list[Node]) -> Any:
        return kind(reader.lifts(node[1:]))

    WRITERS.setdefault(kind, write)
    READERS[tag] = read


def _mapping(tag: int, kind: type) -> None:
    def write(writer: Writer, value: Any) -> Node:
        return [tag, *_pairs(writer, value)]

    def read(reader: Reader, node: list[Node]) -> Any:
        _, keys, values = node
        # Counter(pairs) would count the pairs; filling it as a dict keeps what was counted.
        filled = kind()
        for key, item in _read_pairs(reader, keys, values):
            filled[key] = item
        return filled

    WRITERS.setdefault(kind, write)
    READERS[tag] = read


WRITERS.setdefault(list, _write_list)
WRITERS.setdefault(dict, _write_dict)
WRITERS.setdefault(deque, _write_deque)
WRITERS.setdefault(defaultdict, _write_default)
READERS[_PLAIN] = lambda reader, node: node[1]
READERS[_LIST] = lambda reader, node: reader.lifts(node[1:])
READERS[_DICT] = lambda reader, node: dict(_read_pairs(reader, node[1], node[2]))
READERS[_DEQUE] = lambda reader, node: deque(reader.lifts(node[2:]), node[1])
READERS[_DEFAULT] = _read_default
_sequence(_TUPLE, tuple, _by_index)
_sequence(_SET, set, _inside)
_sequence(_FROZENSET, frozenset, _inside)
_mapping(_ORDERED, OrderedDict)
_mapping(_COUNTER, Counter)
