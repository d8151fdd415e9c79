"""Models: layers in a row, the report's networks, and a summary of either."""

from mlp.models.base import Model, MultipleLayerModel, SingleLayerModel
from mlp.models.summary import Summary, summary
from mlp.models.vgg import vgg, vgg08, vgg38, vgg38_bn, vgg38_bn_rc, vgg38_rc

__all__ = [
    "Model",
    "MultipleLayerModel",
    "SingleLayerModel",
    "Summary",
    "summary",
    "vgg",
    "vgg08",
    "vgg38",
    "vgg38_bn",
    "vgg38_bn_rc",
    "vgg38_rc",
]
