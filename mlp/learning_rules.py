"""Learning rules: how parameters follow their gradients.

``rule.initialise(params)`` keeps the very arrays; ``rule.update_params(grads)`` changes them in place, so the layers
that own them see the change. Names as in the coursework, whose conventions each class states.

Where a rule keeps squares of gradients, one from 1.8e19 on (float32; 1.3e154 in float64) has a square that is not
representable: NumPy warns of the overflow, and the parameter stays where it is from then on (but for its decay).
"""

from collections.abc import Iterable, Sequence
from math import expm1, log
from typing import Any, ClassVar

from mlp.backend import Array, array_module, is_gpu_array
from mlp.checks import DTypeError, ShapeError, check_array, check_flag, check_number, check_same_shape
from mlp.kernels import Pieces, chunks, listed, zeros_like_all


class GradientDescentLearningRule:
    """Gradient descent: p <- p - lr g."""

    state_names: ClassVar[tuple[str, ...]] = ()
    """Lists of arrays, one per parameter, that the rule keeps: zero at first."""

    def __init__(self, learning_rate: float = 1e-3) -> None:
        name = f"{type(self).__name__}: learning_rate"
        self.learning_rate = check_number(name, learning_rate, 0.0, low_open=True)
        self.initialise([])

    def initialise(self, params: Iterable[Array]) -> None:
        """Take over the parameters (a list of arrays, or one array along its first axis); state starts at zero."""
        self.params = listed(params)
        for i, param in enumerate(self.params):
            check_array(f"{type(self).__name__}.initialise: parameter {i}", param)
            if param.dtype.kind not in "fc":
                raise DTypeError(f"{type(self).__name__}.initialise: parameter {i} has dtype {param.dtype}, not float")
        for name in self.state_names:
            setattr(self, name, zeros_like_all(self.params))
        self.step_count = 0

    def reset(self) -> None:
        """Set the state back to zero, in place."""
        for name in self.state_names:
            for array in getattr(self, name):
                array[...] = 0
        self.step_count = 0

    def check_owns(self, params: Sequence[Array]) -> None:
        """Raise ValueError unless these are the very arrays that the rule was initialised with."""
        if len(params) != len(self.params) or any(a is not b for a, b in zip(params, self.params, strict=True)):
            raise ValueError(
                f"{type(self).__name__} was initialised with other parameters than the model's (a copy's, by astype or "
                f"to_device?): call initialise(model.params)"
            )

    def update_params(self, grads_wrt_params: Sequence[Array]) -> None:
        """Change every parameter in place, by its gradient (same order, same shapes)."""
        grads_wrt_params = listed(grads_wrt_params)
        if len(grads_wrt_params) != len(self.params):
            hint = "" if self.params else "; call initialise(params) first"
            raise ShapeError(
                f"{type(self).__name__}.update_params: {len(grads_wrt_params)} gradients for {len(self.params)} "
                f"parameters{hint}"
            )
        states = [getattr(self, name) for name in self.state_names]
        flat = [arrays.flat if isinstance(arrays, Pieces) else None for arrays in (grads_wrt_params, *states)]
        known = flat[0] is not None and all(is_gpu_array(p) == is_gpu_array(flat[0]) for p in self.params[:1])
        for i, (param, grad) in enumerate(zip(self.params, grads_wrt_params, strict=True)):
            if not known or param.shape != grad.shape:
                check_same_shape(f"{type(self).__name__}.update_params: gradient {i}", grad, param)
        self.step_count += 1
        if self._is_elementwise() and all(array is not None for array in flat):
            self._update_all(*flat)
        else:
            for param, grad, *state in zip(self.params, grads_wrt_params, *states, strict=True):
                self._update(param, grad, *state)

    def _is_elementwise(self) -> bool:
        """Return whether all parameters may be changed as one: a user's rule may look at each."""
        return type(self).__module__ == __name__ and type(self)._update is GradientDescentLearningRule._update

    def _update(self, param: Array, grad: Array, *state: Array) -> None:
        """Change one parameter, and its state."""
        dtype = grad.dtype if grad.dtype.kind in "fc" else param.dtype
        param -= self._descent(array_module(grad).empty_like(grad, dtype=dtype), grad, *state)

    def _descent(self, out: Array, grad: Array, *state: Array) -> Array:
        """Return, in the memory of `out`, what is taken off a parameter; change its state. All is elementwise."""
        return array_module(grad).multiply(grad, self.learning_rate, out=out)

    def _update_all(self, *flat: Any) -> None:
        """Change all parameters in one pass, on a CPU through its cache; gradients and states are flat arrays."""
        steps = array_module(flat[0]).empty_like(flat[0])
        for chunk in [slice(None)] if is_gpu_array(steps) else chunks(len(steps)):
            self._descent(*(array[chunk] for array in (steps, *flat)))
        for param, step in zip(self.params, Pieces(steps, [param.shape for param in self.params]), strict=True):
            param -= step

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learning_rate={self.learning_rate})"


class MomentumLearningRule(GradientDescentLearningRule):
    """Gradient descent with momentum: m <- mom m - lr g, p <- p + m.

    Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    """

    state_names = ("moms",)

    def __init__(self, learning_rate: float = 1e-3, mom_coeff: float = 0.9) -> None:
        super().__init__(learning_rate)
        self.mom_coeff = check_number(f"{type(self).__name__}: mom_coeff", mom_coeff, 0.0, 1.0)

    def _descent(self, out: Array, grad: Array, *state: Array) -> Array:
        (mom,) = state
        mom *= self.mom_coeff
        mom -= super()._descent(out, grad)
        return array_module(mom).negative(mom, out=out)


class NesterovMomentumLearningRule(MomentumLearningRule):
    """Nesterov's momentum: m' = mom m - lr g, p <- p + (1 + mom) m' - mom m.

    Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013, with p standing
    for the point looked ahead to.
    """

    def _update(self, param: Array, grad: Array, *state: Array) -> None:
        (mom,) = state
        param -= self.mom_coeff * mom
        mom *= self.mom_coeff
        mom -= self.learning_rate * grad
        param += (1.0 + self.mom_coeff) * mom


class AdamLearningRule(GradientDescentLearningRule):
    """Adam in the coursework's form, with epsilon added before the bias correction.

        m1 <- b1 m1 + (1 - b1) g,   m2 <- b2 m2 + (1 - b2) g^2
        p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) m1 / (sqrt(m2) + epsilon),   t = 1, 2, ...

    Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015, the reordering at the end of section 2;
    for algorithm 1 itself see `KingmaAdamLearningRule`. Without `bias_correction` the step is lr m1 / (sqrt(m2) +
    epsilon) from the start.
    """

    state_names = ("moms_1", "moms_2")

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        bias_correction: bool = True,
    ) -> None:
        super().__init__(learning_rate)
        self.bias_correction = check_flag(f"{type(self).__name__}: bias_correction", bias_correction)
        self.beta_1, self.beta_2 = (
            check_number(f"{type(self).__name__}: {name}", beta, 0.0, 1.0, high_open=True)
            for name, beta in (("beta_1", beta_1), ("beta_2", beta_2))
        )
        self.epsilon = check_number(f"{type(self).__name__}: epsilon", epsilon, 0.0, low_open=True)

    def _descent(self, out: Array, grad: Array, *state: Array) -> Array:
        (mom_1, mom_2), xp = state, array_module(grad)
        mom_1 *= self.beta_1
        mom_1 += xp.multiply(grad, 1.0 - self.beta_1, out=out)
        mom_2 *= self.beta_2
        xp.multiply(grad, grad, out=out)
        out *= 1.0 - self.beta_2
        mom_2 += out
        correction_1 = correction_2 = 1.0
        if self.bias_correction:
            correction_1 = _one_minus_power(self.beta_1, self.step_count)
            correction_2 = _one_minus_power(self.beta_2, self.step_count) ** 0.5
        return self._step(out, mom_1, mom_2, correction_1, correction_2)

    def _step(self, out: Array, mom_1: Array, mom_2: Array, correction_1: float, correction_2: float) -> Array:
        array_module(mom_2).sqrt(mom_2, out=out)
        out += self._epsilon(correction_2)
        array_module(mom_2).divide(mom_1, out, out=out)
        out *= self.learning_rate * correction_2 / correction_1
        return out

    def _epsilon(self, correction_2: float) -> float:
        """Return what is added to sqrt(m2), before the correction of the bias."""
        return self.epsilon


class KingmaAdamLearningRule(AdamLearningRule):
    """Adam, algorithm 1 of the paper: epsilon is added after the bias correction. PyTorch's convention.

        p <- p - lr (m1 / (1 - b1^t)) / (sqrt(m2 / (1 - b2^t)) + epsilon)

    with m1, m2 and t as in `AdamLearningRule`. Kingma and Ba, ICLR 2015, algorithm 1.
    """

    def _epsilon(self, correction_2: float) -> float:
        return self.epsilon * correction_2


class AdamLearningRuleWithWeightDecay(AdamLearningRule):
    """Adam (the coursework's form) with decoupled weight decay.

        p <- p - Adam's step - (lr / initial lr) weight_decay p,   p on the right the old one

    The decay is not multiplied by the learning rate itself, only by how far a schedule has brought it down: the
    eta_t of Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 1e-5,
        *,
        bias_correction: bool = True,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, bias_correction=bias_correction)
        self.initial_learning_rate = self.learning_rate
        name = "AdamLearningRuleWithWeightDecay: weight_decay"
        self.weight_decay = check_number(name, weight_decay, 0.0)

    def _update(self, param: Array, grad: Array, *state: Array) -> None:
        decay = (self.learning_rate / self.initial_learning_rate * self.weight_decay) * param
        super()._update(param, grad, *state)
        param -= decay


class AdaGradLearningRule(GradientDescentLearningRule):
    """AdaGrad: s <- s + g^2, p <- p - lr g / sqrt(s + epsilon), epsilon inside the root.

    Without `epsilon_inside_root` p <- p - lr g / (sqrt(s) + epsilon), PyTorch's and ONNX's convention. Duchi, Hazan
    and Singer, Adaptive subgradient methods, JMLR 12 (2011), the diagonal case.
    """

    state_names = ("sum_sq_grads",)

    def __init__(self, learning_rate: float = 1e-2, epsilon: float = 1e-8, *, epsilon_inside_root: bool = True) -> None:
        super().__init__(learning_rate)
        self.epsilon_inside_root = check_flag(f"{type(self).__name__}: epsilon_inside_root", epsilon_inside_root)
        self.epsilon = check_number("AdaGradLearningRule: epsilon", epsilon, 0.0, low_open=True)

    def _descent(self, out: Array, grad: Array, *state: Array) -> Array:
        (sum_sq,) = state
        sum_sq += array_module(grad).multiply(grad, grad, out=out)
        return _scaled(out, grad, sum_sq, self.learning_rate, self.epsilon, self.epsilon_inside_root)


class RMSPropLearningRule(GradientDescentLearningRule):
    """RMSProp: s <- beta s + (1 - beta) g^2, p <- p - lr g / sqrt(s + epsilon), epsilon inside the root.

    Without `epsilon_inside_root` p <- p - lr g / (sqrt(s) + epsilon), PyTorch's convention. Tieleman and Hinton,
    Neural networks for machine learning, Coursera 2012, lecture 6.5.
    """

    state_names = ("moms_2",)

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta: float = 0.9,
        epsilon: float = 1e-8,
        *,
        epsilon_inside_root: bool = True,
    ) -> None:
        super().__init__(learning_rate)
        self.epsilon_inside_root = check_flag(f"{type(self).__name__}: epsilon_inside_root", epsilon_inside_root)
        self.beta = check_number("RMSPropLearningRule: beta", beta, 0.0, 1.0, high_open=True)
        self.epsilon = check_number("RMSPropLearningRule: epsilon", epsilon, 0.0, low_open=True)

    def _descent(self, out: Array, grad: Array, *state: Array) -> Array:
        (mom_2,) = state
        array_module(grad).multiply(grad, grad, out=out)
        out *= 1.0 - self.beta
        mom_2 *= self.beta
        mom_2 += out
        return _scaled(out, grad, mom_2, self.learning_rate, self.epsilon, self.epsilon_inside_root)


def _scaled(out: Array, grad: Array, squares: Array, rate: float, epsilon: float, inside: bool) -> Array:
    """Return rate g / sqrt(squares + epsilon), or rate g / (sqrt(squares) + epsilon), in the memory of `out`."""
    xp = array_module(grad)
    xp.sqrt(squares + epsilon if inside else squares, out=out)
    if not inside:
        out += epsilon
    xp.divide(grad, out, out=out)
    out *= rate
    return out


def _one_minus_power(beta: float, t: int) -> float:
    """Return 1 - beta^t, without losing digits where beta^t is close to 1."""
    return -expm1(t * log(beta)) if beta else 1.0
