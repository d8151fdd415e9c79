"""Reads the pickled files of CIFAR's Python archive, and nothing that could run code.

A pickle is a program. This reader admits only the opcodes that build dictionaries, lists, strings, whole numbers
and one array of bytes, checks all of them before the first is run, and lets no name stand for anything but three
inert stand-ins for NumPy's: arrays are rebuilt here, not by what the file says.
"""

import io
import pickle
import pickletools
import reprlib
from math import prod
from typing import Any

import numpy as np

from mlp.data_providers.base import DataDamagedError

_ADMITTED = frozenset(
    """PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 STRING BINSTRING SHORT_BINSTRING
    BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT
    SETITEM SETITEMS PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET GLOBAL REDUCE BUILD""".split()
)


class _DType:
    """Stands for numpy.dtype: holds a code, which must be that of bytes."""

    def __init__(self, code: object = None, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {reprlib.repr(code)}, expected bytes (u1)")

    def __setstate__(self, state: object) -> None:
        """Take and ignore byte order and flags: bytes have none."""


class _Array:
    """Stands for the array under construction: the state gives its shape and its bytes."""

    value = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or fortran or not isinstance(data, bytes) or prod(shape) != len(data):
            raise pickle.UnpicklingError("the array's shape does not match its bytes")
        self.value = np.frombuffer(data, np.uint8).reshape(shape)


class _Inert:
    """Stands for numpy.ndarray, which the file only names; has no attributes that a file could change."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a name")


class _Reconstruct(_Inert):
    """Stands for NumPy's function that makes an array to be filled."""

    __slots__ = ()

    def __call__(self, *_: object) -> _Array:
        return _Array()


_NAMES = {
    ("numpy", "ndarray"): _Inert(),
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which this file has no need of")
        return _NAMES[module, name]


def read_pickled_dict(data: bytes, what: str) -> dict[str, Any]:
    """Return the dictionary in a pickled CIFAR file; `what` names the file in errors.

    Arrays come back as uint8 arrays. Raises DataDamagedError for anything that is not such a file.
    """
    try:
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name not in _ADMITTED:
                raise pickle.UnpicklingError(f"opcode {opcode.name} at byte {position} is not admitted")
            if opcode.name.endswith("PUT") and int(argument or 0) > len(data):  # it would be answered with memory
                raise pickle.UnpicklingError(f"memo entry {argument} at byte {position}")
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, expected a dictionary")
        return {_text(key): _plain(value) for key, value in content.items()}
    except Exception as error:  # the opcodes of a damaged file can fail in any way
        raise DataDamagedError(f"{what}: not a CIFAR file, or damaged: {error}") from error


def _plain(value: object) -> Any:
    """Return an array in place of its stand-in; refuse stand-ins elsewhere."""
    if isinstance(value, _Array):
        return value.value
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if not isinstance(item, (bytes, str, int, type(None), list, tuple, dict)):
            raise pickle.UnpicklingError("an array that is no entry of the dictionary")
    return value


def _text(key: object) -> str:
    return key.decode("ascii") if isinstance(key, bytes) else str(key)
