"""CIFAR-10 and CIFAR-100, from the official archives or their unpacked folders.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009. Of the two forms of each archive the
binary one is preferred, being plain records; the Python one is read by `pickle_reader`. Archives are read as
streams and never extracted.
"""

import logging
import shlex
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mlp.backend import Array
from mlp.data_providers.archives import read_tar
from mlp.data_providers.base import DataDamagedError, DataMissingError
from mlp.data_providers.cifar_forms import FORMS, NUM_CLASSES, NUM_COARSE_CLASSES, NUM_TEST, NUM_TRAIN, Form
from mlp.data_providers.download import difference, fetch, search_folders, user_cache
from mlp.data_providers.images import ImageData, ImageSet, split
from mlp.data_providers.pickle_reader import read_pickled_dict
from mlp.reading import read_file, shown

logger = logging.getLogger(__name__)

MAX_MEMBER_BYTES, MAX_ARCHIVE_BYTES = 200_000_000, 400_000_000
"""What is read of one file, and unpacked of an archive: the largest official ones have 156 and 187 million."""
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
    form, place = find_cifar(dataset, data_dir) or _fetch(dataset, data_dir, download, quiet)
    form, classes = (form.coarse(), NUM_COARSE_CLASSES) if coarse else (form, NUM_CLASSES[dataset])
    try:
        files = _read_archive(place, form) if place.is_file() else _read_folder(place, form)
        images, test = (_decode(form, files, part, place, classes) for part in (form.train, form.test))
        return images, test, _class_names(form, files, place, classes), place
    except DataDamagedError as error:
        again = "fetch it again" if place.is_file() else "unpack the archive again"
        command = f"python -m mlp.experiments data fetch {dataset} --data-dir ANOTHER_FOLDER"
        raise DataDamagedError(
            f"{error}; it was left as it is: move or delete it and {again}, or fetch it to another folder ({command}) "
            f"and name that with --data-dir"
        ) from error


def say_if_partial(dataset: str, train: ImageSet, test: ImageSet, place: Path) -> None:
    """Log a line where there are more or fewer images than in the official data set."""
    found, official = (len(train.labels), len(test.labels)), (NUM_TRAIN, NUM_TEST)
    if found != official:
        words = ["{:,} training and {:,} test images".format(*counts) for counts in (found, official)]
        logger.warning("%s holds %s; the official %s has %s", place, words[0], dataset, words[1])


def find_cifar(dataset: str, data_dir: str | Path | None = None, only_there: bool = False) -> tuple[Form, Path] | None:
    """Return the first archive or unpacked folder of the data set, with its form, or None; or look in one folder."""
    for folder in search_folders(data_dir)[: 1 if only_there else None]:
        for form in FORMS[dataset]:
            for name in (form.archive.name, form.folder):
                if (folder / name).exists():
                    return form, folder / name
    return None


def have_cifar(dataset: str, folder: str | Path, quiet: bool = False) -> Path:
    """Return where the data set lies in a folder, whatever lies elsewhere; download it to there where it does not."""
    found = find_cifar(dataset, folder, only_there=True) or _fetch(dataset, folder, True, quiet, only_there=True)
    return found[1]


def _fetch(
    dataset: str, data_dir: str | Path | None, download: bool, quiet: bool, only_there: bool = False
) -> tuple[Form, Path]:
    target = Path(data_dir).expanduser() if data_dir else user_cache()
    binary = FORMS[dataset][0]
    try:
        if not download:
            raise DataMissingError("Nothing was downloaded.")
        return binary, fetch(binary.archive, target, quiet)
    except DataMissingError as error:
        looked = search_folders(data_dir)[: 1 if only_there else None]
        raise DataMissingError(_how_to_get(dataset, looked, data_dir, str(error), download)) from error


def _how_to_get(dataset: str, folders: list[Path], data_dir: str | Path | None, reason: str, tried: bool) -> str:
    looked = "\n".join(f"    {folder.absolute()}" for folder in folders)
    here = f"{dataset} --data-dir {shlex.quote(str(data_dir))}" if data_dir else dataset
    elsewhere = f"{dataset} --data-dir D, and copy the file from D"
    files = "\n".join(
        f"    {form.archive.url}\n        {form.archive.described()}; or its unpacked folder {form.folder}/"
        for form in FORMS[dataset]
    )
    return (
        f"{dataset} was not found. {reason}\nLooked in:\n{looked}\nPut one of these there, by hand:\n{files}\n"
        f"and see that it is whole: python -m mlp.experiments data check {here}\n"
        f"{'On another machine with internet' if tried else 'To download it'}: "
        f"python -m mlp.experiments data fetch {elsewhere if tried else here}\n"
        f"A run on built-in data needs no file: add --dataset shapes, or --dataset digits to its command"
    )


def _read_archive(path: Path, form: Form) -> dict[str, bytes]:
    """Return the wanted members of an archive, by their names."""
    if found := difference(path, form.archive):
        raise DataDamagedError(f"{path} {found}")
    wanted = {f"{form.folder}/{name}": name for name in (*form.train, *form.test, form.names)}
    try:
        members = read_tar(path, wanted, MAX_MEMBER_BYTES, MAX_ARCHIVE_BYTES)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataDamagedError(f"{path} cannot be read: {shown(error)}") from error
    return _complete({wanted[name]: data for name, data in members.items()}, wanted.values(), path)


def _read_folder(path: Path, form: Form) -> dict[str, bytes]:
    wanted = (*form.train, *form.test, form.names)
    files = {}
    for name in wanted:
        file = path / name
        try:
            files[name] = read_file(file, MAX_MEMBER_BYTES)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise DataDamagedError(f"{file} cannot be read: {error}") from error
    return _complete(files, wanted, path)


def _complete(files: dict[str, bytes], wanted: Iterable[str], path: Path) -> dict[str, bytes]:
    lacking = sorted(set(wanted) - set(files))
    if lacking:
        raise DataDamagedError(f"{path} is not complete: it lacks {', '.join(lacking)}")
    return files


def _named(path: Path, name: str) -> str:
    """Return how errors call a file in a folder, or a member of an archive."""
    return str(path / name) if path.is_dir() else f"{path}: {name}"


def _decode(form: Form, files: dict[str, bytes], names: tuple[str, ...], path: Path, classes: int) -> ImageSet:
    """Return the images of some files, in their order."""
    pixels, labels = [], []
    for name in names:
        what = _named(path, name)
        decode = _decode_binary if form.is_binary else _decode_python
        rows, found = decode(form, files.pop(name), what)
        if not len(found):
            raise DataDamagedError(f"{what} holds no images")
        wrong = np.flatnonzero((found < 0) | (found >= classes))
        if len(wrong):
            first = f"the first is {found[wrong[0]]}, of image {wrong[0]}, counted from 0"
            raise DataDamagedError(f"{what} holds labels outside 0..{classes - 1}: {first}")
        pixels.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(found)
    whole = np.empty((sum(map(len, pixels)), 32, 32, 3), np.uint8)  # without `out`: another order, and one more copy
    return ImageSet(np.concatenate(pixels, out=whole), np.concatenate(labels))


def _decode_binary(form: Form, data: bytes, what: str) -> tuple[Array, Array]:
    record = form.header + 3072
    if len(data) % record:
        raise DataDamagedError(f"{what} has {len(data):,} bytes, no multiple of {record}: it is truncated")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    label = records[:, form.label_at % form.header]
    return records[:, form.header :], label.astype(np.int64)


def _decode_python(form: Form, data: bytes, what: str) -> tuple[Array, Array]:
    content = read_pickled_dict(data, what)
    rows, labels = content.get("data"), content.get(form.label)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 3072:
        raise DataDamagedError(f"{what} holds no images: its 'data' is no (N, 3072) array of bytes")
    small = isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)
    if not isinstance(labels, list) or not small or len(labels) != len(rows):
        raise DataDamagedError(f"{what}: {form.label!r} does not hold one label for each of {len(rows)} images")
    return rows, np.array(labels, np.int64)


def _class_names(form: Form, files: dict[str, bytes], path: Path, classes: int) -> tuple[str, ...]:
    data, what = files[form.names], _named(path, form.names)
    if form.is_binary:
        names = data.decode("ascii", "replace").split()
    else:
        found = read_pickled_dict(data, what).get(f"{form.label.removesuffix('s')}_names")
        listed = found if isinstance(found, list) else []
        names = [name.decode("ascii", "replace") for name in listed if isinstance(name, bytes)]
    if len(names) != classes:
        raise DataDamagedError(f"{what} names {len(names)} classes, expected {classes}")
    return tuple(names)
