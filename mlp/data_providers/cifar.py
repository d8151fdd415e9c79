"""CIFAR-10 and CIFAR-100, from the official archives or their unpacked folders.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009. Of the two forms of each archive the
binary one is preferred, being plain records; the Python one is read by `pickle_reader`. Archives are read as
streams and never extracted.
"""

import logging
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlp.backend import Array
from mlp.data_providers.archives import read_tar
from mlp.data_providers.base import DataDamagedError, DataMissingError
from mlp.data_providers.download import RemoteFile, check_file, fetch, search_folders, user_cache
from mlp.data_providers.images import ImageData, ImageSet, split
from mlp.data_providers.pickle_reader import read_pickled_dict
from mlp.reading import read_file, shown

logger = logging.getLogger(__name__)

SERVER = "https://www.cs.toronto.edu/~kriz/"
MAX_MEMBER_BYTES, MAX_ARCHIVE_BYTES = 200_000_000, 400_000_000
"""What is read of one file, and unpacked of an archive: the largest official ones have 156 and 187 million."""


class _Form(NamedTuple):
    """One form of a data set: its archive, and the folder and the files in it."""

    archive: RemoteFile
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label: str
    """Python archives: the key of the labels, and of their names with `_names` for the last letter."""
    header: int = 1
    """Binary archives: bytes of a record before its image, the last of them its label."""
    label_at: int = -1
    """Binary archives: which byte of the header is the label."""

    @property
    def is_binary(self) -> bool:
        return self.names.endswith(".txt")

    def coarse(self) -> "_Form":
        """Return the form with CIFAR-100's 20 superclasses for labels."""
        names = self.names.replace("fine", "coarse")
        return self._replace(names=names, label="coarse_labels", label_at=0)


def _archive(name: str, size: int, md5: str, sha256: str) -> RemoteFile:
    """Return an archive: the MD5 is the authors', the SHA-256 from TensorFlow Datasets (binary) or Keras (Python)."""
    return RemoteFile(name, SERVER + name, size, md5, sha256)


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
FORMS = {
    "cifar100": (
        _Form(
            _archive(
                "cifar-100-binary.tar.gz",
                168_513_733,
                "03b5dce01913d631647c71ecec9e9cb8",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            "cifar-100-binary",
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            "fine_labels",
            header=2,
        ),
        _Form(
            _archive(
                "cifar-100-python.tar.gz",
                169_001_437,
                "eb9058c3a382ffc7106e4002c42a8d85",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
            "cifar-100-python",
            ("train",),
            ("test",),
            "meta",
            "fine_labels",
        ),
    ),
    "cifar10": (
        _Form(
            _archive(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c32a1d4ab5d03f1284b67883e8d87530",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            "cifar-10-batches-bin",
            tuple(f"{name}.bin" for name in _BATCHES),
            ("test_batch.bin",),
            "batches.meta.txt",
            "labels",
        ),
        _Form(
            _archive(
                "cifar-10-python.tar.gz",
                170_498_071,
                "c58f30108f718f92721af3b95e74349a",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
            "cifar-10-batches-py",
            _BATCHES,
            ("test_batch",),
            "batches.meta",
            "labels",
        ),
    ),
}
NUM_CLASSES = {"cifar100": 100, "cifar10": 10}
NUM_COARSE_CLASSES = 20
NUM_TRAIN, NUM_TEST = 50_000, 10_000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def load_cifar(
    dataset: str,
    data_dir: str | Path | None = None,
    stratified: bool = False,
    download: bool = True,
    quiet: bool = False,
) -> ImageData:
    """Return ``"cifar100"`` (fine labels) or ``"cifar10"``, with a twentieth of the training images to validate.

    Looked for in `search_folders(data_dir)`, then, with `download`, fetched. Images are (N, 32, 32, 3). Mean and
    standard deviation are the report's. Files with another number of images than the official ones are read, and the
    log says so. Raises DataMissingError or DataDamagedError.
    """
    images, test, names, place = read_cifar(dataset, data_dir, download, quiet)
    say_if_partial(dataset, images, test, place)
    train, valid = split(images, len(images.labels) * 19 // 20, stratified)
    return ImageData(dataset, train, valid, test, names, MEAN, STD, str(place))


def read_cifar(
    dataset: str,
    data_dir: str | Path | None = None,
    download: bool = True,
    quiet: bool = False,
    coarse: bool = False,
) -> tuple[ImageSet, ImageSet, tuple[str, ...], Path]:
    """Return (the training images, the test images, both in the files' order, the classes, where they are from).

    The labels of ``"cifar100"`` are its 100 fine ones or, with `coarse`, its 20 superclasses. Else as `load_cifar`.
    """
    if coarse and dataset != "cifar100":
        raise ValueError(f"read_cifar: {dataset} has no coarse labels; cifar100 has")
    form, place = find_cifar(dataset, data_dir) or (None, None)
    if form is None or place is None:
        form, place = FORMS[dataset][0], _fetch_cifar(dataset, data_dir, download, quiet)
    form, classes = (form.coarse(), NUM_COARSE_CLASSES) if coarse else (form, NUM_CLASSES[dataset])
    files = _read_archive(place, form) if place.is_file() else _read_folder(place, form)
    images, test = (_decode(form, files, part, place, classes) for part in (form.train, form.test))
    return images, test, _class_names(form, files, place, classes), place


def say_if_partial(dataset: str, train: ImageSet, test: ImageSet, place: Path) -> None:
    """Log a line where there are more or fewer images than in the official data set."""
    found, official = (len(train.labels), len(test.labels)), (NUM_TRAIN, NUM_TEST)
    if found != official:
        words = ["{:,} training and {:,} test images".format(*counts) for counts in (found, official)]
        logger.warning("%s holds %s; the official %s has %s", place, words[0], dataset, words[1])


def find_cifar(dataset: str, data_dir: str | Path | None = None) -> tuple[_Form, Path] | None:
    """Return the first archive or unpacked folder of the data set, with its form, or None."""
    for folder in search_folders(data_dir):
        for form in FORMS[dataset]:
            for name in (form.archive.name, form.folder):
                if (folder / name).exists():
                    return form, folder / name
    return None


def _fetch_cifar(dataset: str, data_dir: str | Path | None, download: bool, quiet: bool) -> Path:
    target = Path(data_dir).expanduser() if data_dir else user_cache()
    binary = FORMS[dataset][0].archive
    try:
        if not download:
            raise DataMissingError("Nothing was downloaded.")
        return fetch(binary, target, quiet)
    except DataMissingError as error:
        raise DataMissingError(_how_to_get(dataset, data_dir, str(error))) from error


def _how_to_get(dataset: str, data_dir: str | Path | None, reason: str) -> str:
    looked = "\n".join(f"    {folder.absolute()}" for folder in search_folders(data_dir))
    files = "\n".join(
        f"    {form.archive.url}\n        {form.archive.described()}; or its unpacked folder {form.folder}/"
        for form in FORMS[dataset]
    )
    return (
        f"{dataset} was not found. {reason}\nLooked in:\n{looked}\nPut one of these there, by hand:\n{files}\n"
        f"and see that it is whole: python -m mlp.experiments data check {dataset}\n"
        f"On a machine with internet: python -m mlp.experiments data fetch {dataset}\n"
        f"Without internet, on built-in data: add --dataset shapes, or --dataset digits"
    )


def _read_archive(path: Path, form: _Form) -> dict[str, bytes]:
    """Return the wanted members of an archive, by their names."""
    check_file(path, form.archive)
    wanted = {f"{form.folder}/{name}": name for name in (*form.train, *form.test, form.names)}
    try:
        found = read_tar(path, wanted, MAX_MEMBER_BYTES, MAX_ARCHIVE_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataDamagedError(f"{path} cannot be read: {shown(error)}. It was left as it is.") from error
    return _complete({wanted[name]: data for name, data in found.items()}, wanted.values(), path)


def _read_folder(path: Path, form: _Form) -> dict[str, bytes]:
    wanted = (*form.train, *form.test, form.names)
    files = {}
    for name in wanted:
        file = path / name
        try:
            files[name] = read_file(file, MAX_MEMBER_BYTES)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise DataDamagedError(f"{file} cannot be read: {error}. It was left as it is.") from error
    return _complete(files, wanted, path)


def _complete(files: dict[str, bytes], wanted: Iterable[str], path: Path) -> dict[str, bytes]:
    lacking = sorted(set(wanted) - set(files))
    if lacking:
        raise DataDamagedError(f"{path} is not complete: it lacks {', '.join(lacking)}. It was left as it is.")
    return files


def _decode(form: _Form, files: dict[str, bytes], names: tuple[str, ...], path: Path, classes: int) -> ImageSet:
    """Return the images of some files, in their order."""
    parts = []
    for name in names:
        what = f"{path}: {name}"
        decode = _decode_binary if form.is_binary else _decode_python
        rows, labels = decode(form, files.pop(name), what)
        if not len(labels) or labels.min() < 0 or labels.max() >= classes:
            raise DataDamagedError(f"{what} holds no images, or labels outside 0..{classes - 1}")
        parts.append(ImageSet(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels))
    return ImageSet(*(np.ascontiguousarray(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)))


def _decode_binary(form: _Form, data: bytes, what: str) -> tuple[Array, Array]:
    record = form.header + 3072
    if len(data) % record:
        raise DataDamagedError(f"{what} has {len(data):,} bytes, no multiple of {record}: it is truncated")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    label = records[:, form.label_at % form.header]
    return records[:, form.header :], label.astype(np.int64)


def _decode_python(form: _Form, data: bytes, what: str) -> tuple[Array, Array]:
    content = read_pickled_dict(data, what)
    rows, labels = content.get("data"), content.get(form.label)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 3072:
        raise DataDamagedError(f"{what} holds no images: its 'data' is no (N, 3072) array of bytes")
    small = isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)
    if not isinstance(labels, list) or not small or len(labels) != len(rows):
        raise DataDamagedError(f"{what}: {form.label!r} does not hold one label for each of {len(rows)} images")
    return rows, np.array(labels, np.int64)


def _class_names(form: _Form, files: dict[str, bytes], path: Path, classes: int) -> tuple[str, ...]:
    data, what = files[form.names], f"{path}: {form.names}"
    if form.is_binary:
        names = data.decode("ascii", "replace").split()
    else:
        found = read_pickled_dict(data, what).get(f"{form.label.removesuffix('s')}_names")
        listed = found if isinstance(found, list) else []
        names = [name.decode("ascii", "replace") for name in listed if isinstance(name, bytes)]
    if len(names) != classes:
        raise DataDamagedError(f"{what} names {len(names)} classes, expected {classes}")
    return tuple(names)
