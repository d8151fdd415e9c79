"""Classic mistakes, each planted alone into a learning rule that is right but for it."""

import numpy as np

from mlp.learning_rules import (
    AdaGradLearningRule,
    AdamLearningRule,
    AdamLearningRuleWithWeightDecay,
    GradientDescentLearningRule,
    KingmaAdamLearningRule,
    MomentumLearningRule,
    NesterovMomentumLearningRule,
    RMSPropLearningRule,
)


class Ascent(GradientDescentLearningRule):
    def _update(self, param, grad):
        param += self.learning_rate * grad


class StandsStill(GradientDescentLearningRule):
    """Changes a copy."""

    def _update(self, param, grad):
        param = param - self.learning_rate * grad


class Rebinds(GradientDescentLearningRule):
    def update_params(self, grads_wrt_params):
        self.params = [p - self.learning_rate * g for p, g in zip(self.params, grads_wrt_params, strict=True)]


class ChangesGradients(GradientDescentLearningRule):
    def _update(self, param, grad):
        grad *= self.learning_rate
        param -= grad


class DividesByTheStep(GradientDescentLearningRule):
    def _update(self, param, grad):
        param -= self.learning_rate / self.step_count * grad


class CopiesParameters(GradientDescentLearningRule):
    """Updates copies of the parameters that it was given."""

    def initialise(self, params):
        super().initialise([param.copy() for param in params])


class NormedGradients(GradientDescentLearningRule):
    def _update(self, param, grad):
        param -= self.learning_rate * grad / np.linalg.norm(grad)


class StepRoundedToFloat32(GradientDescentLearningRule):
    def _update(self, param, grad):
        param -= (self.learning_rate * grad).astype(np.float32)


class MomentumWithTheSignWrong(MomentumLearningRule):
    def _update(self, param, grad, mom):
        mom *= -self.mom_coeff
        mom -= self.learning_rate * grad
        param += mom


class MomentumSubtracted(MomentumLearningRule):
    def _update(self, param, grad, mom):
        mom *= self.mom_coeff
        mom -= self.learning_rate * grad
        param -= mom


class MomentumAveraged(MomentumLearningRule):
    """m <- mom m - (1 - mom) lr g."""

    def _update(self, param, grad, mom):
        mom *= self.mom_coeff
        mom -= (1 - self.mom_coeff) * self.learning_rate * grad
        param += mom


class MomentumForgets(MomentumLearningRule):
    def _update(self, param, grad, mom):
        mom[...] = -self.learning_rate * grad
        param += mom


class MomentumOneStepLate(MomentumLearningRule):
    def _update(self, param, grad, mom):
        param += mom
        mom *= self.mom_coeff
        mom -= self.learning_rate * grad


class PlainMomentumForNesterov(NesterovMomentumLearningRule):
    def _update(self, param, grad, mom):
        MomentumLearningRule._update(self, param, grad, mom)


class NesterovWithTheNewMomentum(NesterovMomentumLearningRule):
    """Steps back by mom times the new momentum, not the old one."""

    def _update(self, param, grad, mom):
        mom *= self.mom_coeff
        mom -= self.learning_rate * grad
        param += (1 + self.mom_coeff) * mom - self.mom_coeff * mom


class AdamWithoutCorrection(AdamLearningRule):
    def _step(self, out, mom_1, mom_2, correction_1, correction_2):
        return super()._step(out, mom_1, mom_2, 1.0, 1.0)


class AdamWithoutFirstCorrection(AdamLearningRule):
    def _step(self, out, mom_1, mom_2, correction_1, correction_2):
        return super()._step(out, mom_1, mom_2, 1.0, correction_2)


class AdamCorrectionWithoutRoot(AdamLearningRule):
    def _step(self, out, mom_1, mom_2, correction_1, correction_2):
        return super()._step(out, mom_1, mom_2, correction_1, correction_2**2)


class AdamEpsilonInsideRoot(AdamLearningRule):
    def _step(self, out, mom_1, mom_2, correction_1, correction_2):
        size = self.learning_rate * correction_2 / correction_1
        return size * mom_1 / np.sqrt(mom_2 + self.epsilon)


class AdamEpsilonAfterCorrection(AdamLearningRule):
    def _epsilon(self, correction_2):
        return KingmaAdamLearningRule._epsilon(self, correction_2)


class KingmaEpsilonBeforeCorrection(KingmaAdamLearningRule):
    def _epsilon(self, correction_2):
        return AdamLearningRule._epsilon(self, correction_2)


class AdamBetasExchanged(AdamLearningRule):
    def __init__(self, learning_rate, beta_1, beta_2, epsilon):
        super().__init__(learning_rate, beta_2, beta_1, epsilon)


class AdamFromStepZero(AdamLearningRule):
    """t = 0 at the first step, where the corrections would divide by zero and are left out."""

    def _update(self, param, grad, *moments):
        self.step_count -= 1
        self.bias_correction = self.step_count > 0
        super()._update(param, grad, *moments)
        self.step_count += 1


class AdamCountsOnFromTwo(AdamLearningRule):
    def _update(self, param, grad, *moments):
        self.step_count += 1
        super()._update(param, grad, *moments)
        self.step_count -= 1


class AdamCountsParameters(AdamLearningRule):
    """t goes up with every parameter."""

    def _update(self, param, grad, *moments):
        super()._update(param, grad, *moments)
        self.step_count += 1


class AdamWithoutSquares(AdamLearningRule):
    """The second moment is that of |g|."""

    def _update(self, param, grad, mom_1, mom_2):
        mom_1 *= self.beta_1
        mom_1 += (1 - self.beta_1) * grad
        mom_2 *= self.beta_2
        mom_2 += (1 - self.beta_2) * np.abs(grad)
        corrections = 1 - self.beta_1**self.step_count, (1 - self.beta_2**self.step_count) ** 0.5
        param -= self._step(np.empty_like(grad), mom_1, mom_2, *corrections)


class AdamSharesAMoment(AdamLearningRule):
    """One second moment, a number, for all parameters."""

    def initialise(self, params):
        super().initialise(params)
        self.shared = 0.0

    def reset(self):
        super().reset()
        self.shared = 0.0

    def _update(self, param, grad, mom_1, mom_2):
        mom_1 *= self.beta_1
        mom_1 += (1 - self.beta_1) * grad
        self.shared = self.beta_2 * self.shared + (1 - self.beta_2) * (grad * grad).mean()
        mom_2[...] = self.shared
        corrections = 1 - self.beta_1**self.step_count, (1 - self.beta_2**self.step_count) ** 0.5
        param -= self._step(np.empty_like(grad), mom_1, mom_2, *corrections)


class MomentsByShape(MomentumLearningRule):
    """Parameters of one shape share their momentum."""

    def initialise(self, params):
        super().initialise(params)
        by_shape = {param.shape: mom for param, mom in zip(self.params, self.moms, strict=True)}
        self.moms = [by_shape[param.shape] for param in self.params]


class DecayTimesLearningRate(AdamLearningRuleWithWeightDecay):
    def _update(self, param, grad, *moments):
        decay = self.learning_rate * self.weight_decay * param
        AdamLearningRule._update(self, param, grad, *moments)
        param -= decay


class DecayOfTheNewParameter(AdamLearningRuleWithWeightDecay):
    def _update(self, param, grad, *moments):
        AdamLearningRule._update(self, param, grad, *moments)
        param -= self.weight_decay * param


class DecayInTheGradient(AdamLearningRuleWithWeightDecay):
    """An L2 penalty, which the moments see."""

    def _update(self, param, grad, *moments):
        AdamLearningRule._update(self, param, grad + self.weight_decay * param, *moments)


class AdaGradForgets(AdaGradLearningRule):
    def _update(self, param, grad, sum_sq):
        sum_sq[...] = 0
        super()._update(param, grad, sum_sq)


class AdaGradWithoutRoot(AdaGradLearningRule):
    def _update(self, param, grad, sum_sq):
        sum_sq += grad * grad
        param -= self.learning_rate * grad / (sum_sq + self.epsilon)


class AdaGradOneStepLate(AdaGradLearningRule):
    """Divides by the squares of the steps before."""

    def _update(self, param, grad, sum_sq):
        param -= self.learning_rate * grad / np.sqrt(sum_sq + self.epsilon)
        sum_sq += grad * grad


class AdaGradEpsilonOutside(AdaGradLearningRule):
    """The other convention."""

    def _update(self, param, grad, sum_sq):
        sum_sq += grad * grad
        param -= self.learning_rate * grad / (np.sqrt(sum_sq) + self.epsilon)


class RmsBetasExchanged(RMSPropLearningRule):
    """s <- (1 - beta) s + beta g^2."""

    def _update(self, param, grad, mom_2):
        mom_2 *= 1 - self.beta
        mom_2 += self.beta * grad * grad
        param -= self.learning_rate * grad / np.sqrt(mom_2 + self.epsilon)


class RmsOfSums(RMSPropLearningRule):
    """s <- beta s + g^2."""

    def _update(self, param, grad, mom_2):
        mom_2 *= self.beta
        mom_2 += grad * grad
        param -= self.learning_rate * grad / np.sqrt(mom_2 + self.epsilon)


class ResetKeepsTheCount(AdamLearningRule):
    def reset(self):
        count = self.step_count
        super().reset()
        self.step_count = count


class ResetKeepsTheMomentum(MomentumLearningRule):
    def reset(self):
        self.step_count = 0


class UpcastState(MomentumLearningRule):
    def initialise(self, params):
        super().initialise(params)
        self.moms = [np.zeros(param.shape) for param in self.params]


class UpcastParameters(GradientDescentLearningRule):
    """Takes float64 copies of parameters of another dtype."""

    def initialise(self, params):
        super().initialise([np.asarray(param, np.float64) for param in params])


class FirstRateForGood(GradientDescentLearningRule):
    """Keeps the learning rate of the first step, whatever a schedule says later."""

    rate = None

    def _update(self, param, grad):
        self.rate = self.learning_rate if self.rate is None else self.rate
        param -= self.rate * grad
