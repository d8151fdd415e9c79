"""Data sets that are indexed one image at a time; PyTorch's DataLoader judges them where it is installed."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mlp.checks import DTypeError
from mlp.data_providers import (
    CIFAR10,
    CIFAR100,
    DataAugmentation,
    DataDamagedError,
    DataMissingError,
    EMNISTDataProvider,
    EMNISTPytorchDataProvider,
    cifar,
    load_cifar,
)

from .test_cifar import class_names, images_of, write_folder

every_kind = pytest.mark.parametrize(("kind", "dataset"), [(CIFAR10, "cifar10"), (CIFAR100, "cifar100")])
SETS = {"train": "train", "val": "valid", "test": "test"}


@pytest.fixture
def characters(folder):
    rng = np.random.RandomState(0)
    pixels, labels = rng.randint(0, 256, (30, 28, 28)).astype(np.uint8), rng.randint(0, 47, 30)
    np.savez(folder / "emnist-train.npz", inputs=pixels, targets=labels)
    return pixels, labels


# --- CIFAR


@every_kind
@pytest.mark.parametrize("set_name", SETS)
def test_an_item_is_an_image_and_its_label(folder, kind, dataset, set_name):
    write_folder(folder, dataset, 0)
    part = getattr(load_cifar(dataset), SETS[set_name])
    data = kind(set_name=set_name)
    assert len(data) == len(part.labels)
    for index, (pixels, expected) in enumerate(zip(part.pixels, part.labels, strict=True)):
        image, label = data[index]
        assert isinstance(image, Image.Image)
        assert (image.mode, image.size, type(label)) == ("RGB", (32, 32), int)
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert label == expected
    assert data.data.dtype == np.uint8
    assert data.classes == class_names(dataset)


def test_the_test_set_is_the_file_s(folder):
    write_folder(folder, "cifar100", 1)
    planes, labels, _ = images_of("cifar100")[1]
    data = CIFAR100(set_name="test")
    np.testing.assert_array_equal(data.data[..., 2], planes[:, 2])
    assert [label for _, label in data] == labels.tolist()


def test_items_end_and_may_be_counted_from_the_end(folder):
    write_folder(folder, "cifar10", 0)
    data = CIFAR10(set_name="val")
    assert len(list(data)) == len(data) == 2
    assert data[-1][1] == data[1][1]
    with pytest.raises(IndexError):
        data[2]


def test_both_transforms_are_applied_to_their_own(folder):
    write_folder(folder, "cifar10", 0)
    plain = CIFAR10()
    data = CIFAR10(transform=lambda image: image.size, target_transform=lambda label: -label)
    assert [data[i] for i in range(5)] == [((32, 32), -plain[i][1]) for i in range(5)]
    data.transform = None
    assert isinstance(data[0][0], Image.Image)


def test_changing_an_image_does_not_change_the_data(folder):
    write_folder(folder, "cifar10", 0)
    data = CIFAR10()
    before = data.data.copy()
    data[0][0].putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(data.data, before)


def test_a_root_is_looked_in_first(folder, tmp_path):
    (tmp_path / "root").mkdir()
    write_folder(tmp_path / "root", "cifar10", 0)
    assert len(CIFAR10(tmp_path / "root")) == len(CIFAR10(str(tmp_path / "root"))) == 38
    with pytest.raises(DataMissingError):
        CIFAR10()


@every_kind
def test_nothing_is_downloaded_unless_it_is_asked_for(folder, tmp_path, monkeypatch, kind, dataset):
    asked = []

    def fetch(remote, target=None, quiet=False):
        asked.append((remote.name, target))
        raise DataMissingError("no network")

    monkeypatch.setattr(cifar, "fetch", fetch)
    with pytest.raises(DataMissingError, match=r"Nothing was downloaded"):
        kind(tmp_path)
    assert asked == []
    with pytest.raises(DataMissingError, match="no network"):
        kind(tmp_path, download=True)
    assert asked == [(cifar.FORMS[dataset][0].archive.name, tmp_path)]


@every_kind
@pytest.mark.parametrize("set_name", ["valid", "Train", "", None])
def test_another_set_is_refused(folder, kind, dataset, set_name):
    with pytest.raises(ValueError, match=rf"{kind.__name__}.*'train', 'val', 'test'"):
        kind(set_name=set_name)


def test_damaged_data_are_damaged_here_too(folder):
    (write_folder(folder, "cifar10", 0) / "test_batch.bin").write_bytes(b"x")
    with pytest.raises(DataDamagedError, match="test_batch"):
        CIFAR10()


def test_its_text_says_which_it_is(folder):
    write_folder(folder, "cifar100", 0)
    assert repr(CIFAR100(set_name="test")) == "CIFAR100(set_name='test', 6 images)"


# --- EMNIST


def test_an_item_of_emnist_is_an_image_and_its_label(characters):
    pixels, labels = characters
    data = EMNISTPytorchDataProvider("train", shuffle_order=False)
    assert len(data) == 30
    for index in range(30):
        image, label = data[index]
        assert (image.shape, image.dtype, type(label)) == ((1, 28, 28), np.float32, int)
        np.testing.assert_allclose(image[0], pixels[index] / 255.0, rtol=1e-6)
        assert label == labels[index]
    with pytest.raises(IndexError):
        data[30]


def test_flattened_items_of_emnist_are_rows(characters):
    data = EMNISTPytorchDataProvider("train", shuffle_order=False, flatten=True)
    np.testing.assert_allclose(data[3][0], characters[0][3].reshape(784) / 255.0, rtol=1e-6)


def test_emnist_s_arguments_are_the_provider_s(characters):
    data = EMNISTPytorchDataProvider("train", 5, 3, True, np.random.RandomState(4))
    provider = EMNISTDataProvider("train", 5, 3, True, np.random.RandomState(4))
    assert isinstance(data.numpy_data_provider, EMNISTDataProvider)
    assert data.numpy_data_provider.num_batches == 3
    assert [label for _, label in data] == provider.targets.tolist()
    np.testing.assert_array_equal([image.ravel() for image, _ in data], provider.inputs)


def test_transforms_follow_one_another(characters):
    steps = [lambda x: x + 1.0, lambda x: x * 3.0]
    plain = EMNISTPytorchDataProvider("train", shuffle_order=False)
    for transforms in (steps, tuple(steps), iter(steps)):
        data = EMNISTPytorchDataProvider("train", shuffle_order=False, transforms=transforms)
        for _ in range(2):
            np.testing.assert_allclose(data[4][0], 3.0 * (plain[4][0] + 1.0), rtol=1e-6)
    single = EMNISTPytorchDataProvider("train", shuffle_order=False, transforms=np.negative)
    np.testing.assert_array_equal(single[4][0], -plain[4][0])
    for none in (None, [], ()):
        data = EMNISTPytorchDataProvider("train", shuffle_order=False, transforms=none)
        np.testing.assert_array_equal(data[4][0], plain[4][0])


def test_another_set_of_emnist_is_refused(folder):
    with pytest.raises(ValueError, match="which_set"):
        EMNISTPytorchDataProvider("training")


# --- the augmentation


def image_of(height=5, width=4, channels=3, dtype=np.uint8):
    """An image whose entries are all different, and none is 0."""
    return np.arange(1, height * width * channels + 1).reshape(height, width, channels).astype(dtype)


def crops(image, padding):
    """Every crop and flip of an image, pixel by pixel, by (top, left, flip)."""
    height, width, _ = image.shape
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = np.zeros_like(image)
            for y in range(height):
                for x in range(width):
                    row, col = y + top - padding, x + left - padding
                    if 0 <= row < height and 0 <= col < width:
                        crop[y, x] = image[row, col]
            found |= {(top, left, False): crop, (top, left, True): np.stack([line[::-1] for line in crop])}
    return found


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("rng", [np.random.RandomState(0), np.random.default_rng(0)], ids=["RandomState", "Generator"])
def test_every_crop_and_flip_occurs_about_as_often_and_nothing_else(padding, rng):
    image = image_of()
    names = {crop.tobytes(): name for name, crop in crops(image, padding).items()}
    augment = DataAugmentation(padding, rng)
    expected = 200
    counts = Counter(names[augment(image).tobytes()] for _ in range(expected * len(names)))
    assert len(counts) == len(names) == 2 * (2 * padding + 1) ** 2
    chi = sum((counts[name] - expected) ** 2 / expected for name in names.values())
    assert chi < len(names) + 5 * (2 * len(names)) ** 0.5


def test_the_padding_of_the_report_is_4():
    image = np.ones((32, 32, 3), np.uint8)
    augment = DataAugmentation(rng=np.random.RandomState(0))
    borders = Counter()
    for _ in range(500):
        out = augment(image)
        rows, columns = out.any(axis=(1, 2)), out.any(axis=(0, 2))
        borders.update([("rows", int(32 - rows.sum())), ("columns", int(32 - columns.sum()))])
    assert {count for _, count in borders} == set(range(5))


def test_two_draws_are_for_the_corner_and_one_for_the_flip():
    class Draws(np.random.RandomState):
        def uniform(self, *args):
            return next(self.values)

    image, found = image_of(), crops(image_of(), 1)
    for draws, name in {
        (0.0, 0.0, 0.5): (0, 0, False),
        (0.34, 0.99, 0.7): (1, 2, False),
        (0.99, 0.34, 0.49): (2, 1, True),
        (1.0 - 1e-16, 1.0 - 1e-16, 0.0): (2, 2, True),
    }.items():
        rng = Draws()
        rng.values = iter(draws)
        np.testing.assert_array_equal(DataAugmentation(1, rng)(image), found[name])
        assert list(rng.values) == []


def test_it_depends_on_the_rng_alone():
    image = image_of()
    a, b = (DataAugmentation(2, np.random.RandomState(3)) for _ in range(2))
    first = [a(image) for _ in range(20)]
    np.testing.assert_array_equal(first, [b(image) for _ in range(20)])
    c = DataAugmentation(2, np.random.RandomState(4))
    assert not np.array_equal(first, [c(image) for _ in range(20)])
    d, e = DataAugmentation(2), DataAugmentation(2, np.random.RandomState(123456))
    np.testing.assert_array_equal([d(image) for _ in range(20)], [e(image) for _ in range(20)])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 4), (9, 3, 1), (4, 4, 4)])
def test_an_array_comes_back_as_it_came_and_is_left_alone(dtype, shape):
    image = image_of(*shape, dtype)
    before = image.copy()
    for seed in range(20):
        out = DataAugmentation(2, np.random.RandomState(seed))(image)
        assert (type(out), out.dtype, out.shape) == (np.ndarray, dtype, shape)
        out[:] = 7
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_pil_image_comes_back_as_one_of_its_mode(mode):
    pixels = image_of(5, 4, len(Image.new(mode, (1, 1)).getbands()))
    image = Image.frombytes(mode, (4, 5), pixels.tobytes())
    names = {crop.tobytes() for crop in crops(pixels, 1).values()}
    augment = DataAugmentation(1, np.random.RandomState(0))
    for _ in range(20):
        out = augment(image)
        assert isinstance(out, Image.Image)
        assert (out.mode, out.size) == (mode, (4, 5))
        assert out.tobytes() in names
    assert image.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "HSV", "YCbCr", "LAB", "I", "F"])
def test_a_pil_image_of_another_mode_is_refused(mode):
    with pytest.raises(DTypeError, match=f"has the mode {mode}, expected RGB"):
        DataAugmentation()(Image.new(mode, (4, 5)))


@pytest.mark.parametrize("image", [np.ones((4, 4)), np.ones((2, 4, 4, 3)), np.ones((0, 4, 3)), np.ones(3)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"DataAugmentation: image has shape .*expected \(H, W, C\)"):
        DataAugmentation()(image)


@pytest.mark.parametrize(("padding", "error"), [(-1, ValueError), (1.5, TypeError), (None, TypeError)])
def test_another_padding_is_refused(padding, error):
    with pytest.raises(error, match="DataAugmentation: padding"):
        DataAugmentation(padding)


def test_another_rng_is_refused():
    with pytest.raises(TypeError, match="rng"):
        DataAugmentation(4, 17)


def test_it_is_a_transform_of_cifar(folder):
    write_folder(folder, "cifar10", 0)
    plain = CIFAR10()
    data = CIFAR10(transform=DataAugmentation(1, np.random.RandomState(0)))
    for index in range(5):
        names = {crop.tobytes() for crop in crops(np.asarray(plain[index][0]), 1).values()}
        image, label = data[index]
        assert isinstance(image, Image.Image)
        assert image.tobytes() in names
        assert label == plain[index][1]


# --- PyTorch judges


@pytest.fixture
def loader():
    return pytest.importorskip("torch.utils.data").DataLoader


def test_torch_loads_cifar(folder, loader):
    write_folder(folder, "cifar10", 0)
    data = CIFAR10(transform=lambda image: np.asarray(image).transpose(2, 0, 1).copy())
    batches = list(loader(data, batch_size=7, shuffle=True))
    assert [tuple(images.shape) for images, _ in batches] == [(7, 3, 32, 32)] * 5 + [(3, 3, 32, 32)]
    assert sorted(label for _, labels in batches for label in labels.tolist()) == sorted(data.labels.tolist())


def test_torch_loads_emnist(characters, loader):
    pixels, labels = characters
    data = EMNISTPytorchDataProvider("train", shuffle_order=False)
    batches = list(loader(data, batch_size=10))
    assert len(batches) == 3
    for i, (images, targets) in enumerate(batches):
        assert str(images.dtype) == "torch.float32"
        np.testing.assert_allclose(images.numpy()[:, 0], pixels[10 * i : 10 * i + 10] / 255.0, rtol=1e-6)
        assert targets.tolist() == labels[10 * i : 10 * i + 10].tolist()


def test_torch_loads_arrays_that_were_augmented(folder, loader):
    write_folder(folder, "cifar10", 0)
    augment = DataAugmentation(2, np.random.RandomState(0))
    data = CIFAR10(transform=lambda image: augment(np.asarray(image)))
    images, _ = next(iter(loader(data, batch_size=38)))
    assert tuple(images.shape) == (38, 32, 32, 3)
