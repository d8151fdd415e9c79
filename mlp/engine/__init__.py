"""The fast way to run a model: a plan of steps over preallocated memory, in shards, on threads."""

from mlp.engine.engine import ENGINES, Engine, Step
from mlp.engine.profile import Cost, Profile, profile

__all__ = ["ENGINES", "Cost", "Engine", "Profile", "Step", "profile"]
