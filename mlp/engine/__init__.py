"""The fast way to run a model: a plan of steps over preallocated memory, in shards, on threads."""

from mlp.engine.engine import ENGINES, Engine, Step

__all__ = ["ENGINES", "Engine", "Step"]
