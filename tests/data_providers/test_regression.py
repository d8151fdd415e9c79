"""The power plant's table and the Met Office's, whole and damaged."""

import numpy as np
import pytest

from mlp.data_providers import (
    CCPPDataProvider,
    DataDamagedError,
    DataMissingError,
    MetOfficeDataProvider,
    load_ccpp,
    load_met_office,
    regression,
)

VALID = 8
HEADER = "AT,V,AP,RH,PE"


@pytest.fixture(autouse=True)
def _few_rows_validate(folder, monkeypatch):
    monkeypatch.setattr(regression, "CCPP_VALID", VALID)


def power(rows=30, seed=0):
    return np.round(np.random.RandomState(seed).normal([20, 54, 1013, 73, 454], [7, 12, 6, 14, 17], (rows, 5)), 2)


def write_table(folder, table, header=HEADER):
    path = folder / "Folds5x2_pp.csv"
    path.write_text("\n".join([header, *(",".join(map(repr, row)) for row in np.asarray(table).tolist())]) + "\n")
    return path


def write_npz(folder, **changes):
    rng = np.random.RandomState(1)
    shapes = {"train_inputs": (25, 4), "train_targets": (25, 1), "valid_inputs": (12, 4), "valid_targets": (12, 1)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()} | changes
    np.savez(folder / "ccpp_data.npz", **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def assert_damaged(path, load):
    before = path.read_bytes()
    with pytest.raises(DataDamagedError) as caught:
        load()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_the_table_is_standardised_over_all_its_rows(folder):
    table = power()
    write_table(folder, table)
    columns = []
    for column in table.T.tolist():
        mean = sum(column) / 30
        std = (sum((x - mean) ** 2 for x in column) / 30) ** 0.5
        columns.append([(x - mean) / std for x in column])
    expected = np.array(columns).T
    for which_set, part in (("train", expected[:-VALID]), ("valid", expected[-VALID:])):
        inputs, targets = load_ccpp(which_set)
        np.testing.assert_allclose(inputs, part[:, :4], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(targets, part[:, 4:], rtol=1e-9, atol=1e-12)


def test_the_original_s_last_1000_rows_validate(monkeypatch):
    monkeypatch.undo()
    assert regression.CCPP_VALID == 1_000


def test_the_provider_reads_the_table(folder):
    write_table(folder, power())
    p = CCPPDataProvider("valid", [2, 0], 4, shuffle_order=False)
    inputs, targets = load_ccpp("valid")
    np.testing.assert_array_equal(p.inputs, np.stack([inputs[:, 2], inputs[:, 0]], axis=1))
    np.testing.assert_array_equal(p.targets, targets)
    assert (p.input_dims, p.num_batches) == ([2, 0], 2)


def test_the_coursework_s_file_goes_before_the_table(folder):
    write_table(folder, power())
    arrays = write_npz(folder)
    np.testing.assert_array_equal(load_ccpp("train")[0], arrays["train_inputs"])


def test_a_given_folder_is_looked_in_first(folder, tmp_path):
    (tmp_path / "given").mkdir()
    write_table(folder, power(seed=1))
    write_table(tmp_path / "given", power())
    rain = write_rain(folder, RAIN)
    (tmp_path / "given" / rain.name).write_bytes(write_rain(folder, RAIN[:2]).read_bytes())
    p = CCPPDataProvider("valid", shuffle_order=False, data_dir=tmp_path / "given")
    np.testing.assert_array_equal(p.inputs, load_ccpp("valid", tmp_path / "given")[0])
    assert not np.array_equal(p.inputs, load_ccpp("valid")[0])
    assert len(MetOfficeDataProvider(2, data_dir=tmp_path / "given").targets) == 59


@pytest.mark.parametrize("dims", [[], [-1], [4], [0, 7]])
def test_other_dimensions_are_refused(folder, dims):
    write_table(folder, power())
    with pytest.raises(ValueError, match=r"input_dims.*0\.\.3"):
        CCPPDataProvider("train", dims)


@pytest.mark.parametrize("dims", [2, [0, 1.5], ["0"], "01", [None], [True, False, True, False]])
def test_what_is_no_list_of_numbers_is_refused(folder, dims):
    write_table(folder, power())
    with pytest.raises(TypeError, match="input_dims"):
        CCPPDataProvider("train", dims)


def test_dimensions_may_come_from_any_iterable(folder):
    write_table(folder, power())
    for dims in ((1, 3), np.array([1, 3]), iter([1, 3]), range(1, 4, 2)):
        assert CCPPDataProvider("train", dims).inputs.shape == (22, 2)


def test_missing_data_of_the_power_plant_are_told_with_every_place(folder, tmp_path):
    with pytest.raises(DataMissingError) as caught:
        CCPPDataProvider(data_dir=tmp_path / "given")
    for place in (tmp_path / "given", folder, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(place / "ccpp_data.npz") in str(caught.value)
    assert "Folds5x2_pp.csv" in str(caught.value)
    assert regression.CCPP_SOURCE in str(caught.value)


def with_entry(table, value):
    table = table.copy()
    table[3, 2] = value
    return table


@pytest.mark.parametrize(
    "table",
    [
        power()[:, :4],
        np.hstack([power(), power()[:, :1]]),
        power()[:VALID],
        power()[:1],
        with_entry(power(), np.nan),
        with_entry(power(), np.inf),
    ],
    ids=["4 columns", "6 columns", "as many rows as validate", "1 row", "NaN", "inf"],
)
def test_another_table_is_damaged(folder, table):
    assert_damaged(write_table(folder, table), lambda: load_ccpp("train"))


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_a_table_with_a_constant_column_is_damaged(folder, value):
    table = power()
    table[:, 1] = value
    assert_damaged(write_table(folder, table), lambda: load_ccpp("train"))


CSVS = {
    "words": "one,two,three,four,five",
    "semicolons": "1;2;3;4;5",
    "ragged": "1,2,3,4,5\n1,2,3,4",
    "a gap": "1,2,,4,5",
    "bytes": b"\xff\xfe\x00\x01" * 100,
    "a spreadsheet": b"PK\x03\x04" + bytes(range(256)),
}


@pytest.mark.parametrize("text", CSVS.values(), ids=CSVS)
def test_what_is_no_table_is_damaged(folder, text):
    path = folder / "Folds5x2_pp.csv"
    path.write_bytes(text if isinstance(text, bytes) else f"{HEADER}\n{text}\n".encode())
    assert_damaged(path, lambda: load_ccpp("train"))


@pytest.mark.parametrize("text", ["", HEADER, f"{HEADER}\n"], ids=["empty", "a line", "a header"])
def test_a_table_without_rows_is_damaged(folder, text):
    path = folder / "Folds5x2_pp.csv"
    path.write_text(text)
    assert_damaged(path, lambda: load_ccpp("train"))


@pytest.mark.parametrize(
    "changes",
    [
        {"train_inputs": None},
        {"train_targets": None},
        {"train_inputs": np.ones((24, 4))},
        {"train_inputs": np.ones(25)},
        {"train_inputs": np.ones((25, 4), np.int64)},
        {"train_targets": np.ones((25, 1), "U1")},
        {"train_inputs": np.ones((25, 3))},
        {"train_targets": np.ones(25)},
        {"train_targets": np.ones((25, 2))},
        {"train_targets": np.array(1.0)},
        {"train_inputs": np.full((25, 4), np.nan)},
    ],
    ids=lambda changes: ", ".join(
        f"{k} {getattr(v, 'dtype', '')}{getattr(v, 'shape', '')}" for k, v in changes.items()
    ),
)
def test_an_npz_of_other_arrays_is_damaged(folder, changes):
    write_npz(folder, **changes)
    assert_damaged(folder / "ccpp_data.npz", lambda: load_ccpp("train"))


def test_one_part_of_an_npz_is_enough_for_its_provider(folder):
    write_npz(folder, train_inputs=None, train_targets=None)
    assert CCPPDataProvider("valid").inputs.shape == (12, 4)


def test_a_table_of_the_power_plant_without_names_is_damaged(folder):
    """Its first line would be passed over as if it were the names."""
    path = write_table(folder, power()[1:], header="14.96,41.76,1024.07,73.17,463.26")
    assert_damaged(path, lambda: load_ccpp("train"))
    with pytest.raises(DataDamagedError, match="begins with numbers, expected a line of names: AT,V,AP,RH,PE"):
        load_ccpp("train")


# --- the Met Office

RAIN = np.round(np.random.RandomState(0).gamma(0.5, 4.0, (6, 31)), 2)


def write_rain(folder, days):
    path = folder / "HadSSP_daily_qc.txt"
    rows = [" ".join(["1931", str(1 + i), *map(repr, row)]) for i, row in enumerate(np.asarray(days).tolist())]
    path.write_text("\n".join(["Daily rain", "(2001)", "Format=Year, Month", *rows]) + "\n")
    return path


def test_rain_is_standardised_and_read_month_by_month(folder):
    write_rain(folder, RAIN)
    days = load_met_office()
    assert days.shape == (180,)
    assert abs(days.mean()) < 1e-12
    assert days.std() == pytest.approx(1.0)
    flat = RAIN[:, :30].reshape(-1)
    np.testing.assert_allclose((days - days[0]) * flat.std(), flat - flat[0], rtol=1e-9, atol=1e-12)


def test_zeros_are_dry_days_and_what_is_below_0_is_no_day(folder):
    days = RAIN.copy()
    days[1, 4], days[2, 5], days[3, 6] = 0.0, -99.99, -0.01
    write_rain(folder, days)
    loaded = load_met_office()
    assert len(loaded) == 178
    assert np.isclose(loaded[34], loaded.min())


def test_one_month_will_do(folder):
    write_rain(folder, RAIN[:1])
    assert load_met_office().shape == (30,)


def test_a_window_may_be_as_long_as_the_data_and_no_longer(folder):
    write_rain(folder, RAIN)
    p = MetOfficeDataProvider(180, batch_size=1)
    assert (p.inputs.shape, p.targets.shape) == ((1, 179), (1,))
    with pytest.raises(ValueError, match=r"window_size is 181.*180 days"):
        MetOfficeDataProvider(181)


def test_windows_are_no_views_of_one_another(folder):
    write_rain(folder, RAIN)
    p = MetOfficeDataProvider(5, 3)
    before = p.inputs.copy()
    inputs, _ = p.next()
    inputs[0, 0] = 1e9
    assert (p.inputs != before).sum() == 1


@pytest.mark.parametrize("window_size", [2.0, "3", None, True])
def test_a_window_is_a_whole_number(folder, window_size):
    write_rain(folder, RAIN)
    with pytest.raises(TypeError, match="window_size"):
        MetOfficeDataProvider(window_size)


def test_missing_rain_is_told_with_every_place(folder, tmp_path):
    with pytest.raises(DataMissingError) as caught:
        MetOfficeDataProvider(3, data_dir=tmp_path / "given")
    for place in (tmp_path / "given", folder, tmp_path / "work" / "data", tmp_path / "cache"):
        assert str(place / "HadSSP_daily_qc.txt") in str(caught.value)
    assert regression.MET_OFFICE_SOURCE in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -99.99], ids=["dry", "1", "0.1", "no days"])
def test_rain_that_is_constant_is_damaged(folder, value):
    path = write_rain(folder, np.full((6, 31), value))
    assert_damaged(path, load_met_office)
    with pytest.raises(DataDamagedError, match="the same number" if value >= 0 else "no days but missing ones"):
        load_met_office()


@pytest.mark.parametrize("value", [1e308, 1.7e308], ids=str)
def test_rain_too_large_to_be_standardised_is_damaged(folder, value):
    path = write_rain(folder, with_entry(np.full((6, 31), 1e308), value / 2))
    assert_damaged(path, load_met_office)
    with pytest.raises(DataDamagedError, match="numbers too large or too close to be standardised"):
        load_met_office()


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_rain_that_is_not_finite_is_damaged(folder, value):
    assert_damaged(write_rain(folder, with_entry(RAIN, value)), load_met_office)


def test_what_is_not_finite_on_a_day_that_is_not_read_does_no_harm(folder):
    days = RAIN.copy()
    days[:, 30] = np.nan
    write_rain(folder, days)
    assert load_met_office().shape == (180,)


RAINS = {
    "few columns": "1931 1 0.1 0.2",
    "words": " ".join(["1931", "1", *["rain"] * 31]),
    "ragged": "1931 1 " + "0.1 " * 31 + "\n1931 2 0.1",
    "bytes": b"\xff\xfe\x00\x01" * 100,
}


@pytest.mark.parametrize("text", RAINS.values(), ids=RAINS)
def test_what_is_no_table_of_rain_is_damaged(folder, text):
    path = write_rain(folder, RAIN[:1])
    path.write_bytes(text if isinstance(text, bytes) else f"a\nb\nc\n{text}\n".encode())
    assert_damaged(path, load_met_office)


@pytest.mark.parametrize("text", ["", "a\n", "a\nb\nc\n"], ids=["empty", "a line", "a header"])
def test_a_table_of_rain_without_rows_is_damaged(folder, text):
    path = folder / "HadSSP_daily_qc.txt"
    path.write_text(text)
    assert_damaged(path, load_met_office)
