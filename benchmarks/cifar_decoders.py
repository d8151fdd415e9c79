"""What CIFAR-100's records are, by decoders that share no code: the golden hash of `mlp.data_providers.cifar_content`.

    python -m benchmarks.cifar_decoders FOLDER [--stacks STACKS]

FOLDER is an unpacked cifar-100-python/ or cifar-100-binary/ of your own: Python's pickle, which runs what is in a
file, reads the first. STACKS holds train/ and test/ with an image file for each class, 00 to 99, all images of the
class one below the other, losslessly. A decoder gives each image as the binary form's record: coarse label, fine
label, 1024 bytes of red, of green, of blue. What is compared is the SHA-256 of the sorted SHA-256s of the records. The
exit status is 1 where two decoders differ.

- pickle: Python's own, and whole numbers and bytes from there on;
- bytes: the binary form, cut by hand; of a folder in the Python form it is written first, by the decoder `pickle`;
- stacks: Pillow, band by band; labels from the classes' names, below, in alphabetical order;
- ours: `mlp.data_providers.read_cifar`, fine and coarse, of the folder, and of the binary form where that was written.
"""

import argparse
import hashlib
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mlp.data_providers.cifar import read_cifar
from mlp.data_providers.cifar_content import GOLDEN

SIDE, PLANE = 32, 1024
CLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
"""The superclasses and their classes, from the data set's page."""
FINE = sorted(name for names in CLASSES.values() for name in names.split())
COARSE = sorted(CLASSES)
PARTS = ("train", "test")


def by_pickle(file: Path) -> Iterator[bytes]:
    """Yield the records of a file in the Python form, by Python's pickle."""
    content = pickle.loads(file.read_bytes(), encoding="bytes")
    images = zip(content[b"coarse_labels"], content[b"fine_labels"], content[b"data"].tolist(), strict=True)
    for coarse, fine, numbers in images:
        yield bytes([coarse, fine, *numbers])


def by_bytes(file: Path) -> Iterator[bytes]:
    """Yield the records of a file in the binary form, byte for byte."""
    with file.open("rb") as stream:
        while record := stream.read(2 + 3 * PLANE):
            yield record


def by_stacks(folder: Path) -> Iterator[bytes]:
    """Yield the records of a folder with a file of images for each class, by Pillow."""
    superclass = {fine: COARSE.index(coarse) for coarse, names in CLASSES.items() for fine in names.split()}
    for file in sorted(folder.glob("[0-9][0-9].*")):
        fine = int(file.stem)
        with Image.open(file) as opened:
            stack = opened.convert("RGB")
        for top in range(0, stack.height, SIDE):
            bands = stack.crop((0, top, SIDE, top + SIDE)).split()
            yield bytes([superclass[FINE[fine]], fine]) + b"".join(band.tobytes() for band in bands)


def by_ours(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the records of the training and the test part, from the library's pixels (N, H, W, C) and labels."""
    fine, coarse = (read_cifar("cifar100", folder.parent, download=False, coarse=coarse) for coarse in (False, True))
    if folder != fine[3]:
        raise SystemExit(f"beside {folder} lies {fine[3]}, which the library reads first: move one of them")
    train, test = (
        [
            bytes([super_label, label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
            for image, label, super_label in zip(part.pixels, part.labels, others.labels, strict=True)
        ]
        for part, others in zip(fine[:2], coarse[:2], strict=True)
    )
    return train, test


def digest(records: Iterator[bytes] | list[bytes]) -> tuple[int, str]:
    """Return how many records there are, and the hash of their content."""
    digests = sorted(hashlib.sha256(record).digest() for record in records)
    return len(digests), hashlib.sha256(b"".join(digests)).hexdigest()


def write_binary(folder: Path, target: Path) -> None:
    """Write a folder in the Python form as one in the binary form, by the decoder `pickle`."""
    target.mkdir()
    for part in PARTS:
        with (target / f"{part}.bin").open("wb") as stream:
            stream.writelines(by_pickle(folder / part))
    for kind, names in (("fine", FINE), ("coarse", COARSE)):
        (target / f"{kind}_label_names.txt").write_text("\n".join(names) + "\n")


def found(folder: Path, stacks: Path | None) -> dict[str, list[tuple[int, str]]]:
    """Return (number of records, hash) of the training and the test part, by each decoder."""
    rows = {f"ours, {folder.name}": [digest(part) for part in by_ours(folder)]}
    with tempfile.TemporaryDirectory() as place:
        binary = folder
        if (folder / "meta").exists():
            rows["pickle"] = [digest(by_pickle(folder / part)) for part in PARTS]
            binary = Path(place) / "cifar-100-binary"
            write_binary(folder, binary)
            rows[f"ours, {binary.name}"] = [digest(part) for part in by_ours(binary)]
        rows["bytes"] = [digest(by_bytes(binary / f"{part}.bin")) for part in PARTS]
    if stacks:
        rows["stacks"] = [digest(by_stacks(stacks / part)) for part in PARTS]
    return rows


def main() -> int:
    """Print what each decoder finds; return 1 where two differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stacks", type=Path)
    args = parser.parse_args()
    rows = found(args.folder, args.stacks)
    for name, parts in rows.items():
        print(f"{name:24}", *(f"{part} {count:,} {value}" for part, (count, value) in zip(PARTS, parts, strict=True)))
    agree = all(parts == next(iter(rows.values())) for parts in rows.values())
    golden = all(parts == list(GOLDEN["cifar100"]) for parts in rows.values())
    print("all agree" if agree else "THEY DIFFER", "and have" if golden else "and have NOT", "the golden hash")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
