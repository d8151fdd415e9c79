"""Images that the library draws itself: 100 classes, learnable, the same for everyone, no download.

A class is a form (5), a colour (5) and a texture (4). Place, size, rotation, shade, background and noise are random.
"""

from functools import cache

import numpy as np

from mlp.backend import Array
from mlp.data_providers.images import ImageData, ImageSet
from mlp.rng import stream

FORMS = ("disc", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (220, 50, 40),
    "green": (50, 180, 70),
    "blue": (50, 90, 220),
    "yellow": (225, 200, 50),
    "violet": (170, 60, 200),
}
TEXTURES = ("plain", "striped", "checked", "dotted")
CLASS_NAMES = tuple(f"{t} {c} {f}" for f in FORMS for c in COLOURS for t in TEXTURES)

SIZE = 32
COUNTS = {"train": 10_000, "valid": 1_000, "test": 1_000}


@cache
def load_shapes() -> ImageData:
    """Return the data set: 10,000 training, 1,000 validation and 1,000 test images, classes in equal parts."""
    train, valid, test = (draw_shapes(count, name) for name, count in COUNTS.items())
    mean, std = zip(*(_moments(train.pixels[..., channel]) for channel in range(3)), strict=True)
    return ImageData("shapes", train, valid, test, CLASS_NAMES, mean, std, "drawn by mlp.data_providers.shapes")


def _moments(pixels: Array) -> tuple[float, float]:
    """Return mean and standard deviation of bytes as shares of 255, to four digits: from how many there are of each."""
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.array_split(pixels, 20))
    values = np.arange(256) / 255.0
    mean = np.average(values, weights=counts)
    return round(float(mean), 4), round(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))), 4)


def draw_shapes(count: int, name: str = "train") -> ImageSet:
    """Return `count` images (count, 32, 32, 3), their classes in turn and then shuffled; `name` is the seed."""
    rng = stream(0, f"shapes {name}")
    labels = rng.permutation(np.arange(count) % len(CLASS_NAMES))
    chunks = [_draw(labels[i : i + 1000], rng) for i in range(0, count, 1000)]
    return ImageSet(np.concatenate(chunks), labels)


def _draw(labels: Array, rng: np.random.Generator) -> Array:
    """Return one image for each label."""
    n = len(labels)
    form, colour, texture = np.unravel_index(labels, (len(FORMS), len(COLOURS), len(TEXTURES)))
    u, v = _local_coordinates(n, rng)
    cover = _select(form, _forms(u, v)) * (1.0 - 0.75 * _select(texture, _textures(u, v)))
    shades = np.array(list(COLOURS.values()))[colour] * rng.uniform(0.75, 1.1, (n, 1))
    background = rng.uniform(30, 150, (n, 1)) + rng.uniform(-20, 20, (n, 3))
    images = background[:, None, None] * (1.0 - cover[..., None]) + shades[:, None, None] * cover[..., None]
    images += rng.normal(0.0, 12.0, images.shape)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _local_coordinates(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return each pixel's place (u, v) in the frame of the form, which fills about [-1, 1]."""
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2.0 - 1.0
    size, angle = rng.uniform(0.5, 0.8, (n, 1, 1)), rng.uniform(-0.6, 0.6, (n, 1, 1))
    x, y = (axis - rng.uniform(-0.25, 0.25, (n, 1)) for _ in range(2))
    x, y = x[:, None, :] / size, y[:, :, None] / size
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _forms(u: Array, v: Array) -> list[Array]:
    radius = np.hypot(u, v)
    widest = np.maximum(abs(u), abs(v))
    return [
        radius < 0.9,
        widest < 0.8,
        (v < 0.75) & (1.8 * abs(u) < v + 0.95),
        (widest < 0.95) & (np.minimum(abs(u), abs(v)) < 0.3),
        (radius < 0.95) & (radius > 0.5),
    ]


def _textures(u: Array, v: Array) -> list[Array]:
    """Return where each texture is dark."""
    a, b = np.floor(2.5 * u).astype(int), np.floor(2.5 * v).astype(int)
    dots = np.hypot(2.0 * u - np.rint(2.0 * u), 2.0 * v - np.rint(2.0 * v)) < 0.28
    return [np.zeros(u.shape, bool), b % 2 == 0, (a + b) % 2 == 0, dots]


def _select(which: Array, masks: list[Array]) -> Array:
    """Return, for image i, masks[which[i]][i] as numbers."""
    return np.stack(masks)[which, np.arange(len(which))].astype(float)
