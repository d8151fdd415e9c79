"""One script per claim of speed. Each prints machine, versions, spread, and a ratio measured in one run."""
