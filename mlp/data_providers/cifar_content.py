"""Whether files hold the official data set: a hash of their content that does not know its order."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mlp.data_providers.cifar import read_cifar
from mlp.data_providers.cifar_forms import NUM_TEST, NUM_TRAIN
from mlp.data_providers.images import ImageSet

GOLDEN = {
    "cifar100": (
        (NUM_TRAIN, "7077d87fc363f92dbf1245f13ba80561d7b33a96c79ad57168d49dc172aaa92b"),
        (NUM_TEST, "96adb3db8da7632dbb350559a17b9f585fab5b17675de5fc8f6761384196b294"),
    )
}
"""Of the training and the test part, how many images it has, and their `content_hash`.

Found by decoders that share no code, and agree: the library's, of the Python form and of the binary form; Python's
`pickle`; and Pillow, of image files of the data set, labelled by the names of their classes. It was not found from the
official archives themselves, but from their complete content in another order. ``python -m benchmarks.cifar_decoders``
does it again. None is known of CIFAR-10.
"""


class Content(NamedTuple):
    """Whether a data set is the official one of its name (None: not known), and what is to be said of that."""

    official: bool | None
    words: str


def content_hash(records: Iterable[bytes]) -> tuple[int, str]:
    """Return how many records there are, and the SHA-256 of their sorted SHA-256s, whatever their order."""
    digests = sorted(hashlib.sha256(record).digest() for record in records)
    return len(digests), hashlib.sha256(b"".join(digests)).hexdigest()


def records_of(fine: ImageSet, coarse: ImageSet) -> Iterable[bytes]:
    """Yield CIFAR-100's records, as in the binary form: coarse label, fine label, the planes red, green and blue."""
    for image, label, above in zip(fine.pixels, fine.labels.tolist(), coarse.labels.tolist(), strict=True):
        yield bytes((above, label)) + image.transpose(2, 0, 1).tobytes()


def content_of(dataset: str, data_dir: str | Path | None = None) -> Content:
    """Return what the files hold that `load_cifar` reads; nothing is downloaded, and the order does not matter.

    Of an archive its checksums tell. A folder is read with its fine and with its coarse labels, and every record is
    hashed: three times as long as to read it once. Raises DataMissingError or DataDamagedError.
    """
    fine = read_cifar(dataset, data_dir, download=False)
    if fine[3].is_file():
        return Content(True, f"that of the official {dataset}, by size, MD5 and SHA-256 of its archive")
    if dataset not in GOLDEN:
        return Content(
            None, f"complete, and makes sense; only the archives of {dataset} have checksums to compare with"
        )
    coarse = read_cifar(dataset, data_dir, download=False, coarse=True)
    parts = [content_hash(records_of(*sets)) for sets in zip(fine[:2], coarse[:2], strict=True)]
    wrong = [
        f"{count:,} {what} images, expected {official[0]:,}"
        if count != official[0]
        else f"at least one of the {count:,} {what} images or labels is not the official one"
        for what, (count, digest), official in zip(("training", "test"), parts, GOLDEN[dataset], strict=True)
        if (count, digest) != official
    ]
    if wrong:
        return Content(False, f"NOT that of the official {dataset}: {'; '.join(wrong)}")
    return Content(True, f"that of the official {dataset}, by the SHA-256 of its images and labels in any order")
