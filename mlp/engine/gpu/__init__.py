"""Plans on a GPU: the same layers as fused kernels on preallocated buffers, repeated as a CUDA graph."""

from mlp.engine.gpu.plan import GpuPlan
from mlp.engine.gpu.session import GpuSession

__all__ = ["GpuPlan", "GpuSession"]
