"""The report's experiments: ``python -m mlp.experiments list``."""
