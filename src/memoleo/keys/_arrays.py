"""numpy: arrays by dtype, shape and content, scalars by dtype and content."""

from __future__ import annotations

import sys
from typing import Any

from memoleo.keys._canonical import Put, Unkeyable, Writer, class_name, finder, frame, write

__all__: list[str] = []


@finder(5)
def _numpy(cls: type) -> Writer | None:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):
        return None
    if cls is numpy.ndarray:
        return _array
    if issubclass(cls, numpy.generic):
        return _scalar
    if issubclass(cls, numpy.dtype):
        return _write_dtype
    if issubclass(cls, numpy.ndarray):
        return _subclass_writer(cls)
    if cls is numpy.ufunc:
        return _ufunc
    return None


def _array(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("numpy.ndarray"))
    _content(value, put, active)


def _scalar(value: Any, put: Put, active: set[int]) -> None:
    numpy: Any = sys.modules["numpy"]
    put(b"X" + frame("numpy.generic"))
    _content(numpy.asarray(value), put, active)


def _subclass_writer(cls: type) -> Writer:
    def writer(value: Any, put: Put, active: set[int]) -> None:
        numpy: Any = sys.modules["numpy"]
        put(b"X" + frame("numpy.subclass") + frame(class_name(cls)))
        _content(numpy.ndarray.view(value, numpy.ndarray), put, active)
        write(dict(getattr(value, "__dict__", {})), put, active)

    return writer


def _ufunc(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("numpy.ufunc") + frame(value.__name__))


def _write_dtype(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("numpy.dtype"))
    _dtype(value, put, active)


def _dtype(dtype: Any, put: Put, active: set[int]) -> None:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        put(b"s")
        write(shape, put, active)
        _dtype(base, put, active)
    elif dtype.names is not None:
        put(b"r" + frame(class_name(dtype.type)))
        write((dtype.itemsize, len(dtype.names), dtype.isalignedstruct), put, active)
        for name in dtype.names:
            field, offset = dtype.fields[name][:2]
            write((name, offset), put, active)
            _dtype(field, put, active)
    else:
        put(b"d" + frame(dtype.str) + frame(type(dtype).__name__))


def _content(array: Any, put: Put, active: set[int]) -> None:
    dtype = array.dtype
    _dtype(dtype, put, active)
    write(array.shape, put, active)
    if dtype.names is not None:
        # Field by field: the gaps between them hold anything.
        for name in dtype.names:
            try:
                _content(array[name], put, active)
            except Unkeyable as error:
                raise error.inside(f"[{name!r}]") from None
        return
    if dtype.hasobject or dtype.kind not in "biufcmMSUV":
        write(array.ravel().tolist(), put, active)
        return
    if dtype.char in "gG":
        _wide(array, put, active)
        return
    _block(_one_nan(array), put)


def _wide(array: Any, put: Put, active: set[int]) -> None:
    """Write a long double as the sum of three doubles: its own bytes have gaps."""
    numpy: Any = sys.modules["numpy"]
    if array.dtype.kind == "c":
        _wide(array.real, put, active)
        _wide(array.imag, put, active)
        return
    rest = array.astype(numpy.longdouble)
    with numpy.errstate(all="ignore"):
        for _ in range(3):
            part = rest.astype("<f8")
            _block(_one_nan(part), put)
            rest = rest - part


def _one_nan(array: Any) -> Any:
    """Return the array with the same bits for every nan, since they say nothing."""
    numpy: Any = sys.modules["numpy"]
    if array.dtype.kind not in "fcmM"[:2] or array.size == 0:
        return array
    # The smallest item is nan if any is: no mask as large as the array is needed for that.
    with numpy.errstate(all="ignore"):
        smallest = array.min()
    if smallest == smallest:
        return array
    array = array.copy()
    if array.dtype.kind == "c":
        # The two parts are numbers of their own.
        for part in (array.real, array.imag):
            part[numpy.isnan(part)] = numpy.nan
    else:
        array[numpy.isnan(array)] = numpy.nan
    return array


def _block(array: Any, put: Put) -> None:
    numpy: Any = sys.modules["numpy"]
    whole = numpy.ascontiguousarray(array)
    put(whole.nbytes.to_bytes(8, "little"))
    # A view of its bytes, not a copy.
    put(whole.reshape(-1).view(numpy.uint8).data if whole.nbytes else b"")
