"""Reads the pickled files of CIFAR's Python archive and the coursework's packs, and nothing that could run code.

A pickle is a program. This reader admits only the opcodes that build dictionaries, lists, strings, whole numbers
and arrays of bytes (in packs, of numbers), checks all of them before the first is run, and lets no name stand for
anything but inert stand-ins for NumPy's: arrays are rebuilt here, not by what the file says.
"""

import io
import pickle
import pickletools
import reprlib
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, ClassVar

import numpy as np

from mlp.backend import Array
from mlp.data_providers.base import DataDamagedError

_ADMITTED = frozenset(
    """PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 STRING BINSTRING SHORT_BINSTRING
    BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT
    SETITEM SETITEMS PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET GLOBAL REDUCE BUILD""".split()
)
_ADMITTED_IN_PACKS = _ADMITTED | set("FRAME MEMOIZE STACK_GLOBAL SHORT_BINUNICODE BINBYTES8 BINFLOAT".split())


class _DType:
    """Stands for numpy.dtype: holds a code, which must be one of `codes`."""

    codes: ClassVar[tuple[str, ...]] = ("u1",)
    expected: ClassVar[str] = "bytes (u1)"

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        if self.code not in self.codes:
            raise pickle.UnpicklingError(f"an array of {reprlib.repr(code)}, expected {self.expected}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Refuse big-endian numbers; ignore the flags."""
        if state[1] not in ("<", "|", "=", b"<", b"|", b"="):
            raise pickle.UnpicklingError(f"an array in the byte order {reprlib.repr(state[1])}")


class _NumberDType(_DType):
    """The same in a pack: numbers, or the one object that a pack is."""

    codes = ("u1", "i8", "f4", "f8", "O8")
    expected = "numbers"


class _Array:
    """Stands for the array under construction: the state gives its shape and its bytes."""

    value: Any = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(dtype, _DType) and dtype.code == "O8" and shape == () and isinstance(data, list) and data:
            self.value = data[0]
            return
        size = int(str(dtype.code)[1:]) if isinstance(dtype, _DType) and dtype.code != "O8" else 0
        if not size or fortran or not isinstance(data, bytes) or prod(shape) * size != len(data):
            raise pickle.UnpicklingError("the array's shape does not match its bytes")
        self.value = np.frombuffer(data, f"<{dtype.code}").reshape(shape)


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


def _bytes(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, by which pickles of protocol 2 make bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {reprlib.repr(encoding)}")
    return text.encode("latin1")


_NAMES_IN_PACKS = {**_NAMES, ("numpy", "dtype"): _NumberDType, ("_codecs", "encode"): _bytes}


class _Reader(pickle.Unpickler):
    names: ClassVar[dict[tuple[str, str], Any]] = _NAMES

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which this file has no need of")
        return self.names[module, name]


class _PackReader(_Reader):
    names = _NAMES_IN_PACKS


def read_pickled_dict(data: bytes, what: str) -> dict[str, Any]:
    """Return the dictionary in a pickled CIFAR file; `what` names the file in errors.

    Arrays come back as uint8 arrays. Raises DataDamagedError for anything that is not such a file.
    """
    try:
        _check_opcodes(data, _ADMITTED)
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, expected a dictionary")
        return {_text(key): _plain(value) for key, value in content.items()}
    except Exception as error:  # the opcodes of a damaged file can fail in any way
        raise DataDamagedError(f"{what}: not a CIFAR file, or damaged: {error}") from error


def read_pack(data: bytes, what: str) -> dict[str, Array]:
    """Return the arrays in a pack: a dictionary of arrays and dictionaries, pickled by ``numpy.save`` into an npy file.

    Keys within keys are joined by slashes. Raises DataDamagedError for anything that is not such a file.
    """
    try:
        start = 10 + int.from_bytes(data[8:10], "little")
        if data[:8] != b"\x93NUMPY\x01\x00" or b"'|O'" not in data[10:start]:
            raise pickle.UnpicklingError("it is no npy file of an object")
        _check_opcodes(data[start:], _ADMITTED_IN_PACKS)
        content = _PackReader(io.BytesIO(data[start:]), encoding="bytes").load()
        return dict(_flattened(content.value, ""))
    except Exception as error:  # the opcodes of a damaged file can fail in any way
        raise DataDamagedError(f"{what}: not a pack of the coursework, or damaged: {error}") from error


def _flattened(content: object, path: str) -> Iterator[tuple[str, Array]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flattened(value, f"{path}/{_text(key)}" if path else _text(key))
    elif isinstance(content, _Array) and isinstance(content.value, np.ndarray):
        yield path, content.value


def _check_opcodes(data: bytes, admitted: Iterable[str]) -> None:
    """Raise UnpicklingError unless a pickle has these opcodes only, and asks for no more memory than it has bytes."""
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name not in admitted:
            raise pickle.UnpicklingError(f"opcode {opcode.name} at byte {position} is not admitted")
        if opcode.name.endswith("PUT") and int(argument or 0) > len(data):  # it would be answered with memory
            raise pickle.UnpicklingError(f"memo entry {argument} at byte {position}")


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
