"""A deep-learning library written by hand: every layer, every gradient, on NumPy and CuPy.

Importing `mlp` loads nothing heavy: import the modules that you use, as in ``from mlp.layers import AffineLayer``.
"""

__version__ = "0.1.0"

__authors__ = ["Pawel Swietojanski", "Steve Renals", "Matt Graham"]
"""The authors of the coursework's package of this name, whose interface this library keeps."""

DEFAULT_SEED = 123456
"""Seed of every random stream for which no ``rng`` was given."""
