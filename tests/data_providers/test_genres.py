"""The providers of music: what the contract leaves open."""

import numpy as np
import pytest

from mlp.data_providers import DataDamagedError, DataMissingError, MSD10GenreDataProvider, MSD25GenreDataProvider

KINDS = {10: MSD10GenreDataProvider, 25: MSD25GenreDataProvider}
every_kind = pytest.mark.parametrize("count", KINDS)


def write(folder, count, which_set="train", **changes):
    rng = np.random.RandomState(0)
    arrays = {
        "inputs": rng.normal(size=(12, 6, 5)),
        "targets": rng.randint(0, count, 12),
        "label_map": np.array([f"genre {i}" for i in range(count)]),
    } | changes
    path = folder / f"msd-{count}-genre-{which_set}.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path, arrays


@every_kind
def test_a_song_s_features_are_one_row_of_float32(folder, count):
    _, arrays = write(folder, count)
    p = KINDS[count]("train", 12, shuffle_order=False)
    assert p.inputs.dtype == np.float32
    assert p.inputs.shape == (12, 30)
    np.testing.assert_allclose(p.inputs[3, 5:10], arrays["inputs"][3, 1], rtol=1e-6)


def test_features_that_are_in_a_row_already_stay_so(folder):
    _, arrays = write(folder, 10, inputs=np.arange(36.0).reshape(12, 3))
    np.testing.assert_array_equal(MSD10GenreDataProvider(shuffle_order=False).inputs, arrays["inputs"])


def test_the_two_sets_have_files_of_their_own(folder):
    write(folder, 10)
    with pytest.raises(DataMissingError, match=r"msd-25-genre-train\.npz"):
        MSD25GenreDataProvider("train")
    write(folder, 25)
    assert (MSD10GenreDataProvider().num_classes, MSD25GenreDataProvider().num_classes) == (10, 25)
    assert MSD25GenreDataProvider("train", 4).next()[1].shape == (4, 25)


def test_a_given_folder_goes_first(folder, tmp_path):
    (tmp_path / "given").mkdir()
    write(folder, 10)
    _, arrays = write(tmp_path / "given", 10, targets=np.arange(12) % 7)
    p = MSD10GenreDataProvider("train", shuffle_order=False, data_dir=str(tmp_path / "given"))
    np.testing.assert_array_equal(p.targets, arrays["targets"])


@every_kind
@pytest.mark.parametrize("which_set", ["train", "valid"])
def test_what_is_missing_is_told_with_every_place(folder, tmp_path, count, which_set):
    with pytest.raises(DataMissingError) as caught:
        KINDS[count](which_set, data_dir=tmp_path / "given")
    for place in (tmp_path / "given", folder, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(place / f"msd-{count}-genre-{which_set}.npz") in str(caught.value)


@every_kind
@pytest.mark.parametrize("which_set", ["test", "Train", "", None])
def test_another_set_is_refused_by_the_provider_s_own_name(folder, count, which_set):
    with pytest.raises(ValueError, match=rf"MSD{count}GenreDataProvider: which_set.*'train', 'valid'"):
        KINDS[count](which_set)


@every_kind
@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": None},
        {"targets": None},
        {"label_map": None},
        {"inputs": np.ones((11, 6))},
        {"inputs": np.ones((12, 6), "U1")},
        {"targets": np.full(12, 25)},
        {"targets": np.full(12, -1)},
        {"targets": np.ones(12)},
        {"targets": np.ones((12, 1), int)},
        {"inputs": np.ones((0, 6)), "targets": np.ones(0, int)},
        {"inputs": np.array(1.0), "targets": np.array(1)},
        {"label_map": np.array(["one", "two"])},
        {"label_map": np.array([{"a": 1}], dtype=object)},
    ],
    ids=lambda changes: ", ".join(
        f"{k} {getattr(v, 'dtype', '')}{getattr(v, 'shape', '')}" for k, v in changes.items()
    ),
)
def test_other_arrays_are_damaged(folder, count, changes):
    path, _ = write(folder, count, **changes)
    with pytest.raises(DataDamagedError) as caught:
        KINDS[count]()
    assert str(path) in str(caught.value)
