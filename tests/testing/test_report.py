"""What the gradient checker prints: a table in a terminal and in a notebook, and an exception with parts to read."""

import copy
import pickle
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mlp import layers
from mlp.models import MultipleLayerModel
from mlp.testing import CheckedArray, GradientError, GradientReport, check_gradients

X = np.random.default_rng(3).standard_normal((4, 3))


class HalfTheBiases(layers.AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights, 0.5 * biases]


class Careless(layers.Layer):
    def __repr__(self):
        return "Careless(a < b & 'c')"

    def fprop(self, inputs):
        return 3.0 * inputs

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs


def array(**changes):
    right = CheckedArray("weights", "both", 6, 6, 1e-16, 1e-10, (1e-11, 1e-6))
    return right._replace(**changes)


def failure(layer, inputs=X, **options):
    with pytest.raises(GradientError) as caught:
        check_gradients(layer, inputs, **options)
    return caught.value


def html(report):
    return ElementTree.fromstring(f"<div>{report._repr_html_()}</div>")


def texts(element):
    return ["".join(cell.itertext()) for cell in element]


# Right and worst.


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"complex_step": 1e-11, "central_differences": 1e-6}, True),
        ({"complex_step": 2e-11}, False),
        ({"central_differences": 2e-6}, False),
        ({"complex_step": None}, True),
        ({"complex_step": None, "central_differences": 2e-6}, False),
        ({"central_differences": None}, True),
        ({"complex_step": float("nan")}, False),
        ({"central_differences": float("nan")}, False),
        ({"complex_step": float("inf")}, False),
        ({"resolved": False}, True),
        ({"kinks": 3}, True),
        ({"kinks": 3, "central_differences": 0.5}, False),
    ],
)
def test_an_array_is_right_where_every_error_is_within_its_tolerance(changes, right):
    assert array(**changes).right is right
    assert GradientReport("layer", (array(), array(**changes), array())).right is right


def test_the_worst_error_is_that_of_the_sharpest_method_used():
    assert GradientReport("layer", (array(), array(complex_step=3e-12))).worst == 3e-12
    assert GradientReport("layer", (array(), array(complex_step=None, central_differences=2e-9))).worst == 2e-9
    assert GradientReport("layer", (array(central_differences=0.9),)).worst == 1e-16
    assert GradientReport("layer", ()).worst == 0.0


def test_nan_is_worse_than_all():
    nan = array(complex_step=float("nan"))
    for arrays in ((nan, array(complex_step=1e300)), (array(complex_step=float("inf")), nan, array())):
        assert np.isnan(GradientReport("layer", arrays).worst)


# In a terminal.


def test_the_table_has_a_row_for_every_array_under_its_titles():
    lines = repr(check_gradients(layers.AffineLayer(3, 2), X)).splitlines()
    assert lines[0] == "gradients of AffineLayer(input_dim=3, output_dim=2): right"
    assert lines[1].split("  ")[1] == "array"
    assert re.split(r"\s{2,}", lines[1].strip()) == [
        "array",
        "mode",
        "derivatives",
        "complex step",
        "central differences",
    ]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2:5]]
    assert [row[:3] for row in rows] == [
        ["inputs", "both", "12 of 12"],
        ["weights", "both", "6 of 6"],
        ["biases", "both", "2 of 2"],
    ]
    assert all(re.fullmatch(r"\d\.\de[-+]\d\d", number) for row in rows for number in row[3:5])


def test_columns_stand_below_each_other_and_no_line_ends_in_blanks():
    report = check_gradients(layers.ChainLayer([layers.AffineLayer(3, 2), layers.BatchNormalizationLayer(2)]), X)
    lines = repr(report).splitlines()
    starts = [match.start() for match in re.finditer(r"(?<=  )\S", lines[1])]
    table = lines[1 : 2 + len(report.arrays)]
    for line in table:
        padded = line.ljust(max(starts) + 1)
        assert all(padded[start - 1] == " " and padded[start] != " " for start in starts), line
    assert all(line == line.rstrip() and len(line) <= 120 for line in lines[1:])


def test_str_and_repr_are_the_same():
    report = check_gradients(layers.TanhLayer(), X)
    assert str(report) == repr(report) == f"{report}"


def test_a_method_that_was_not_used_is_a_dash():
    cells = check_gradients(layers.TanhLayer(), X, methods=("complex step",)).arrays[0].cells()
    assert (cells[3] != "-", cells[4]) == (True, "-")
    cells = check_gradients(layers.TanhLayer(), X, methods=("central differences",)).arrays[0].cells()
    assert (cells[3], cells[4] != "-") == ("-", True)


def test_the_last_cell_says_what_is_special():
    assert array().cells()[-1] == ""
    assert array(kinks=3).cells()[-1] == "3 at kinks"
    assert array(resolved=False).cells()[-1] == "0 to rounding"
    assert array(complex_step=1.0).cells()[-1] == "WRONG"
    assert array(complex_step=1.0, kinks=3).cells()[-1] == "WRONG"


def test_entries_and_directions_are_told_apart():
    assert array(size=6, derivatives=6).cells()[2] == "6 of 6"
    assert array(size=50, derivatives=40).cells()[2].startswith("40 ")
    assert " of 50" not in array(size=50, derivatives=40).cells()[2]


def test_what_else_was_right_and_notes_follow_the_table():
    report = GradientReport("layer", (array(),), ("calls repeat", "ties"), ("one", "two"))
    assert [line.strip() for line in repr(report).splitlines()[3:]] == [
        "also right: calls repeat; ties",
        "note: one",
        "note: two",
    ]
    bare = GradientReport("layer", (array(),))
    assert len(repr(bare).splitlines()) == 3


def test_long_notes_are_wrapped():
    report = GradientReport("layer", (array(),), (), ("word " * 60,))
    assert max(map(len, repr(report).splitlines())) <= 120
    assert repr(report).count("word") == 60


def test_a_long_table_with_mistakes_shows_the_mistakes_and_counts_the_rest():
    arrays = [array(name=f"array_{i}") for i in range(200)]
    assert len(repr(GradientReport("model", tuple(arrays))).splitlines()) == 202
    arrays[77] = array(name="the wrong one", complex_step=0.5)
    report = GradientReport("model", tuple(arrays))
    for text in (repr(report), report._repr_html_()):
        assert "the wrong one" in text
        assert "array_3" not in text
        assert "199 other gradients are right" in text


# In a notebook.


def test_the_notebooks_table_is_well_formed_and_holds_the_same_cells():
    for report in (
        check_gradients(layers.AffineLayer(3, 2), X),
        check_gradients(layers.DropoutLayer(np.random.RandomState(1)), X),
        check_gradients(MultipleLayerModel([layers.AffineLayer(3, 2), layers.TanhLayer()]), X),
        failure(HalfTheBiases(3, 2)).report,
    ):
        page = html(report)
        titles, *rows = page.findall(".//tr")
        assert texts(titles)[:5] == ["array", "mode", "derivatives", "complex step", "central differences"]
        assert [tuple(texts(row)) for row in rows] == [each.cells() for each in report.arrays]
        words = " ".join(" ".join(p.itertext()) for p in page.findall(".//p"))
        assert all(promise in words for promise in report.conduct)
        assert all(note in words for note in report.notes)
        assert page.find(".//p").text.endswith("right" if report.right else "WRONG")


def test_the_notebooks_table_escapes_what_would_be_markup():
    report = failure(Careless()).report
    text = report._repr_html_()
    assert "a < b" not in text
    assert "a &lt; b &amp;" in text
    assert "a < b & 'c'" in "".join(html(report).itertext())
    hostile = GradientReport("<b>", (array(name="<script>"),), ("<i>",), ("<u>",))
    assert not {"script", "b", "i", "u"} & {element.tag for element in html(hostile).iter()}


def test_wrong_rows_are_marked_in_the_notebook_and_right_ones_are_not():
    _, *rows = html(failure(HalfTheBiases(3, 2)).report).findall(".//tr")
    marked = {texts(row)[0]: (row.get("style") is not None, texts(row)[-1]) for row in rows}
    assert marked == {"inputs": (False, ""), "weights": (False, ""), "biases": (True, "WRONG")}


# The exception.


def test_the_exception_prints_the_table_and_then_a_line_for_every_wrong_array():
    error = failure(HalfTheBiases(3, 2))
    lines = str(error).splitlines()
    assert str(error).startswith(repr(error.report))
    assert lines[0] == f"gradients of {error.subject}: WRONG"
    assert [line.split()[0] for line in lines if line.endswith("WRONG")][1:] == ["biases"]
    pattern = r"  biases\[[01]\]: got \S+, expected \S+; it is half the right one: a factor 2 is missing"
    assert re.fullmatch(pattern, lines[-1])


def test_the_exceptions_parts_can_be_read():
    error = failure(HalfTheBiases(3, 2))
    assert "(input_dim=3, output_dim=2)" in error.subject
    assert (error.mode, error.array) == ("both", "biases")
    assert error.index in [(0,), (1,)]
    assert error.got == pytest.approx(0.5 * error.expected)
    assert error.cause == "it is half the right one: a factor 2 is missing"
    assert [each.name for each in error.report.arrays if not each.right] == ["biases"]
    assert not error.report.right
    assert isinstance(error, AssertionError)


def test_the_mode_of_a_mistake_is_said_where_there_are_two():
    class NoMask(layers.DropoutLayer):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return 1.0 * grads_wrt_outputs

    error = failure(NoMask(np.random.RandomState(1)))
    assert error.mode == "training"
    lines = str(error).splitlines()[-2:]
    assert lines[0].startswith("  in training mode inputs[")
    assert lines[1].startswith("  in evaluation mode inputs[")
    assert "it is twice the right one: a 1/2 is missing, or a term is added twice" in lines[1]


def test_the_exception_survives_copies_and_pickles():
    error = failure(HalfTheBiases(3, 2))
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(twin) == str(error)
        assert twin.report == error.report
        assert (twin.array, twin.index, twin.cause) == (error.array, error.index, error.cause)


def test_a_broken_promise_has_no_entry_and_no_report():
    class Changes(layers.TanhLayer):
        def fprop(self, inputs):
            return np.tanh(inputs, out=inputs) if inputs.dtype == np.float64 else np.tanh(inputs)

        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return (1.0 - outputs**2) * grads_wrt_outputs

    error = failure(Changes())
    assert error.cause == "fprop changed its inputs"
    assert str(error) == "Changes: fprop changed its inputs"
    assert (error.index, error.got, error.expected, error.report) == (None, None, None, None)


def test_numbers_that_differ_are_printed_differently_and_none_is_minus_zero():
    class NearlyRight(layers.TanhLayer):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return (1.0 + 1e-9) * super().bprop(inputs, outputs, grads_wrt_outputs)

    class Lost(layers.TanhLayer):
        def bprop(self, inputs, outputs, grads_wrt_outputs):
            return -0.0 * np.abs(grads_wrt_outputs)

    got, expected = re.search(r"got (\S+), expected (\S+);", str(failure(NearlyRight()))).groups()
    assert got != expected
    assert "got 0, expected" in str(failure(Lost()))
