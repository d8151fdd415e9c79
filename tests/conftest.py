"""Threads: where several workers run the tests, each takes one. And a count of ONNX's cases."""

import os

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("MLP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter):
    """Count the reports, xdist's workers' too, of the tests that record how many of them there are."""
    what, stats = "ONNX node tests", terminalreporter.stats
    seen = [
        (outcome, dict(report.user_properties)[what])
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
        if what in dict(report.user_properties)
    ]
    if seen:
        passed, total = sum(outcome == "passed" for outcome, _ in seen), seen[0][1]
        terminalreporter.write_line(f"{what}: {passed} of {total} passed")
