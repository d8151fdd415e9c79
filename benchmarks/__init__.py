"""Claims of speed and memory, each a ratio that is measured in one run: `python -m benchmarks.cpu`."""
