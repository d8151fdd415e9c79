"""Reads the pickled files of CIFAR's Python archive, and nothing that could run code.

A pickle is a program. This reader admits only the opcodes that build dictionaries, lists, strings, whole numbers
and one array of bytes, checks all of them before the first is run, and lets no name stand for anything but three
inert stand-ins for NumPy's: arrays are rebuilt here, not by what the file says.
"""

import io
import pickle
import pickletools
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
            raise pickle.UnpicklingError(f"an array of {code!r}, expected bytes (u1)")

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


class _ArrayType:
    """Stands for numpy.ndarray, which the file only names."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


_NAMES = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
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
        for opcode, _, position in pickletools.genops(data):
            if opcode.name not in _ADMITTED:
                raise pickle.UnpicklingError(f"opcode {opcode.name} at byte {position} is not admitted")
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, expected a dictionary")
        return {_text(key): value.value if isinstance(value, _Array) else value for key, value in content.items()}
    except Exception as error:  # the opcodes of a damaged file can fail in any way
        raise DataDamagedError(f"{what}: not a CIFAR file, or damaged: {error}") from error


def _text(key: object) -> str:
    return key.decode("ascii") if isinstance(key, bytes) else str(key)
