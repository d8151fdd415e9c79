"""Tools that prove a layer, model, error, penalty or learning rule right, or say what is wrong with it.

    check_gradients(AffineLayer(3, 2), (5, 3))
    check_learning_rule(MomentumLearningRule(0.1), lambda start, grads: ...)

`mlp.testing.cases` holds the cases by which the library's own parts are checked.
"""

from mlp.testing.checker import check_gradients
from mlp.testing.report import CheckedArray, GradientError, GradientReport
from mlp.testing.rules import check_learning_rule

__all__ = ["CheckedArray", "GradientError", "GradientReport", "check_gradients", "check_learning_rule"]
