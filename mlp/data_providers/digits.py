"""The 8x8 handwritten digits that come with scikit-learn, as 32x32 colour images."""

import numpy as np

from mlp.data_providers.base import DataMissingError
from mlp.data_providers.images import ImageData, ImageSet

NUM_VALID = NUM_TEST = 250


def load_digits() -> ImageData:
    """Return the 1,797 digits, each pixel a block of 4x4, grey: 1,297 to train, 250 to validate, 250 to test.

    E. Alpaydin and C. Kaynak, Optical recognition of handwritten digits, UCI Machine Learning Repository, 1998: its
    test set. Raises DataMissingError where scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise DataMissingError("the data set 'digits' comes with scikit-learn: pip install scikit-learn") from None
    bunch = datasets.load_digits()
    grey = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    pixels = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    order = np.random.RandomState(0).permutation(len(pixels))
    images = ImageSet(pixels, bunch.target.astype(np.int64)).take(order)
    train, valid, test = (
        images.take(part)
        for part in (
            slice(NUM_VALID + NUM_TEST, None),
            slice(NUM_VALID),
            slice(NUM_VALID, NUM_VALID + NUM_TEST),
        )
    )
    names = tuple(str(digit) for digit in range(10))
    return ImageData("digits", train, valid, test, names, (0.3056,) * 3, (0.3763,) * 3, "scikit-learn")
