"""Numbers, arrays and containers inside pickles: what stands in for NumPy's and Python's own constructors.

An array is a record of (shape, dtype, order, bytes) until its numbers are asked for; only plain numbers are allowed.

Source: NumPy's pickle protocol (``ndarray.__reduce__``, ``dtype.__reduce__``).
"""

import math
import re
from collections import OrderedDict

import numpy as np

from generators._pickle import AllowList, Global, Inert

__all__ = ["ELEMENTS", "PLAIN", "Array", "sizes"]

DIMENSIONS = 16
ELEMENTS = 1 << 40
NUMBER = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")


class Dtype(Inert):
    """The stand-in of ``numpy.dtype``: plain numbers only, and the byte order that BUILD gives."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            got = repr(code[:16]) if isinstance(code, str) else type(code).__name__
            raise ValueError(f"expected an array of plain numbers, got the dtype {got}; fetch the file again")
        self.code = code

    def numpy(self) -> np.dtype:
        """The real dtype."""
        match self.state:
            case (_, "<" | ">" as order, *_):
                return np.dtype(self.code).newbyteorder(order)
        return np.dtype(self.code)


class Array(Inert):
    """The stand-in of ``numpy.ndarray``, whose BUILD state is (version, shape, dtype, Fortran order, bytes)."""

    def numpy(self) -> np.ndarray:
        """A view of the bytes as an array."""
        state = self.state
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], Dtype)):
            raise ValueError("expected the state of an array, got something else: the file is damaged; fetch it again")
        shape, dtype, data = sizes("shape", state[1]), state[2].numpy(), _raw(state[4])
        if len(data) != (expected := math.prod(shape) * dtype.itemsize):
            raise ValueError(f"expected {expected} bytes for an array of shape {shape}, got {len(data)}; fetch the file again")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if state[3] else "C")


def sizes(what: str, value: object) -> tuple[int, ...]:
    """A tuple of sizes, strides or an offset, each a number from 0 to a bound that no memory reaches."""
    if not isinstance(value, tuple | list) or len(value) > DIMENSIONS or any(type(count) is not int for count in value):
        raise ValueError(f"expected at most {DIMENSIONS} integers as a tensor's {what}, got something else; fetch the file again")
    if any(not 0 <= count <= ELEMENTS for count in value) or (what != "stride" and math.prod(filter(None, value)) > ELEMENTS):
        raise ValueError(f"expected a tensor's {what} from 0 to {ELEMENTS} elements, got {tuple(value)}; fetch the file again")
    return tuple(value)


def _raw(value: object) -> memoryview:
    """Bytes, also as Python 2 and pickle protocol 2 write them: text of which each character is a byte."""
    if isinstance(value, str):
        return memoryview(value.encode("latin1"))
    if not isinstance(value, memoryview):
        raise ValueError(f"expected bytes, got {type(value).__name__}: the file is damaged; fetch it again")
    return value


def _scalar(dtype: object, data: object) -> bool | int | float:
    if not isinstance(dtype, Dtype):
        raise ValueError("expected a dtype and bytes as a number, got something else: the file is damaged; fetch it again")
    real, raw = dtype.numpy(), _raw(data)
    if len(raw) != real.itemsize:
        raise ValueError(f"expected {real.itemsize} bytes as a number, got {len(raw)}: the file is damaged; fetch it again")
    return np.frombuffer(raw, real)[0].item()


def _array(kind: object, *_: object) -> Array:
    if kind != Global("numpy", "ndarray"):
        raise ValueError("expected numpy.ndarray as the class of an array, got another; fetch the file again")
    return Array()


def _ordered(pairs: object = ()) -> OrderedDict[str, object]:
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 and type(p[0]) is str for p in pairs
    ):
        raise ValueError("expected pairs of a name and a value as a dict, got something else; fetch the file again")
    return OrderedDict(pairs)


def _set(items: object = ()) -> set[str]:
    if not isinstance(items, list | tuple) or not all(type(item) is str for item in items):
        raise ValueError("expected names as a set, got something else: the file is damaged; fetch it again")
    return set(items)


def _encode(text: object, coding: object) -> memoryview:
    if type(text) is not str or coding != "latin1":
        raise ValueError("expected bytes written as latin1 text, got something else; fetch the file again")
    return _raw(text)


PLAIN: AllowList = {
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): None,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
