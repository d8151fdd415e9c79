"""Data providers: the iteration protocol, its random draws, and the coursework's data sets."""

import inspect
import socket

import numpy as np
import pytest

from mlp import data_providers as dp

from .common import REQUIRED, check_signature, run_python, same_state

N = 23
INPUTS = np.arange(N * 3.0).reshape(N, 3)
TARGETS = np.arange(N) * 10
COMMON = {"batch_size": 100, "max_num_batches": -1, "shuffle_order": True, "rng": None}
SETS = ("train", "valid", "test")


def provider(**options):
    return dp.DataProvider(INPUTS, TARGETS, **{"batch_size": 5, "rng": np.random.RandomState(1), **options})


def one_hot(labels, num_classes):
    rows = np.zeros((len(labels), num_classes))
    for row, label in zip(rows, labels, strict=True):
        row[label] = 1.0
    return rows


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of data; no other one is found, and there is no network."""

    def no_network(*args, **options):
        raise socket.gaierror("no network")

    for name in ("data", "work", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MLP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(dp.download, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    return tmp_path / "data"


# --- the protocol


def test_signature_and_attributes():
    check_signature(
        dp.DataProvider,
        inputs=REQUIRED,
        targets=REQUIRED,
        batch_size=REQUIRED,
        max_num_batches=-1,
        shuffle_order=True,
        rng=None,
        smooth_labels=False,
    )
    rng = np.random.RandomState(3)
    p = dp.DataProvider(INPUTS, TARGETS, 5, 3, False, rng, True)
    np.testing.assert_array_equal(p.inputs, INPUTS)
    np.testing.assert_array_equal(p.targets, TARGETS)
    assert (p.batch_size, p.max_num_batches, p.num_batches) == (5, 3, 3)
    assert (p.shuffle_order, p.smooth_labels) == (False, True)
    assert p.rng is rng
    assert p._curr_batch == 0
    np.testing.assert_array_equal(p._current_order, np.arange(N))


@pytest.mark.parametrize(("cap", "expected"), [(-1, 4), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_num_batches_drops_an_incomplete_batch_and_is_capped(cap, expected):
    p = provider(max_num_batches=cap)
    assert p.num_batches == expected
    assert len(list(p)) == expected


def test_the_setters_recompute_num_batches():
    p = provider()
    p.batch_size = 2
    assert p.num_batches == 11
    p.max_num_batches = 7
    assert p.num_batches == 7
    p.batch_size = 10
    assert p.num_batches == 2
    p.max_num_batches = -1
    p.batch_size = N
    assert p.num_batches == 1
    for name in ("batch_size", "max_num_batches"):
        assert isinstance(inspect.getattr_static(p, name), property)


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("batch_size", -3), ("max_num_batches", 0)])
@pytest.mark.parametrize("when", ["constructor", "setter"])
def test_bad_sizes_are_value_errors(name, value, when):
    p = provider()
    with pytest.raises(ValueError, match=name):
        provider(**{name: value}) if when == "constructor" else setattr(p, name, value)


@pytest.mark.parametrize("value", [-2, -10])
def test_max_num_batches_below_minus_1_is_a_value_error(value):
    p = provider()
    with pytest.raises(ValueError, match="max_num_batches"):
        provider(max_num_batches=value)
    with pytest.raises(ValueError, match="max_num_batches"):
        p.max_num_batches = value


def test_a_provider_is_its_own_iterator_and_next_is_spelled_twice():
    p = provider(shuffle_order=False)
    assert iter(p) is p
    for i, (inputs, targets) in enumerate((p.next(), next(p), p.next(), next(p))):
        np.testing.assert_array_equal(inputs, INPUTS[5 * i : 5 * i + 5])
        np.testing.assert_array_equal(targets, TARGETS[5 * i : 5 * i + 5])
    with pytest.raises(StopIteration):
        p.next()


def test_the_end_of_an_epoch_starts_the_next_one_and_then_stops():
    p, calls = provider(), []
    new_epoch = p.new_epoch
    p.new_epoch = lambda: (calls.append(p._curr_batch), new_epoch())
    assert len(list(p)) == 4
    assert calls == [4]
    assert p._curr_batch == 0
    assert len(list(p)) == 4


def test_construction_and_every_epoch_draw_one_permutation():
    rng, order = np.random.RandomState(1), np.arange(N)
    p = provider()
    for _ in range(4):
        order = order[rng.permutation(N)]
        np.testing.assert_array_equal(p._current_order, order)
        np.testing.assert_array_equal(p.inputs, INPUTS[order])
        seen = np.concatenate([targets for _, targets in p])
        np.testing.assert_array_equal(seen, TARGETS[order][:20])
    rng.permutation(N)
    assert same_state(p.rng, rng)


def test_new_epoch_and_shuffle_draw_one_permutation_each_and_only_if_asked_to():
    rng = np.random.RandomState(1)
    first, second, third = (rng.permutation(N) for _ in range(3))
    p = provider()
    p.next()
    p.shuffle()
    assert p._curr_batch == 1
    p.new_epoch()
    assert p._curr_batch == 0
    np.testing.assert_array_equal(p._current_order, first[second][third])
    assert same_state(p.rng, rng)
    p = provider(shuffle_order=False)
    list(p)
    p.new_epoch()
    p.reset()
    assert same_state(p.rng, np.random.RandomState(1))


def test_reset_undoes_the_permutations_and_shuffles_by_the_state_of_the_rng():
    p = provider()
    list(p)
    p.next()
    p.rng.seed(7)
    p.reset()
    assert p._curr_batch == 0
    order = np.random.RandomState(7).permutation(N)
    np.testing.assert_array_equal(p.inputs, INPUTS[order])
    np.testing.assert_array_equal(p.targets, TARGETS[order])
    np.testing.assert_array_equal(p._current_order, order)
    p.shuffle_order = False
    p.reset()
    np.testing.assert_array_equal(p.inputs, INPUTS)
    np.testing.assert_array_equal(p._current_order, np.arange(N))


def test_without_an_rng_the_default_seed_is_used():
    np.testing.assert_array_equal(provider(rng=None)._current_order, np.random.RandomState(123456).permutation(N))


def test_one_of_k():
    class Labels(dp.OneOfKDataProvider):
        num_classes = 4

    labels = np.arange(N) % 4
    p = Labels(INPUTS, labels, 5, shuffle_order=False)
    assert isinstance(p, dp.DataProvider)
    for i, (inputs, targets) in enumerate(p):
        np.testing.assert_array_equal(inputs, INPUTS[5 * i : 5 * i + 5])
        np.testing.assert_array_equal(targets, one_hot(labels[5 * i : 5 * i + 5], 4))
        assert targets.dtype == np.float64
    check_signature(Labels.to_one_of_k, int_targets=REQUIRED)
    np.testing.assert_array_equal(p.to_one_of_k(np.array([3, 0])), [[0, 0, 0, 1], [1, 0, 0, 0]])


# --- MNIST and its relatives


def write_mnist(folder, count=30, which_set="train"):
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (count, 784))
    labels = np.arange(count) % 10
    rng.shuffle(labels)
    arrays = {"inputs": (pixels / 256.0).astype(np.float16), "targets": labels.astype(np.int8)}
    np.savez(folder / f"mnist-{which_set}.npz", **arrays)
    return pixels / 256.0, labels


def write_emnist(folder, count=30, which_set="train"):
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = rng.randint(0, 47, count)
    np.savez(folder / f"emnist-{which_set}.npz", inputs=pixels, targets=labels)
    return pixels.reshape(count, 784) / 255.0, labels


MNISTS = {
    "MNISTDataProvider": write_mnist,
    "EMNISTDataProvider": write_emnist,
    "AugmentedMNISTDataProvider": write_mnist,
    "MNISTAutoencoderDataProvider": write_mnist,
}
every_mnist = pytest.mark.parametrize("name", MNISTS)


@every_mnist
def test_signatures_of_the_mnists(name):
    extra = {} if name == "AugmentedMNISTDataProvider" else {"smooth_labels": False}
    check_signature(getattr(dp, name), which_set="train", **COMMON, **extra)


@every_mnist
@pytest.mark.parametrize("which_set", SETS)
def test_the_mnists_read_their_files(folder, name, which_set):
    inputs, labels = MNISTS[name](folder, which_set=which_set)
    p = getattr(dp, name)(which_set, 10, rng=np.random.RandomState(5))
    order = np.random.RandomState(5).permutation(30)
    assert p.which_set == which_set
    assert p.num_classes == (47 if name == "EMNISTDataProvider" else 10)
    assert p.num_batches == 3
    assert p.inputs.shape == (30, 784)
    assert p.inputs.dtype == np.float32
    np.testing.assert_allclose(p.inputs, inputs[order], rtol=1e-6)
    np.testing.assert_array_equal(p.targets, labels[order])
    batch, targets = p.next()
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, p.inputs[:10])
    if name == "MNISTAutoencoderDataProvider":
        np.testing.assert_array_equal(targets, batch)
    else:
        assert targets.dtype == np.float64
        np.testing.assert_array_equal(targets, one_hot(labels[order[:10]], p.num_classes))
        np.testing.assert_array_equal(p.to_one_of_k(np.array([1, 9])), one_hot([1, 9], p.num_classes))


@every_mnist
def test_other_parts_are_refused(folder, name):
    MNISTS[name](folder)
    with pytest.raises(AssertionError, match="which_set"):
        getattr(dp, name)("training")


def test_the_test_set_of_mnist_had_another_name(folder):
    _, labels = write_mnist(folder, which_set="test")
    p = dp.MNISTDataProvider("eval", shuffle_order=False)
    np.testing.assert_array_equal(p.targets, labels)


@pytest.mark.parametrize(
    ("build", "file"),
    [
        (lambda: dp.MNISTDataProvider("valid"), "mnist-valid.npz"),
        (lambda: dp.AugmentedMNISTDataProvider("test"), "mnist-test.npz"),
        (lambda: dp.MNISTAutoencoderDataProvider("train"), "mnist-train.npz"),
        (lambda: dp.EMNISTDataProvider("valid"), "emnist-valid.npz"),
        (lambda: dp.CCPPDataProvider(), "ccpp_data.npz"),
        (lambda: dp.MetOfficeDataProvider(3), "HadSSP_daily_qc.txt"),
        (lambda: dp.CIFAR10DataProvider("train"), "cifar-10-train.npz"),
        (lambda: dp.CIFAR100DataProvider("valid"), "cifar-100-valid.npz"),
        (lambda: dp.MSD10GenreDataProvider("train"), "msd-10-genre-train.npz"),
        (lambda: dp.MSD25GenreDataProvider("valid"), "msd-25-genre-valid.npz"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_file_is_an_assertion_error_that_names_it(folder, build, file):
    with pytest.raises(AssertionError) as caught:
        build()
    assert file in str(caught.value)
    assert str(folder) in str(caught.value)


def test_mnist_keeps_smooth_labels_as_an_attribute_only(folder):
    _, labels = write_mnist(folder)
    p = dp.MNISTDataProvider("train", 30, shuffle_order=False, smooth_labels=True)
    assert p.smooth_labels is True
    np.testing.assert_array_equal(p.next()[1], one_hot(labels, 10))


def test_emnist_smooths_labels(folder):
    _, labels = write_emnist(folder)
    p = dp.EMNISTDataProvider("train", 30, shuffle_order=False, smooth_labels=True)
    expected = np.full((30, 47), 0.1 / 47)
    for row, label in zip(expected, labels, strict=True):
        row[label] += 0.9
    targets = p.next()[1]
    np.testing.assert_allclose(targets, expected, rtol=1e-14)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-14)
    check_signature(dp.EMNISTDataProvider.label_smoothing, int_targets=REQUIRED, alpha=0.1)
    np.testing.assert_allclose(p.label_smoothing(labels, alpha=0.47)[0].min(), 0.01, rtol=1e-13)
    plain = dp.EMNISTDataProvider("train", 30, shuffle_order=False)
    np.testing.assert_array_equal(plain.next()[1], one_hot(labels, 47))


def test_emnist_gives_images_where_it_is_not_to_flatten(folder):
    inputs, _ = write_emnist(folder)
    p = dp.EMNISTDataProvider("train", 30, shuffle_order=False, flatten=False)
    np.testing.assert_allclose(p.next()[0], inputs.reshape(30, 1, 28, 28), rtol=1e-6)
    p = dp.EMNISTDataProvider("train", 30, shuffle_order=False, flatten=True)
    assert p.next()[0].shape == (30, 784)


def test_every_augmented_batch_is_transformed_with_the_providers_rng(folder):
    inputs, labels = write_mnist(folder)
    p = dp.AugmentedMNISTDataProvider(
        "train", 10, rng=np.random.RandomState(3), transformer=lambda batch, rng: batch + rng.uniform(size=batch.shape)
    )
    rng, order = np.random.RandomState(3), np.arange(30)
    for _ in range(2):
        order = order[rng.permutation(30)]
        batches = list(p)
        assert len(batches) == 3
        for i, (batch, targets) in enumerate(batches):
            part = order[10 * i : 10 * i + 10]
            np.testing.assert_allclose(batch, inputs[part] + rng.uniform(size=(10, 784)), rtol=1e-6)
            np.testing.assert_array_equal(targets, one_hot(labels[part], 10))


def test_without_a_transformer_nothing_is_augmented(folder):
    inputs, _ = write_mnist(folder)
    p = dp.AugmentedMNISTDataProvider("train", 30, shuffle_order=False)
    np.testing.assert_allclose(p.next()[0], inputs, rtol=1e-6)


@pytest.mark.parametrize(
    ("transformer", "found"),
    [(lambda batch, rng: None, "NoneType"), (lambda batch, rng: batch[:7], r"\(7, 784\)")],
    ids=["nothing", "a part"],
)
def test_a_transformer_that_does_not_return_the_batch_is_refused(folder, transformer, found):
    write_mnist(folder)
    p = dp.AugmentedMNISTDataProvider("train", 10, transformer=transformer)
    with pytest.raises(dp.DataError, match=f"transformer returned {found}, expected an array of 10 inputs"):
        p.next()


def test_a_transformer_is_a_function(folder):
    write_mnist(folder)
    with pytest.raises(TypeError, match=r"transformer is 0\.5, expected a function or None"):
        dp.AugmentedMNISTDataProvider("train", 10, transformer=0.5)


# --- Met Office and CCPP


def write_rain(folder, rows=6):
    """Write a file of rainfall: three lines of words, then year, month and 31 days, -99.99 for days that are not."""
    days = np.round(np.random.RandomState(0).gamma(0.5, 4.0, (rows, 31)), 2)
    days[1, 28:], days[3, 30], days[2, 4] = -99.99, -99.99, 0.0
    lines = [
        " ".join([f" {1931 + i // 12}", str(1 + i % 12), *(f"{d:.2f}" for d in row)]) for i, row in enumerate(days)
    ]
    (folder / "HadSSP_daily_qc.txt").write_text(
        "\n".join(["Daily rain", "(2001)", "Format=Year, Month", *lines]) + "\n"
    )
    return [day for row in days for day in row[:30] if day >= 0]


def test_met_office_windows(folder):
    check_signature(dp.MetOfficeDataProvider, window_size=REQUIRED, **{**COMMON, "batch_size": 10})
    rain = write_rain(folder)
    assert len(rain) == 6 * 30 - 2
    mean = sum(rain) / len(rain)
    std = (sum((day - mean) ** 2 for day in rain) / len(rain)) ** 0.5
    p = dp.MetOfficeDataProvider(5, 3, shuffle_order=False)
    assert p.inputs.shape == (len(rain) - 4, 4)
    assert p.targets.shape == (len(rain) - 4,)
    for i, (inputs, target) in enumerate(zip(p.inputs, p.targets, strict=True)):
        np.testing.assert_allclose(inputs, [(day - mean) / std for day in rain[i : i + 4]], rtol=1e-12, atol=1e-14)
        assert target == pytest.approx((rain[i + 4] - mean) / std, rel=1e-12)
    inputs, targets = p.next()
    assert (inputs.shape, targets.shape) == ((3, 4), (3,))
    shuffled = dp.MetOfficeDataProvider(5, rng=np.random.RandomState(2))
    assert shuffled.batch_size == 10
    np.testing.assert_array_equal(shuffled.targets, p.targets[np.random.RandomState(2).permutation(len(p.targets))])


@pytest.mark.parametrize("window_size", [1, 0, -1])
def test_a_window_of_one_day_is_refused(folder, window_size):
    write_rain(folder)
    with pytest.raises(AssertionError, match="window_size"):
        dp.MetOfficeDataProvider(window_size)


def write_ccpp(folder):
    rng = np.random.RandomState(0)
    shapes = {"train_inputs": (25, 4), "train_targets": (25, 1), "valid_inputs": (12, 4), "valid_targets": (12, 1)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    np.savez(folder / "ccpp_data.npz", **arrays)
    return arrays


@pytest.mark.parametrize("which_set", ["train", "valid"])
@pytest.mark.parametrize("dims", [None, [0, 1, 2, 3], [0], [1, 3], [0, 2, 3]])
def test_ccpp(folder, which_set, dims):
    check_signature(dp.CCPPDataProvider, which_set="train", input_dims=None, **{**COMMON, "batch_size": 10})
    arrays = write_ccpp(folder)
    p = dp.CCPPDataProvider(which_set, dims, shuffle_order=False)
    expected = np.stack([arrays[f"{which_set}_inputs"][:, i] for i in ([0, 1, 2, 3] if dims is None else dims)], axis=1)
    np.testing.assert_array_equal(p.inputs, expected)
    np.testing.assert_array_equal(p.targets, arrays[f"{which_set}_targets"])
    inputs, targets = p.next()
    np.testing.assert_array_equal(inputs, expected[:10])
    np.testing.assert_array_equal(targets, arrays[f"{which_set}_targets"][:10])


def test_ccpp_has_two_parts_and_four_dimensions(folder):
    write_ccpp(folder)
    with pytest.raises(AssertionError, match="which_set"):
        dp.CCPPDataProvider("test")
    with pytest.raises(AssertionError, match="input_dims"):
        dp.CCPPDataProvider("train", [0, 4])


# --- CIFAR and the Million Song Dataset


def write_labelled(folder, file, shape, num_classes, **maps):
    rng = np.random.RandomState(0)
    inputs = rng.normal(size=(12, *shape)).astype(np.float32)
    targets = rng.randint(0, num_classes, (12, *([2] if isinstance(num_classes, tuple) else []))).astype(np.int64)
    np.savez(folder / file, inputs=inputs, targets=targets, **maps)
    return inputs, targets


@pytest.mark.parametrize(
    ("name", "file", "num_classes", "shape"),
    [
        ("CIFAR10DataProvider", "cifar-10", 10, (3072,)),
        ("MSD10GenreDataProvider", "msd-10-genre", 10, (120, 25)),
        ("MSD25GenreDataProvider", "msd-25-genre", 25, (120, 25)),
    ],
)
@pytest.mark.parametrize("which_set", ["train", "valid"])
def test_providers_with_a_label_map(folder, name, file, num_classes, shape, which_set):
    kind = getattr(dp, name)
    check_signature(kind, which_set="train", **COMMON)
    names = np.array([f"class {i}" for i in range(num_classes)])
    inputs, labels = write_labelled(folder, f"{file}-{which_set}.npz", shape, num_classes, label_map=names)
    p = kind(which_set, 4, rng=np.random.RandomState(2))
    order = np.random.RandomState(2).permutation(12)
    assert (p.which_set, p.num_classes, p.num_batches) == (which_set, num_classes, 3)
    assert list(p.label_map) == list(names)
    assert p.inputs.dtype == np.float32
    batch, targets = p.next()
    np.testing.assert_array_equal(batch, inputs[order[:4]].reshape(4, -1))
    np.testing.assert_array_equal(targets, one_hot(labels[order[:4]], num_classes))
    assert targets.dtype == np.float64


@pytest.mark.parametrize("name", ["CIFAR10DataProvider", "CIFAR100DataProvider"])
def test_cifar_has_no_other_parts(folder, name):
    with pytest.raises(AssertionError, match="which_set"):
        getattr(dp, name)("training")


@pytest.mark.parametrize(("coarse", "num_classes"), [(False, 100), (True, 20)])
def test_cifar_100_with_fine_and_coarse_labels(folder, coarse, num_classes):
    check_signature(dp.CIFAR100DataProvider, which_set="train", use_coarse_targets=False, **COMMON)
    maps = {"fine_label_map": [f"fine {i}" for i in range(100)], "coarse_label_map": [f"coarse {i}" for i in range(20)]}
    arrays = {name: np.array(names) for name, names in maps.items()}
    inputs, labels = write_labelled(folder, "cifar-100-train.npz", (3072,), (100, 20), **arrays)
    p = dp.CIFAR100DataProvider("train", coarse, 4, shuffle_order=False)
    assert p.num_classes == num_classes
    assert list(p.label_map) == maps["coarse_label_map" if coarse else "fine_label_map"]
    batch, targets = p.next()
    np.testing.assert_array_equal(batch, inputs[:4])
    np.testing.assert_array_equal(targets, one_hot(labels[:4, int(coarse)], num_classes))


# --- what the coursework wrote for PyTorch


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_the_signatures_of_cifar_as_pytorch_knows_it(name):
    wanted = "root set_name transform target_transform download".split()
    parameters = list(inspect.signature(getattr(dp, name)).parameters.values())
    assert [parameter.name for parameter in parameters[:5]] == wanted


@pytest.mark.parametrize("name", ["EMNISTPytorchDataProvider", "DataAugmentation"])
def test_more_names_for_pytorch(name):
    assert callable(getattr(dp, name))


def test_none_of_them_needs_torch(tmp_path):
    names = "CIFAR10 CIFAR100 EMNISTPytorchDataProvider DataAugmentation"
    code = (
        f"import sys; sys.modules['torch'] = None\nfrom mlp.data_providers import {', '.join(names.split())}\nprint(1)"
    )
    assert run_python(code, tmp_path).strip() == "1"
