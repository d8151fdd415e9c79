"""A small data set and small experiments, and what of a run must be the same to the bit."""

import csv
from dataclasses import replace
from functools import cache

import numpy as np

from mlp.data_providers import ImageData, ImageSet
from mlp.data_providers.shapes import CLASS_NAMES, draw_shapes
from mlp.experiments.configs import EXPERIMENTS

VGG = replace(EXPERIMENTS["vgg08"], num_filters=4, dataset="shapes", batch_size=5, epochs=3)
VGG_BN = replace(EXPERIMENTS["vgg38_bn"], num_blocks=1, num_filters=4, dataset="shapes", batch_size=5, epochs=2)


@cache
def shapes(train=28, valid=60, test=60):
    """Return shapes of 8x8 pixels; 28 of them are five batches of 5 and one of 3."""
    parts = [
        ImageSet(np.ascontiguousarray(images.pixels[:, ::4, ::4]), images.labels)
        for images in (draw_shapes(train, "train"), draw_shapes(valid, "valid"), draw_shapes(test, "test"))
    ]
    return ImageData("shapes", *parts, CLASS_NAMES, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), "tests")


def results(path):
    """Return the content of every file of a run that its result is made of; metrics.csv without the seconds."""
    names = ["config.json", "gradient_flow.csv", "test.json", "checkpoints/last.safetensors"]
    found = {
        name: (path / name).read_bytes() for name in [*names, "checkpoints/best.safetensors"] if (path / name).exists()
    }
    with (path / "metrics.csv").open() as stream:
        found["metrics.csv"] = [
            [value for key, value in row.items() if key != "seconds"] for row in csv.DictReader(stream)
        ]
    return found


def assert_same_results(path, other):
    """Compare two runs file by file: bytes in a message help nobody."""
    mine, theirs = results(path), results(other)
    assert len(mine) == 6
    assert sorted(mine) == sorted(theirs)
    assert [name for name in mine if mine[name] != theirs[name]] == []
