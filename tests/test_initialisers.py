import numpy as np
import pytest

from mlp.checks import ShapeError
from mlp.initialisers import (
    ConstantInit,
    FanInUniformInit,
    GlorotNormalInit,
    GlorotUniformInit,
    NormalInit,
    UniformInit,
)

RNG = np.random.RandomState


def test_each_array_is_one_draw_of_the_stream():
    cases = [
        (UniformInit(-0.5, 2.0, RNG(1)), RNG(1).uniform(-0.5, 2.0, (3, 4))),
        (NormalInit(1.0, 0.5, RNG(1)), RNG(1).normal(1.0, 0.5, (3, 4))),
        (GlorotUniformInit(2.0, RNG(1)), RNG(1).uniform(-1, 1, (3, 4)) * 2.0 * np.sqrt(6 / 7)),
        (GlorotNormalInit(gain=0.5, rng=RNG(1)), RNG(1).normal(0, 1, (3, 4)) * 0.5 * np.sqrt(2 / 7)),
        (FanInUniformInit(rng=RNG(1)), RNG(1).uniform(-1, 1, (3, 4)) / 2.0),
        (FanInUniformInit(16, RNG(1)), RNG(1).uniform(-1, 1, (3, 4)) / 4.0),
    ]
    for init, expected in cases:
        values = init((3, 4))
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, expected, rtol=1e-14)


def test_a_shape_may_be_one_number():
    np.testing.assert_array_equal(ConstantInit(0.5)(3), [0.5, 0.5, 0.5])
    assert UniformInit(0, 1)(4).shape == (4,)


def test_fan_in_counts_all_axes_but_the_first():
    values = FanInUniformInit(rng=RNG(0))((64, 32, 3, 3))
    assert np.abs(values).max() == pytest.approx(1 / np.sqrt(288), rel=1e-3)


def test_default_streams_are_alike():
    np.testing.assert_array_equal(UniformInit(0, 1)(5), RNG(123456).uniform(0, 1, 5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UniformInit(1.0, 0.0), "high is 0.0"),
        (lambda: NormalInit(0.0, -1.0), "std is -1.0"),
        (lambda: ConstantInit("a"), "expected a number"),
        (lambda: ConstantInit(float("nan")), "expected a finite number"),
        (lambda: GlorotUniformInit(rng=7), "rng is 7"),
        (lambda: GlorotUniformInit()((2, 3, 4)), "expected a matrix"),
        (lambda: FanInUniformInit()((5,)), "pass fan_in"),
        (lambda: FanInUniformInit(0), "fan_in is 0"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises((ValueError, TypeError, ShapeError), match=message):
        build()
