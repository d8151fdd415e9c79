"""Planned convolutions, by Winograd's transforms and by columns, give what the layers give."""

import itertools

import numpy as np
import pytest

from mlp.engine.catalogue import step_for
from mlp.engine.steps.convolution import ConvolutionStep, choose_method
from mlp.kernels import ConvGeometry, SettingError
from mlp.layers import Convolution2DLayer, ConvolutionalLayer
from mlp.penalties import L1Penalty, L2Penalty

from ..comparison import assert_same_numbers, moved

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
both_methods = pytest.mark.parametrize("method", ["winograd", "im2col"])

KERNELS, STRIDES = [(1, 1), (2, 3), (3, 3), (5, 5)], [1, 2, (2, 3)]
PADDINGS, DILATIONS = [0, 1, 2, ((0, 1), (2, 0))], [1, 2]
SIZES = [(5, 7), (4, 4), (8, 8), (1, 1), (6, 5), (9, 11)]
CHANNELS = [(3, 4), (1, 7), (5, 17), (17, 3), (2, 6)]


def fits(size, kernel, padding, dilation):
    pairs = padding if isinstance(padding, tuple) else ((padding, padding),) * 2
    return all(s + sum(p) > dilation * (k - 1) for s, p, k in zip(size, pairs, kernel, strict=True))


def table():
    """Return all kernels with all strides, paddings and dilations; sizes, channels, batches and the rest in turn."""
    rows = []
    for i, (kernel, stride, padding, dilation) in enumerate(itertools.product(KERNELS, STRIDES, PADDINGS, DILATIONS)):
        turn = SIZES[i % len(SIZES) :] + SIZES
        size = next(size for size in turn if fits(size, kernel, padding, dilation))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": i % 3 > 0}
        if i % 4 == 1:
            options |= {"kernels_penalty": L2Penalty(0.3), "biases_penalty": L1Penalty(0.2) if i % 3 else None}
        rows.append((CHANNELS[i % len(CHANNELS)], kernel, options, ((1, 7, 2)[i % 3], size)))
    return rows


def convolution(channels, kernel, options):
    return moved(Convolution2DLayer(*channels, kernel, **options))


@pytest.mark.parametrize(("channels", "kernel", "options", "batch_and_size"), table(), ids=str)
@both_dtypes
def test_any_convolution_gives_what_the_layer_gives(channels, kernel, options, batch_and_size, dtype, small_shards):
    batch, size = batch_and_size
    shape = (batch, channels[0], *size)
    assert isinstance(step_for(convolution(channels, kernel, options), shape[1:], batch, ""), ConvolutionStep)
    assert_same_numbers(lambda: [convolution(channels, kernel, options)], shape, dtype)


@both_methods
@both_dtypes
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("size", [(5, 7), (4, 4), (8, 8), (1, 1), (3, 3), (9, 2), (12, 13)], ids=str)
def test_3x3_convolutions_by_either_method_give_what_the_layer_gives(
    method, dtype, padding, size, monkeypatch, small_shards
):
    monkeypatch.setenv("MLP_CONV", method)
    if not fits(size, (3, 3), padding, 1):
        size = (3, 4)
    layers = [convolution((3, 5), 3, {"padding": padding})]
    assert_same_numbers(lambda: layers, (7, 3, *size), dtype)


@both_methods
@both_dtypes
@pytest.mark.parametrize(("batch", "channels"), [(101, (3, 17)), (33, (48, 48))], ids=str)
def test_large_batches_of_many_channels_give_what_the_layer_gives(method, dtype, batch, channels, monkeypatch):
    monkeypatch.setenv("MLP_CONV", method)
    layers = [convolution(channels, 3, {"padding": 1})]
    assert_same_numbers(lambda: layers, (batch, channels[0], 8, 8), dtype)


@both_methods
@both_dtypes
@pytest.mark.parametrize("batch", [1, 3, 4, 5, 48, 49, 101])
def test_a_batch_may_be_cut_into_any_number_of_shards_and_parts(method, dtype, batch, monkeypatch, small_shards):
    monkeypatch.setenv("MLP_CONV", method)
    layers = [convolution((3, 5), 3, {"padding": 1})]
    assert_same_numbers(lambda: layers, (batch, 3, 5, 4), dtype)


@both_methods
@both_dtypes
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3)], ids=str)
def test_the_courseworks_true_convolution_gives_what_the_layer_gives(method, dtype, kernel, monkeypatch, small_shards):
    monkeypatch.setenv("MLP_CONV", method)
    layers = [moved(ConvolutionalLayer(3, 4, 6, 7, *kernel, kernels_penalty=L2Penalty(0.5)))]
    assert_same_numbers(lambda: layers, (9, 3, 6, 7), dtype)


@both_methods
def test_convolutions_above_each_other_use_one_threads_scratch(method, monkeypatch, small_shards):
    """Convolutions of many sizes in turn, which share pieces of scratch memory."""
    monkeypatch.setenv("MLP_CONV", method)

    def build():
        shapes = [(2, 5, 1), (5, 3, 2), (3, 7, 0), (7, 2, ((0, 1), (2, 0))), (2, 2, 1)]
        return [convolution((inside, out), 3, {"padding": padding}) for inside, out, padding in shapes]

    assert_same_numbers(build, (11, 2, 7, 6))


THREE = ConvGeometry((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))


@pytest.mark.parametrize(
    "geometry",
    [
        THREE._replace(kernel=(3, 2)),
        THREE._replace(kernel=(5, 5)),
        THREE._replace(stride=(1, 2)),
        THREE._replace(dilation=(2, 1)),
        THREE._replace(padding=((0, 3), (1, 1))),
        THREE._replace(groups=2),
    ],
    ids=str,
)
def test_only_plain_3x3_convolutions_go_by_winograd(geometry, monkeypatch):
    for wanted in ("auto", "winograd", "im2col"):
        monkeypatch.setenv("MLP_CONV", wanted)
        assert choose_method(geometry, (8, 8)) == "im2col"


def test_the_setting_says_which_method_is_taken_and_by_default_the_cheaper_one_is(monkeypatch):
    monkeypatch.setenv("MLP_CONV", "winograd")
    assert choose_method(THREE, (1, 1)) == "winograd"
    monkeypatch.setenv("MLP_CONV", "im2col")
    assert choose_method(THREE, (32, 32)) == "im2col"
    monkeypatch.delenv("MLP_CONV")
    assert choose_method(THREE, (32, 32)) == "winograd"
    assert choose_method(THREE, (4, 4)) == "winograd"  # 36 multiplications, not 144
    assert choose_method(THREE, (1, 1)) == "im2col"  # 36, not 9
    assert choose_method(THREE, (5, 2)) == "winograd"  # two tiles: 72, not 90
    assert choose_method(THREE, (5, 1)) == "im2col"  # 72, not 45


def test_an_unknown_method_is_refused_with_a_sentence(monkeypatch):
    monkeypatch.setenv("MLP_CONV", "fft")
    with pytest.raises(SettingError, match="MLP_CONV is 'fft', expected one of: auto, im2col, winograd"):
        choose_method(THREE, (8, 8))
