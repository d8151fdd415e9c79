"""The fast way to run a model: a plan of steps over preallocated memory, on threads or on a GPU."""

from mlp.engine.engine import ENGINES, Engine
from mlp.engine.gpu import GpuPlan, GpuSession
from mlp.engine.gpu.plan import PRECISIONS
from mlp.engine.memory import WorkspaceError
from mlp.engine.passes import Step
from mlp.engine.profile import Cost, Profile, profile

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Cost",
    "Engine",
    "GpuPlan",
    "GpuSession",
    "Profile",
    "Step",
    "WorkspaceError",
    "profile",
]
