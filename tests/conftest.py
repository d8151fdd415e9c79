"""Threads: where several workers run the tests, each takes one thread, and they do not stand in each other's way."""

import os

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("MLP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
