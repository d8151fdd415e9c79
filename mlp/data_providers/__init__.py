"""Data sets, and providers that iterate over them in batches. NumPy out; no device, no model."""

from mlp.data_providers.augmentation import crop_and_flip
from mlp.data_providers.base import (
    DataDamagedError,
    DataError,
    DataMissingError,
    DataProvider,
    OneOfKDataProvider,
)
from mlp.data_providers.cifar import find_cifar, load_cifar
from mlp.data_providers.digits import load_digits
from mlp.data_providers.download import fetch, search_folders, user_cache
from mlp.data_providers.images import ImageData, ImageDataProvider, ImageSet, split
from mlp.data_providers.mnist import MNISTDataProvider, load_mnist
from mlp.data_providers.prefetch import Prefetcher
from mlp.data_providers.shapes import load_shapes

__all__ = [
    "DataDamagedError",
    "DataError",
    "DataMissingError",
    "DataProvider",
    "ImageData",
    "ImageDataProvider",
    "ImageSet",
    "MNISTDataProvider",
    "OneOfKDataProvider",
    "Prefetcher",
    "crop_and_flip",
    "fetch",
    "find_cifar",
    "load_cifar",
    "load_digits",
    "load_mnist",
    "load_shapes",
    "search_folders",
    "split",
    "user_cache",
]
