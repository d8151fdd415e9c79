"""A stand-in for CuPy that computes with NumPy and refuses what CuPy refuses.

It shows that code asks nothing of CuPy that CuPy does not have. It is no GPU, and nothing that passes on it has run
on one. Refused: functions, keywords and methods that are not in CuPy 14 (`cupy_api.json`, written from the package by
`inspect`), NumPy's functions on its arrays, and mixing its arrays with NumPy's.
Reductions give 0-d arrays, as in CuPy. `Sync.count` counts what would wait for the GPU.

CUDA sources are compiled for the CPU (tests/cuda). A stream captures the launches of kernels, and a graph of them
repeats them; anything else is refused during a capture.
"""

import functools
import json
import time
import types
from pathlib import Path

import numpy as np

from .cuda.on_cpu import Kernel, RawModule

API = json.loads(Path(__file__).with_name("cupy_api.json").read_text())


class Sync:
    """How often the host would have waited for the device."""

    count = 0


def _not_in_a_capture(what):
    if Kernel.capture is not None:
        raise RuntimeError(f"{what} while a stream is capturing")


def _wait(what):
    _not_in_a_capture(what)
    Sync.count += 1


def _host(value):
    """Return the NumPy form of an argument of a device function."""
    _not_in_a_capture("a function of CuPy")
    if isinstance(value, ndarray):
        return np.ndarray.view(value, np.ndarray)
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)):
        return type(value)(_host(item) for item in value)
    return value


def _device(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value).view(ndarray)
    return type(value)(map(_device, value)) if isinstance(value, (tuple, list)) else value


class ndarray(np.ndarray):
    """CuPy's array type, as far as this goes."""

    __module__ = "cupy"

    def __getattribute__(self, name):
        if not name.startswith("_") and name not in API["methods"]:
            raise AttributeError(f"'ndarray' object has no attribute {name!r} in CuPy")
        value = super().__getattribute__(name)
        if name == "data":
            return types.SimpleNamespace(ptr=np.ndarray.view(self, np.ndarray).ctypes.data)
        if callable(value) and not name.startswith("_") and name not in ("get", "item", "tolist"):

            @functools.wraps(value)
            def method(*args, **kwargs):
                plain = getattr(np.ndarray.view(self, np.ndarray), name)
                return _device(plain(*_host(args), **{k: _host(v) for k, v in kwargs.items()}))

            return method
        return value

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        outs = {} if out is None else {"out": tuple(_host(o) for o in out)}
        result = getattr(ufunc, method)(*map(_host, inputs), **outs, **{k: _host(v) for k, v in kwargs.items()})
        return out[0] if out is not None and len(out) == 1 else _device(result)

    def __array_function__(self, function, kinds, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} on a GPU array: use the functions of array_module(x)")

    def __getitem__(self, index):
        return _device(np.ndarray.view(self, np.ndarray)[_host(index)])

    def __setitem__(self, index, value):
        np.ndarray.view(self, np.ndarray)[_host(index)] = _host(value)

    def get(self):
        """Return the NumPy array."""
        _wait("get")
        return np.ndarray.view(self, np.ndarray).copy("K")


def _synchronising(name):
    def method(self, *args):
        _wait(name)
        return getattr(np.ndarray.view(self, np.ndarray), name)(*args)

    return method


for _name in ("__float__", "__int__", "__bool__", "item", "tolist"):
    setattr(ndarray, _name, _synchronising(_name))


class Stream:
    """CuPy's stream, which does everything at once, but for a capture."""

    def __init__(self, non_blocking=False):
        self.non_blocking = non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def begin_capture(self):
        """Record what is launched from here on."""
        if not self.non_blocking:
            raise RuntimeError("the null stream cannot capture")
        _not_in_a_capture("begin_capture")
        Kernel.capture = []

    def end_capture(self):
        """Return the graph of what was launched."""
        launches, Kernel.capture = Kernel.capture, None
        return Graph(launches)


class Graph:
    """CuPy's graph: launches with their arguments as they were."""

    count = 0
    """How often any graph was launched."""

    def __init__(self, launches):
        self.nodes = launches

    def launch(self, stream=None):
        """Do all launches again."""
        Graph.count += 1
        for kernel, grid, block, shared_mem, values, _ in self.nodes:
            kernel._run(grid, block, shared_mem, values)


class Device:
    """CuPy's device."""

    compute_capability = "90"


class Event:
    """CuPy's event: everything is done when it is recorded."""

    def record(self, stream=None):
        """Mark a place in the stream."""
        self.time = time.perf_counter()

    def synchronize(self):
        """Wait until the device has come to the place."""
        _wait("synchronize")


class StrictCupy(types.ModuleType):
    """What `import cupy` gives while the stand-in is installed."""

    def __init__(self):
        super().__init__("cupy")
        self.ndarray = ndarray
        as_strided = np.lib.stride_tricks.as_strided
        tricks = types.SimpleNamespace(as_strided=lambda x, *args: _device(as_strided(_host(x), *args)))
        self.lib = types.SimpleNamespace(stride_tricks=tricks)
        properties = types.SimpleNamespace(getDeviceProperties=lambda i: {"name": b"stand-in"})
        self.cuda = types.SimpleNamespace(runtime=properties, Stream=Stream, Event=Event, Device=Device)
        self.cuda.get_elapsed_time = lambda start, end: 1e3 * (end.time - start.time)
        self.RawModule = RawModule

    def __getattr__(self, name):
        if name not in API["functions"]:
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        function = getattr(np, name)
        if isinstance(function, type) or not callable(function):
            return function
        keywords = API["functions"][name]

        @functools.wraps(function)
        def call(*args, **kwargs):
            unknown = [key for key in kwargs if keywords is not None and key not in keywords]
            if unknown:
                raise TypeError(f"cupy.{name}() has no keyword {unknown[0]!r}")
            to_device = name in ("array", "asarray", "ascontiguousarray")
            strip = (lambda a: np.ndarray.view(a, np.ndarray) if isinstance(a, ndarray) else a) if to_device else _host
            out = kwargs.get("out")
            result = _device(function(*map(strip, args), **{key: strip(value) for key, value in kwargs.items()}))
            return result if out is None else out

        return call
