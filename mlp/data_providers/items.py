"""The coursework's data sets that are indexed one image at a time, as PyTorch's are; written without PyTorch.

``torch.utils.data.DataLoader`` takes them; nothing here needs it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlp.backend import Array
from mlp.checks import DTypeError, ShapeError, check_positive_int, check_shape, check_whole_number
from mlp.data_providers.cifar import load_cifar
from mlp.data_providers.emnist import EMNISTDataProvider
from mlp.data_providers.npz import check_set
from mlp.rng import Rng, default_rng

Transform = Callable[[Any], Any]


class CIFAR10:
    """CIFAR-10 as (image, label) pairs: ``data[i]`` is a PIL image through `transform` and an int through its own.

    `set_name` is 'train' (47,500 images, the report's split), 'val' (2,500) or 'test'. `root` is where
    `mlp.data_providers.load_cifar` looks first and, with `download`, downloads to. `data` (N, 32, 32, 3) uint8 and
    `labels` (N,) hold all; `classes` names the labels. Raises DataMissingError or DataDamagedError.
    """

    dataset = "cifar10"

    def __init__(
        self,
        root: str | Path | None = None,
        set_name: str = "train",
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        self.set_name = check_set(type(self), set_name, ("train", "val", "test"))
        images = load_cifar(self.dataset, root, download=download)
        part = {"train": images.train, "val": images.valid, "test": images.test}[set_name]
        self.root, self.data, self.labels, self.classes = root, part.pixels, part.labels, list(images.class_names)
        self.transform, self.target_transform = transform, target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        index = check_whole_number(f"{type(self).__name__}: index", index)
        image, label = Image.fromarray(self.data[index]), int(self.labels[index])
        return _through(self.transform, image), _through(self.target_transform, label)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(set_name={self.set_name!r}, {len(self)} images)"


class CIFAR100(CIFAR10):
    """CIFAR-100 with its fine labels, as `CIFAR10`."""

    dataset = "cifar100"


class EMNISTPytorchDataProvider:
    """EMNIST balanced as (image, label) pairs; an image, float32, goes through each of `transforms` in turn.

    The other arguments are those of `EMNISTDataProvider`; without `flatten`, the default here, an image is (1, 28, 28).
    """

    def __init__(
        self,
        which_set: str = "train",
        batch_size: int = 100,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        flatten: bool = False,
        transforms: Sequence[Transform] | Transform | None = None,
    ) -> None:
        self.numpy_data_provider = EMNISTDataProvider(
            which_set, batch_size, max_num_batches, shuffle_order, rng, flatten=flatten
        )
        self.transforms = [transforms] if callable(transforms) else list(transforms or ())

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = self.numpy_data_provider.inputs[
            check_whole_number("EMNISTPytorchDataProvider: index", index)
        ].copy()
        for transform in self.transforms:
            image = transform(image)
        return image, int(self.numpy_data_provider.targets[index])

    def __len__(self) -> int:
        return len(self.numpy_data_provider.targets)


class DataAugmentation:
    """The report's augmentation of one image (H, W, C), or PIL image: a random crop out of zeros, and a random flip.

    `padding` zeros are added on every side; a flip has probability 1/2. Two draws for the crop's corner and one for
    the flip, from `rng`. Raises DTypeError for images of other modes than RGB and RGBA, ShapeError for other shapes.
    """

    def __init__(self, padding: int = 4, rng: Rng | None = None) -> None:
        self.padding = check_positive_int("DataAugmentation: padding", padding, minimum=0)
        self.rng = default_rng(rng)

    def __call__(self, image: Any) -> Any:
        """Return the image, cropped and flipped; of the kind that came."""
        if isinstance(image, Image.Image) and image.mode not in ("RGB", "RGBA"):
            raise DTypeError(f"DataAugmentation: image has the mode {image.mode}, expected RGB: image.convert('RGB')")
        pixels: Array = np.asarray(image)
        check_shape("DataAugmentation: image", pixels, ("H", "W", "C"), integers=True)
        if pixels.shape[2] not in (1, 3, 4):
            raise ShapeError(f"DataAugmentation: image has shape {pixels.shape}, expected (H, W, C) with C 1, 3 or 4")
        size = 2 * self.padding + 1
        top, left = (min(int(size * self.rng.uniform()), size - 1) for _ in range(2))
        padded = np.pad(pixels, ((self.padding, self.padding), (self.padding, self.padding), (0, 0)))
        cropped = padded[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        flipped = np.ascontiguousarray(cropped[:, ::-1] if self.rng.uniform() < 0.5 else cropped)
        return Image.fromarray(flipped) if isinstance(image, Image.Image) else flipped


def _through(transform: Transform | None, value: Any) -> Any:
    return value if transform is None else transform(value)
