"""The coursework's data sets of real targets: a power plant's output, and Scotland's rain."""

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mlp.backend import Array
from mlp.checks import ArgumentError, check_positive_int, check_whole_number
from mlp.data_providers.base import DataDamagedError, DataProvider
from mlp.data_providers.download import find_file
from mlp.data_providers.npz import check_set, need_file, read_npz
from mlp.reading import read_file, shown
from mlp.rng import Rng

MAX_TABLE = 2_000_000
"""Bytes of a text table, or of an array in the power plant's npz; the genuine ones have some 350,000."""

CCPP_SOURCE = "https://archive.ics.uci.edu/dataset/294/combined+cycle+power+plant"
CCPP_COLUMNS = 5
CCPP_VALID = 1_000
MET_OFFICE_FILE = "HadSSP_daily_qc.txt"
MET_OFFICE_SOURCE = "https://www.metoffice.gov.uk/hadobs/hadukp/data/download.html"


class CCPPDataProvider(DataProvider):
    """Batches of the combined cycle power plant: inputs (N, len(input_dims)) and targets (N, 1), standardised.

    `which_set` is 'train' or 'valid'; `input_dims` chooses, and orders, some of the four inputs 0..3, None all. Read
    from the coursework's ccpp_data.npz; or from Folds5x2_pp.csv, the original's first sheet (AT, V, AP, RH, PE)
    saved as CSV, which is standardised over all rows, and whose last 1,000 rows are then 'valid'. Tüfekci,
    Prediction of full load electrical power output of a base load operated combined cycle power plant using machine
    learning methods, International Journal of Electrical Power and Energy Systems 60 (2014).
    """

    def __init__(
        self,
        which_set: str = "train",
        input_dims: Iterable[int] | None = None,
        batch_size: int = 10,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        data_dir: str | Path | None = None,
    ) -> None:
        self.which_set = check_set(type(self), which_set, ("train", "valid"))
        inputs, targets = load_ccpp(which_set, data_dir)
        if input_dims is not None and not isinstance(input_dims, Iterable):
            raise TypeError(f"CCPPDataProvider: input_dims is {input_dims!r}, expected a list of numbers, or None")
        dims = range(inputs.shape[1]) if input_dims is None else input_dims
        self.input_dims = [check_whole_number("CCPPDataProvider: input_dims", dim) for dim in dims]
        if not self.input_dims or not set(self.input_dims) <= set(range(inputs.shape[1])):
            raise ArgumentError(
                f"CCPPDataProvider: input_dims is {input_dims}, expected some of the numbers 0..{inputs.shape[1] - 1}"
            )
        super().__init__(inputs[:, self.input_dims], targets, batch_size, max_num_batches, shuffle_order, rng)


class MetOfficeDataProvider(DataProvider):
    """Batches of windows into Southern Scotland's daily rain: inputs (N, window_size - 1), targets (N,), the next day.

    Read from the Met Office's file HadSSP_daily_qc.txt in `search_folders(data_dir)`: missing days, below 0, are left
    out, as is, in the coursework and so here, the last day of months of 31; what remains is standardised. Alexander
    and Jones, Updated precipitation series for the U.K. and discussion of recent extremes, Atmospheric Science
    Letters 1 (2001).
    """

    def __init__(
        self,
        window_size: int,
        batch_size: int = 10,
        max_num_batches: int = -1,
        shuffle_order: bool = True,
        rng: Rng | None = None,
        data_dir: str | Path | None = None,
    ) -> None:
        self.window_size = check_positive_int("MetOfficeDataProvider: window_size", window_size, minimum=2)
        days = load_met_office(data_dir)
        if self.window_size > len(days):
            raise ArgumentError(f"MetOfficeDataProvider: window_size is {window_size}, and there are {len(days)} days")
        windows = np.lib.stride_tricks.sliding_window_view(days, self.window_size)
        super().__init__(windows[:, :-1], windows[:, -1], batch_size, max_num_batches, shuffle_order, rng)


def load_ccpp(which_set: str, data_dir: str | Path | None = None) -> tuple[Array, Array]:
    """Return (inputs (N, 4), targets (N, 1)) of 'train' or 'valid', standardised.

    Raises DataMissingError or DataDamagedError.
    """
    check_set(CCPPDataProvider, which_set, ("train", "valid"))
    table = find_file("Folds5x2_pp.csv", data_dir)
    if table is not None and find_file("ccpp_data.npz", data_dir) is None:
        return _read_ccpp_table(table, which_set)
    advice = f"Put the coursework's file there, or the original's first sheet as Folds5x2_pp.csv: {CCPP_SOURCE}"
    path = need_file("ccpp_data.npz", "The power plant's data", data_dir, advice)
    inputs, targets = read_npz(path, f"{which_set}_inputs", f"{which_set}_targets", most=MAX_TABLE)
    shapes = inputs.shape, targets.shape
    if shapes != ((inputs.size // 4, 4), (inputs.size // 4, 1)) or inputs.dtype.kind + targets.dtype.kind != "ff":
        raise DataDamagedError(f"{path}: arrays {shapes[0]} and {shapes[1]}, expected (N, 4) and (N, 1), floats")
    if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
        raise DataDamagedError(f"{path} holds numbers that are not finite. It was left as it is.")
    return inputs, targets


def load_met_office(data_dir: str | Path | None = None) -> Array:
    """Return the days' precipitation (N,), standardised by the population's deviation.

    Raises DataMissingError or DataDamagedError.
    """
    path = need_file(MET_OFFICE_FILE, "The Met Office's data", data_dir, f"Put it there, from {MET_OFFICE_SOURCE}")
    days = _read_table(path, skiprows=3, usecols=range(2, 32))
    if not (days >= 0).any():
        raise DataDamagedError(f"{path} holds no days but missing ones, below 0. It was left as it is.")
    return _standardised(path, days[days >= 0, None])[:, 0]


def _read_ccpp_table(path: Path, which_set: str) -> tuple[Array, Array]:
    table = _read_table(path, delimiter=",", skiprows=1)
    names = read_file(path, MAX_TABLE).decode().splitlines()[0]
    if names.split(",")[0].strip().strip('"').replace(".", "", 1).isdigit():
        raise DataDamagedError(f"{path} begins with numbers, expected a line of names: AT,V,AP,RH,PE")
    if table.shape[1] != CCPP_COLUMNS or len(table) <= CCPP_VALID:
        expected = f"more than {CCPP_VALID} rows of {CCPP_COLUMNS} numbers"
        raise DataDamagedError(f"{path} holds a table {table.shape}, expected {expected}. It was left as it is.")
    table = _standardised(path, table)
    part = table[:-CCPP_VALID] if which_set == "train" else table[-CCPP_VALID:]
    return part[:, :-1], part[:, -1:]


def _read_table(path: Path, **options: Any) -> Array:
    """Return a table of finite numbers in a text file."""
    try:
        lines = io.StringIO(read_file(path, MAX_TABLE).decode(), newline=None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that there is no data
            table: Array = np.loadtxt(lines, ndmin=2, comments=None, **options)
    except Exception as error:  # a text that is no table can fail in any way
        reason = shown(error)
        raise DataDamagedError(f"{path} is not the table that it should be: {reason}. It was left as it is.") from error
    if not np.isfinite(table).all():
        raise DataDamagedError(f"{path} holds numbers that are not finite. It was left as it is.")
    return table


def _standardised(path: Path, table: Array) -> Array:
    """Return a table with mean 0 and deviation 1 in every column."""
    if len(table) < 2 or (table == table[:1]).all(axis=0).any():
        raise DataDamagedError(f"{path} holds the same number in all rows of a column. It was left as it is.")
    with np.errstate(all="ignore"):
        standardised: Array = (table - table.mean(axis=0)) / table.std(axis=0)
    if not np.isfinite(standardised).all():
        raise DataDamagedError(f"{path} holds numbers too large or too close to be standardised. It was left as it is.")
    return standardised
