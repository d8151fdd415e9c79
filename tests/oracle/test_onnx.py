"""ONNX's own node tests as a judge: every single-node test of the operators that the library covers, all outputs."""

import warnings
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("onnx", reason="pip install 'mlp[oracle]'")

from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from .onnx_backend import OPERATORS, run

NODE_TESTS = {
    "Adagrad": 2,
    "Adam": 2,
    "Add": 8,
    "AveragePool": 20,
    "BatchNormalization": 4,
    "Concat": 12,
    "Conv": 6,
    "ConvTranspose": 11,
    "Dropout": 12,
    "Elu": 3,
    "Flatten": 9,
    "Gemm": 11,
    "GlobalAveragePool": 2,
    "GroupNormalization": 2,
    "LRN": 2,
    "LayerNormalization": 19,
    "LeakyRelu": 3,
    "LogSoftmax": 7,
    "MatMul": 7,
    "MaxPool": 19,
    "Momentum": 3,
    "Relu": 1,
    "Reshape": 10,
    "Selu": 3,
    "Sigmoid": 2,
    "Softmax": 7,
    "SoftmaxCrossEntropyLoss": 34,
    "Tanh": 2,
}


def node_tests():
    """Return ONNX's tests that are one node of our operators. Loading computes them all, and seeds NumPy's stream."""
    state = np.random.get_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ONNX casts what overflows
        tests = load_model_tests(kind="node")
    np.random.set_state(state)
    return [test for test in tests if len(test.model.graph.node) == 1 and operator(test) in OPERATORS]


def operator(test):
    return test.model.graph.node[0].op_type


CASES = node_tests()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_node(case, record_property):
    record_property("ONNX node tests", len(CASES))
    (node,), ((inputs, expected),) = case.model.graph.node, case.data_sets
    outputs = run(node, [np.asarray(array) for array in inputs])
    Runner.assert_similar_outputs(expected, outputs, case.rtol, case.atol)


def test_every_node_test_of_these_operators_is_there():
    assert Counter(map(operator, CASES)) == NODE_TESTS
    assert len({case.name for case in CASES}) == sum(NODE_TESTS.values()) == 223


@pytest.mark.parametrize("change", [lambda y: 1.01 * y + 1e-6, lambda y: y[None], lambda y: y.astype(np.float64)])
def test_another_value_shape_or_dtype_of_any_output_is_refused(change):
    for case in {operator(case): case for case in reversed(CASES)}.values():
        ((_, expected),) = case.data_sets
        for i, output in enumerate(expected):
            outputs = [*expected[:i], change(output), *expected[i + 1 :]]
            with pytest.raises(AssertionError):
                Runner.assert_similar_outputs(expected, outputs, case.rtol, case.atol)
