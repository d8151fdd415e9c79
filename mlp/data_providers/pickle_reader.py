"""Reads the pickled files of CIFAR's Python archive and the coursework's packs, and can run nothing.

A pickle is a program for a machine with a stack. This is a machine of our own for it, without Python's: it knows the
instructions that build dictionaries, lists, tuples, text, numbers and arrays, and no other. What a file names (NumPy's
functions that make an array) it only compares with a list; nothing is looked up, called or changed.
"""

import reprlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.data_providers.base import DataDamagedError
from mlp.data_providers.pickle_instructions import PickleError, instructions
from mlp.reading import shown

MAX_DEPTH, MAX_KEY = 8, 200
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset("BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINBYTES BINBYTES SHORT_BINSTRING BINSTRING".split())
_PACK_VALUES = _VALUES | set("SHORT_BINUNICODE BINBYTES8 BINFLOAT".split())
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NAMES = {("numpy", "ndarray"), ("numpy", "dtype"), *((module, "_reconstruct") for module in _MULTIARRAY)}
_NUMBERS = tuple("b1 u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8 O8".split())
_PACK_NAMES = _NAMES | {("_codecs", "encode"), ("__builtin__", "bytes"), ("builtins", "bytes")}
_PACK_NAMES |= {(module, "scalar") for module in _MULTIARRAY}


_ACTIONS = {
    "MARK": "_mark",
    "STRING": "_string",
    "TUPLE": "_tuple",
    "EMPTY_LIST": "_empty_list",
    "EMPTY_DICT": "_empty_dict",
    "APPEND": "_append",
    "APPENDS": "_appends",
    "SETITEM": "_setitem",
    "SETITEMS": "_setitems",
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), "_put"),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), "_get"),
    "GLOBAL": "_global",
    "REDUCE": "_reduce",
    "BUILD": "_build",
}
"""The method of each instruction with an effect."""
_PACK_ACTIONS = _ACTIONS | {"MEMOIZE": "_memoize", "STACK_GLOBAL": "_stack_global"}


class _Name(str):
    """What a file names. A value of its own kind, so that no text can pass for it."""


class _DType:
    """A dtype, by its code."""

    def __init__(self, code: str) -> None:
        self.code = code


class _Array:
    """An array, whose shape and bytes come later."""

    value: Any = None


class _Machine:
    """Runs a pickle; `numbers` admits what packs need beyond CIFAR's arrays of bytes."""

    def __init__(self, data: bytes, numbers: bool) -> None:
        self.data, self.numbers, self.room = data, numbers, len(data)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return what the pickle builds. Raises PickleError, or another error for one that makes no sense."""
        values, actions = (_PACK_VALUES, _PACK_ACTIONS) if self.numbers else (_VALUES, _ACTIONS)
        silent = ("PROTO", "FRAME") if self.numbers else ("PROTO",)
        admitted = {"STOP", *values, *actions, *_CONSTANTS, *_TUPLES, *silent}
        for name, argument in instructions(self.data, admitted):
            if name in values:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                self.stack.append(tuple(self._pop(_TUPLES[name])))
            elif name in actions:
                getattr(self, actions[name])(argument)
            elif name == "PROTO" and argument > 5:
                raise PickleError(f"it is of protocol {argument}")
        return self.stack.pop()

    def _pop(self, count: int) -> list[Any]:
        if count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise PickleError("it takes more than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _pop_mark(self) -> list[Any]:
        taken = self.stack[self.marks[-1] :]
        del self.stack[self.marks.pop() :]
        return taken

    def _mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def _string(self, text: str) -> None:
        self.stack.append(text.encode("latin-1"))

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def _empty_list(self, _: object) -> None:
        self.stack.append([])

    def _empty_dict(self, _: object) -> None:
        self.stack.append({})

    def _append(self, _: object) -> None:
        self._extend(self._pop(1))

    def _appends(self, _: object) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise PickleError("it appends to what is no list")
        self.stack[-1].extend(items)

    def _setitem(self, _: object) -> None:
        self._set(self._pop(2))

    def _setitems(self, _: object) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise PickleError("it sets an entry of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes) or len(key) > MAX_KEY:
                raise PickleError(f"a key of the dictionary is {reprlib.repr(key)}, expected a short text")
            if _text(key) in self.stack[-1]:
                raise PickleError(f"two entries are named {_text(key)!r}")
            self.stack[-1][_text(key)] = value

    def _put(self, index: int) -> None:
        if int(index) > len(self.data):
            raise PickleError(f"memo entry {index}, in a file of {len(self.data)} bytes")
        self.memo[int(index)] = self.stack[-1]

    def _memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[int(index)])

    def _global(self, words: str) -> None:
        self._named(*words.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        self._named(*self._pop(2))

    def _named(self, module: str, name: str) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError("a name that is no text")
        if (module, name) not in (_PACK_NAMES if self.numbers else _NAMES):
            raise PickleError(f"it asks for {module[:60]}.{name[:60]}, which this file has no need of")
        self.stack.append(_Name(f"{module}.{name}"))

    def _reduce(self, _: object) -> None:
        function, arguments = self._pop(2)
        if type(function) is not _Name or type(arguments) is not tuple:
            raise PickleError(f"it calls {reprlib.repr(function)}")
        maker: dict[str, Any] = {
            "_reconstruct": lambda *_: _Array(),
            "dtype": self._dtype,
            "encode": self._bytes,
            "bytes": bytes,
        }
        if function.endswith(".scalar"):
            self.stack.append(self._filled((), *arguments).item())
        elif function == "numpy.ndarray" or (function.endswith("bytes") and arguments):
            raise PickleError(f"it calls {function}")
        else:
            self.stack.append(maker[function.rpartition(".")[2]](*arguments))

    def _build(self, _: object) -> None:
        (state,) = self._pop(1)
        target = self.stack[-1]
        if type(state) is not tuple or type(target) not in (_Array, _DType):
            raise PickleError("it changes a name")
        if type(target) is _DType:
            if self.numbers and state[1] not in ("<", "|", "=", b"<", b"|", b"="):
                raise PickleError(f"an array in the byte order {reprlib.repr(state[1])}")
            return
        _, shape, dtype, fortran, content = state
        if fortran and not self.numbers:
            raise PickleError("the array's shape does not match its bytes: its axes are reversed")
        if type(dtype) is _DType and dtype.code == "O8":
            if shape != () or type(content) is not list or len(content) != 1:
                raise PickleError("an array of objects that is not one dictionary")
            target.value = content[0]
        else:
            target.value = self._filled(shape, dtype, content, "F" if fortran else "C")

    def _dtype(self, code: object, *_: object) -> _DType:
        text = code.decode("ascii", "replace") if type(code) is bytes else code
        admitted, expected = (_NUMBERS, "numbers") if self.numbers else (("u1",), "bytes (u1)")
        if text not in admitted:
            raise PickleError(f"an array of {reprlib.repr(code)}, expected {expected}")
        return _DType(str(text))

    def _bytes(self, text: str, encoding: str) -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise PickleError(f"bytes in the encoding {reprlib.repr(encoding)}")
        self.room -= len(text)
        if self.room < 0:
            raise PickleError("it makes more bytes than it has")
        return text.encode("latin-1")

    def _filled(self, shape: Any, dtype: Any, content: Any, order: Any = "C") -> Array:
        whole = type(shape) is tuple and len(shape) <= 32 and all(type(size) is int and size >= 0 for size in shape)
        size = int(dtype.code[1:]) if type(dtype) is _DType and dtype.code != "O8" else 0
        if not whole or not size or type(content) is not bytes or prod(shape) * size != len(content):
            raise PickleError("the array's shape does not match its bytes")
        return np.frombuffer(content, f"<{dtype.code}").reshape(shape, order=order)


def read_pickled_dict(data: bytes, what: str) -> dict[str, Any]:
    """Return the dictionary in a pickled CIFAR file; `what` names the file in errors.

    Arrays come back as uint8 arrays. Raises DataDamagedError for anything that is not such a file.
    """
    try:
        content = _Machine(data, numbers=False).run()
        if type(content) is not dict:
            raise PickleError(f"it holds a {type(content).__name__.strip('_')}, expected a dictionary")
        return {key: _plain(value) for key, value in content.items()}
    except Exception as error:  # a damaged file can fail in any way
        raise DataDamagedError(f"{what}: not a CIFAR file, or damaged: {shown(error)}") from error


def read_pack(data: bytes, what: str) -> dict[str, Array]:
    """Return the arrays in a pack: a dictionary of arrays, numbers and dictionaries, saved by ``numpy.save``.

    Keys within keys are joined by slashes; numbers become arrays. Raises DataDamagedError for anything that is not
    such a file.
    """
    try:
        start = 10 + int.from_bytes(data[8:10], "little")
        if data[:8] != b"\x93NUMPY\x01\x00" or b"'|O'" not in data[10:start]:
            raise PickleError("it is no npy file of an object")
        content = _Machine(data[start:], numbers=True).run()
        if type(content) is not _Array or type(content.value) is not dict:
            raise PickleError("it holds no dictionary")
        found = list(_flattened(content.value, "", set()))
        if len(dict(found)) < len(found):
            raise PickleError("two entries have one name")
        return dict(found)
    except Exception as error:  # a damaged file can fail in any way
        raise DataDamagedError(f"{what}: not a pack of the coursework, or damaged: {shown(error)}") from error


def _flattened(content: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Array]]:
    if type(content) is dict:
        if id(content) in seen or path.count("/") >= MAX_DEPTH:
            raise PickleError("a dictionary in itself, in two places, or too deep in others")
        seen.add(id(content))
        for key, value in content.items():
            yield from _flattened(value, f"{path}/{key}" if path else key, seen)
    elif type(content) in (int, float):
        yield path, np.array(content, np.float64)
    elif type(content) is _Array and isinstance(content.value, np.ndarray):
        yield path, content.value
    else:
        raise PickleError(f"{path} is neither an array nor a number")


def _plain(value: object) -> Any:
    """Return an array in place of what stands for it; refuse it elsewhere."""
    if type(value) is _Array and isinstance(value.value, np.ndarray):
        return value.value
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if type(item) not in (bytes, str, int, bool, type(None), list, tuple, dict):
            raise PickleError("an array that is no entry of the dictionary")
    return value


def _text(key: str | bytes) -> str:
    return key.decode("ascii") if isinstance(key, bytes) else key
