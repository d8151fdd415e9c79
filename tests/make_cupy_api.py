"""Write `cupy_api.json` anew: what CuPy has of NumPy's functions, their keywords, and its array's methods.

    pip install cupy-cuda13x && python -m tests.make_cupy_api

No GPU is needed: CuPy is only looked at.
"""

import inspect
import json
from pathlib import Path

import numpy as np

UFUNC_KEYWORDS = ["out", "dtype", "casting"]


def keywords(function):
    """Return the names of a function's parameters; None for a class, or where it takes any or cannot be looked into."""
    if isinstance(function, type):
        return None
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return None if anything else list(parameters)


def snapshot(cupy):
    """Return the functions that CuPy and NumPy both have, with their keywords, and the methods of CuPy's array."""
    names = [name for name in dir(cupy) if not name.startswith("_") and hasattr(np, name)]
    functions = {
        name: UFUNC_KEYWORDS if isinstance(getattr(cupy, name), cupy.ufunc) else keywords(getattr(cupy, name))
        for name in names
    }
    methods = [name for name in dir(cupy.ndarray) if not name.startswith("_")]
    return {"cupy": cupy.__version__, "functions": functions, "methods": methods}


if __name__ == "__main__":
    import cupy

    path = Path(__file__).with_name("cupy_api.json")
    path.write_text(json.dumps(snapshot(cupy), separators=(",", ":")))
    print(f"{path}: CuPy {cupy.__version__}")
