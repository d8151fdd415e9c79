import numpy as np
import pytest

from mlp import checks


def test_a_shape_error_names_who_what_and_which_axis():
    with pytest.raises(checks.ShapeError) as caught:
        checks.check_shape("ConvolutionalLayer.fprop: inputs", np.ones((64, 1, 28, 28)), ("N", 3, "H", "W"))
    assert str(caught.value) == (
        "ConvolutionalLayer.fprop: inputs has shape (64, 1, 28, 28), expected (N, 3, H, W): axis 1 is 1, not 3"
    )


@pytest.mark.parametrize(
    ("shape", "expected", "message"),
    [
        ((5,), ("N", 3), r"has shape \(5,\), expected \(N, 3\): it has 1 axes, not 2"),
        ((5, 3, 1), ("N", 3), "it has 3 axes, not 2"),
        ((0, 3), ("N", 3), "axis 0 is empty"),
        ((), ("N", "..."), "it has 0 axes, not 1"),
    ],
)
def test_wrong_shapes(shape, expected, message):
    with pytest.raises(checks.ShapeError, match=message):
        checks.check_shape("x", np.ones(shape), expected)


def test_right_shapes_pass():
    checks.check_shape("x", np.ones((2, 3)), ("N", 3))
    checks.check_shape("x", np.ones((2, 3, 4)), ("N", "..."))
    checks.check_same_shape("x", np.ones((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize("x", [[1.0], None, "abc", 3.0])
def test_what_is_no_array_is_refused(x):
    with pytest.raises(checks.DTypeError, match="expected a NumPy or CuPy array"):
        checks.check_array("x", x)


@pytest.mark.parametrize("dtype", [object, bool, "U3", "datetime64[s]", np.int8, np.uint8, np.int32, np.uint64])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(checks.DTypeError, match="expected numbers"):
        checks.check_array("x", np.empty(3, dtype))


def test_labels_and_pixels_may_be_any_integers():
    checks.check_array("x", np.zeros(3, np.uint8), integers=True)
    checks.check_array("x", np.zeros(3, np.int64))


def test_arrays_that_compute_otherwise_are_refused():
    for odd in (np.ma.masked_array([1.0], [True]), np.float64(3.0)):
        with pytest.raises(checks.DTypeError, match="expected a NumPy or CuPy array"):
            checks.check_array("x", odd)


def test_two_devices_are_refused():
    gpu_array = type("ndarray", (), {"__module__": "cupy", "dtype": np.dtype(float), "shape": (3,)})()
    with pytest.raises(checks.DeviceMixError, match="x lies on the gpu, the parameters lie on the cpu"):
        checks.check_array("x", gpu_array, like=np.ones(3))


@pytest.mark.parametrize("value", [1.0, "1", None, True, np.float64(2)])
def test_whole_numbers_are_whole(value):
    with pytest.raises(TypeError, match="expected a whole number >= 1"):
        checks.check_positive_int("size", value)


def test_numbers_and_pairs():
    assert checks.check_positive_int("size", np.int32(3)) == 3
    assert checks.check_sizes("size", 2, 2) == (2, 2)
    assert checks.check_sizes("size", (2, 3), 2) == (2, 3)
    assert checks.check_sizes("size", [4], 1) == (4,)
    assert checks.check_padding("padding", 2, 3) == ((2, 2), (2, 2), (2, 2))
    assert checks.check_padding("padding", (0, 1), 2) == ((0, 0), (1, 1))
    assert checks.check_padding("padding", ((0, 1), (2, 3)), 2) == ((0, 1), (2, 3))
    assert checks.check_number("rate", np.float32(0.5), 0.0) == 0.5
    for wrong in ((1, 2, 3), (0, 1)):
        with pytest.raises(ValueError, match="size is"):
            checks.check_sizes("size", wrong, 2)
    for wrong in ((1, 2, 3), (0, -1), -1, ((0, 1),), ((0, 1), 2), ((0, 1, 2), (1, 1)), ((0, 1), (0, -1))):
        with pytest.raises(ValueError, match="padding is"):
            checks.check_padding("padding", wrong, 2)
    assert checks.check_choice("reduction", "sum", ("mean", "sum")) == "sum"
    with pytest.raises(ValueError, match="reduction is 'max', expected one of 'mean', 'sum'"):
        checks.check_choice("reduction", "max", ("mean", "sum"))
    assert checks.check_whole_number("axis", np.int64(-1)) == -1
    for odd in (True, 1.0, "1"):
        with pytest.raises(TypeError, match=r"axis is .*expected a whole number"):
            checks.check_whole_number("axis", odd)


@pytest.mark.parametrize(
    ("value", "options", "interval"),
    [
        (-1, {}, r"\[0.0, 1.0\]"),
        (0, {"low_open": True}, r"\(0.0, 1.0\]"),
        (1, {"high_open": True}, r"\[0.0, 1.0\)"),
        (float("nan"), {}, r"\[0.0, 1.0\]"),
        (2, {}, r"\[0.0, 1.0\]"),
    ],
)
def test_numbers_outside_their_interval(value, options, interval):
    with pytest.raises(ValueError, match=f"expected a finite number in {interval}"):
        checks.check_number("rate", value, 0.0, 1.0, **options)
