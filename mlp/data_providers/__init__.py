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
from mlp.data_providers.cifar_providers import CIFAR10DataProvider, CIFAR100DataProvider
from mlp.data_providers.digits import load_digits
from mlp.data_providers.download import fetch, search_folders, user_cache
from mlp.data_providers.emnist import EMNISTDataProvider, load_emnist
from mlp.data_providers.genres import MSD10GenreDataProvider, MSD25GenreDataProvider
from mlp.data_providers.images import ImageData, ImageDataProvider, ImageSet, split
from mlp.data_providers.items import CIFAR10, CIFAR100, DataAugmentation, EMNISTPytorchDataProvider
from mlp.data_providers.mnist import (
    AugmentedMNISTDataProvider,
    MNISTAutoencoderDataProvider,
    MNISTDataProvider,
    load_mnist,
)
from mlp.data_providers.prefetch import Prefetcher
from mlp.data_providers.regression import CCPPDataProvider, MetOfficeDataProvider, load_ccpp, load_met_office
from mlp.data_providers.shapes import load_shapes

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "AugmentedMNISTDataProvider",
    "CCPPDataProvider",
    "CIFAR10DataProvider",
    "CIFAR100DataProvider",
    "DataAugmentation",
    "DataDamagedError",
    "DataError",
    "DataMissingError",
    "DataProvider",
    "EMNISTDataProvider",
    "EMNISTPytorchDataProvider",
    "ImageData",
    "ImageDataProvider",
    "ImageSet",
    "MNISTAutoencoderDataProvider",
    "MNISTDataProvider",
    "MSD10GenreDataProvider",
    "MSD25GenreDataProvider",
    "MetOfficeDataProvider",
    "OneOfKDataProvider",
    "Prefetcher",
    "crop_and_flip",
    "fetch",
    "find_cifar",
    "load_ccpp",
    "load_cifar",
    "load_digits",
    "load_emnist",
    "load_met_office",
    "load_mnist",
    "load_shapes",
    "search_folders",
    "split",
    "user_cache",
]
