"""Classic mistakes, each planted alone into a small layer, error or penalty that is right but for it.

What stands under a base class of this file (`Plain...`) was written from scratch, as a student would.
"""

import numpy as np

from mlp import errors, penalties
from mlp.kernels import conv_grad_inputs, conv_grad_kernels, log_softmax, sigmoid, softmax
from mlp.layers import (
    AdditionLayer,
    AffineLayer,
    AveragePooling2DLayer,
    ChainLayer,
    ConcatenationLayer,
    Convolution2DLayer,
    ConvolutionalLayer,
    ConvolutionTranspose2DLayer,
    DropoutLayer,
    ELULayer,
    GlobalAveragePooling2DLayer,
    GroupNormalizationLayer,
    Layer,
    LayerNormalizationLayer,
    LeakyReluLayer,
    LocalResponseNormalizationLayer,
    LogSoftmaxLayer,
    MatrixProductLayer,
    MaxPooling2DLayer,
    ReluLayer,
    ResidualLayer,
    SELULayer,
    SigmoidLayer,
    SoftmaxLayer,
    StochasticLayerWithParameters,
    TanhLayer,
)


class Halves:
    """`backprop` made of the two halves, so that a mistake planted in one is in both."""

    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads = self.bprop(inputs, outputs, grads_wrt_outputs) if need_inputs else None
        return grads, self.grads_wrt_params(inputs, grads_wrt_outputs)


# Activations


class SigmoidPlus(SigmoidLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * outputs * (1 + outputs)


class SigmoidOfTheOutputs(SigmoidLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * sigmoid(outputs) * (1 - sigmoid(outputs))


class TanhUnsquared(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * (1 - outputs)


class TanhWithoutDerivative(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs.copy()


class TanhOfGradients(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return 1 - outputs**2


class NegatedTanh(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return -super().bprop(inputs, outputs, grads_wrt_outputs)


class ReluOnTheWrongSide(ReluLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (inputs < 0) * grads_wrt_outputs


class ReluLetsAllPass(ReluLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs.copy()


class ReluOfGradients(ReluLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return np.maximum(grads_wrt_outputs, 0) * (inputs > 0)


class ReluTwoAtZero(ReluLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return ((inputs > 0) + 2.0 * (inputs == 0)) * grads_wrt_outputs


class LeakForgotten(LeakyReluLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (inputs > 0) * grads_wrt_outputs


class LeakOnBothSides(LeakyReluLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return self.alpha * grads_wrt_outputs


class EluAlphaForgotten(ELULayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * np.where(inputs > 0, 1, outputs + 1)


class EluOfTheInputs(ELULayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * np.where(inputs > 0, 1, inputs + self.alpha)


class SeluGammaForgotten(SELULayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / self.gamma


class PlainSoftsign(Layer):
    """y = x / (1 + |x|), with `np.abs`, which the complex step cannot pass."""

    def fprop(self, inputs):
        return inputs / (1 + np.abs(inputs))

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs / (1 + np.abs(inputs)) ** 2


class SoftsignUnsquared(PlainSoftsign):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs / (1 + np.abs(inputs))


class SquaredPart(Layer):
    """y = x real(x): the complex step sees x where it is 2 x, and so does the wrong backward pass."""

    def fprop(self, inputs):
        return inputs * inputs.real

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * inputs


# Softmax


class DiagonalSoftmax(SoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return outputs * (1 - outputs) * grads_wrt_outputs


class SoftmaxWithoutSum(SoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return outputs * grads_wrt_outputs


class SoftmaxOverTheBatch(SoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return outputs * (grads_wrt_outputs - (outputs * grads_wrt_outputs).sum(axis=0))


class SoftmaxOverTheLastAxis(SoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return outputs * (grads_wrt_outputs - (outputs * grads_wrt_outputs).sum(axis=-1, keepdims=True))


class LogSoftmaxWithoutSum(LogSoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs.copy()


class LogSoftmaxSumsNothing(LogSoftmaxLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs - np.exp(outputs) * grads_wrt_outputs


# The affine layer


class AveragedBias(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights, biases / len(inputs)]


class AveragedWeights(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights / len(inputs), biases]


class RowsPairedWrongly(AffineLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs @ self.weights.T


class TransposedWeights(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [inputs.T @ grads_wrt_outputs, grads_wrt_outputs.sum(axis=0)]


class NoWeights(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [np.zeros_like(self.weights), grads_wrt_outputs.sum(axis=0)]


class NegatedWeights(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [-grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0)]


class FirstExampleOnly(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs[:1].T @ inputs[:1], grads_wrt_outputs.sum(axis=0)]


class NormalisedInputsGradient(AffineLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / len(inputs)


class OneWrongWeight(AffineLayer):
    """One wrong entry among thousands."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        weights[17, 23] *= 1.01
        return [weights, biases]


class BiasWithAnAxis(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0, keepdims=True)]


class BiasSummedUp(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum()]


class WrongOrder(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(inputs, grads_wrt_outputs)[::-1]


class OneGradientTooFew(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(inputs, grads_wrt_outputs)[:1]


class NotANumber(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights, biases * np.nan]


class RoundedGradient(AffineLayer):
    """Right to 1e-7: central differences cannot see it."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [weights.astype(np.float32).astype(np.float64), biases]


class PenaltyForgotten(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0)]


class PenaltyTwice(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return self.with_penalties(super().grads_wrt_params(inputs, grads_wrt_outputs))


class PenaltyAveraged(AffineLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = grads_wrt_outputs.T @ inputs, grads_wrt_outputs.sum(axis=0)
        return [weights + self.weights_penalty.grad(self.weights) / len(inputs), biases]


class PenaltyWithoutValue(AffineLayer):
    """The gradient of a penalty that the error does not have."""

    def params_penalty(self):
        return 0.0


class PenaltyInBprop(AffineLayer):
    """`backprop` adds the penalty once more, `grads_wrt_params` does not."""

    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, params = super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return grads, self.with_penalties(params)


class MadeUp(AffineLayer):
    """Gradients that have to do with nothing."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [np.random.default_rng(7).standard_normal(param.shape) for param in self.params]

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return np.random.default_rng(8).standard_normal(inputs.shape)


class SummedOverTheBatch(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs).sum(axis=0, keepdims=True)


# Batch normalisation


class PlainBatchNorm(StochasticLayerWithParameters):
    """Batch normalisation of (N, C) or (N, C, H, W), and right. Mistakes replace a method each."""

    param_names = ("gamma", "beta")
    bias_names = ("beta",)
    state_names = ("running_mean", "running_var")

    def __init__(self, channels, epsilon=1e-5, momentum=0.1):
        super().__init__()
        rng = np.random.default_rng(4)
        self.epsilon, self.momentum = epsilon, momentum
        self.gamma, self.beta = rng.uniform(0.5, 2.0, channels), rng.standard_normal(channels)
        self.running_mean, self.running_var = rng.standard_normal(channels), rng.uniform(0.5, 2.0, channels)

    def fprop(self, inputs, stochastic=True):
        if inputs.size == inputs.shape[1]:
            raise ValueError("one number per channel has no variance")
        mean, var = self.statistics(inputs) if stochastic else self.evaluation_statistics(inputs)
        if stochastic:
            self.update(mean.real, var.real, inputs.size / inputs.shape[1])
        xhat = (inputs - wide(mean, inputs)) / wide(np.sqrt(var + self.epsilon), inputs)
        outputs = wide(self.gamma, inputs) * xhat + wide(self.beta, inputs)
        self._memory = (inputs, outputs, xhat, self.std_backward(inputs, var), stochastic)
        return outputs

    def statistics(self, inputs):
        mean = per_channel_mean(inputs)
        return mean, per_channel_mean((inputs - wide(mean, inputs)) ** 2)

    def evaluation_statistics(self, inputs):
        return self.running_mean, self.running_var

    def update(self, mean, var, count):
        self.running_mean *= 1 - self.momentum
        self.running_mean += self.momentum * mean
        self.running_var *= 1 - self.momentum
        self.running_var += self.momentum * var * count / (count - 1)

    def std_backward(self, inputs, var):
        return np.sqrt(var + self.epsilon)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        _, _, xhat, std, stochastic = self.remembered(tuple, inputs, outputs)
        grads = self.centred(grads_wrt_outputs, xhat) if stochastic else self.evaluation_grads(grads_wrt_outputs, xhat)
        return wide(self.gamma / std, inputs) * grads

    def centred(self, grads, xhat):
        mean, along = (wide(per_channel_mean(x), grads) for x in (grads, grads * xhat))
        return grads - mean - xhat * along

    def evaluation_grads(self, grads, xhat):
        return grads

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        xhat = self.remembered(tuple, inputs)[2]
        count = inputs.size / inputs.shape[1]
        return [count * per_channel_mean(grads_wrt_outputs * xhat), count * per_channel_mean(grads_wrt_outputs)]


def per_channel_mean(x):
    return x.mean(axis=(0, *range(2, x.ndim)))


def wide(vector, x):
    return vector.reshape(-1, *[1] * (x.ndim - 2))


class NoVarianceTerm(PlainBatchNorm):
    def centred(self, grads, xhat):
        return grads - wide(per_channel_mean(grads), grads)


class NoMeanTerm(PlainBatchNorm):
    def centred(self, grads, xhat):
        return grads - xhat * wide(per_channel_mean(grads * xhat), grads)


class NoXhat(PlainBatchNorm):
    def centred(self, grads, xhat):
        return grads - wide(per_channel_mean(grads), grads) - wide(per_channel_mean(grads * xhat), grads)


class MeanTermAdded(PlainBatchNorm):
    def centred(self, grads, xhat):
        return grads + wide(per_channel_mean(grads), grads) - xhat * wide(per_channel_mean(grads * xhat), grads)


class EvaluationFormulaInTraining(PlainBatchNorm):
    def centred(self, grads, xhat):
        return grads


class TrainingFormulaInEvaluation(PlainBatchNorm):
    def evaluation_grads(self, grads, xhat):
        return self.centred(grads, xhat)


class UnbiasedForward(PlainBatchNorm):
    """The forward pass divides by n - 1, the backward pass is that of n."""

    def statistics(self, inputs):
        mean, var = super().statistics(inputs)
        count = inputs.size / inputs.shape[1]
        return mean, var * count / (count - 1)


class UnbiasedBackward(PlainBatchNorm):
    def std_backward(self, inputs, var):
        count = inputs.size / inputs.shape[1]
        return np.sqrt(var * count / (count - 1) + self.epsilon)


class EvaluatesOnTheBatch(PlainBatchNorm):
    """Evaluation normalises by the batch, and its backward pass knows nothing of it."""

    def evaluation_statistics(self, inputs):
        return self.statistics(inputs)


class EvaluatesOnTheBatchBothWays(EvaluatesOnTheBatch):
    """Consistent, so that every gradient is right."""

    def evaluation_grads(self, grads, xhat):
        return self.centred(grads, xhat)


class EvaluationMovesTheStatistics(PlainBatchNorm):
    def evaluation_statistics(self, inputs):
        mean, var = (statistic.real for statistic in self.statistics(inputs))
        self.update(mean, var, inputs.size / inputs.shape[1])
        return self.running_mean, self.running_var


class EpsilonOutsideTheRoot(PlainBatchNorm):
    def std_backward(self, inputs, var):
        return np.sqrt(var) + self.epsilon


class EpsilonForgotten(PlainBatchNorm):
    def std_backward(self, inputs, var):
        return np.sqrt(var)


class RootForgotten(PlainBatchNorm):
    def std_backward(self, inputs, var):
        return var + self.epsilon


class GammaForgotten(PlainBatchNorm):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / wide(self.gamma, inputs)


class WrongAxes(PlainBatchNorm):
    """The backward pass averages over the pixels of each image alone."""

    def centred(self, grads, xhat):
        mean, along = (x.mean(axis=(2, 3), keepdims=True) for x in (grads, grads * xhat))
        return grads - mean - xhat * along


class DetachedStatistics(PlainBatchNorm):
    """The statistics drop the imaginary part, and with it the complex step; the backward pass forgets them too."""

    def statistics(self, inputs):
        return super().statistics(inputs.real)

    def centred(self, grads, xhat):
        return grads


class GammaWithoutXhat(PlainBatchNorm):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        beta = super().grads_wrt_params(inputs, grads_wrt_outputs)[1]
        return [beta.copy(), beta]


class GammaByOutputs(PlainBatchNorm):
    """The gradient of gamma takes y for xhat."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        outputs = self.remembered(tuple, inputs)[1]
        count = inputs.size / inputs.shape[1]
        return [count * per_channel_mean(grads_wrt_outputs * outputs), count * per_channel_mean(grads_wrt_outputs)]


class GammaAndBetaExchanged(PlainBatchNorm):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(inputs, grads_wrt_outputs)[::-1]


class BetaAveraged(PlainBatchNorm):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        gamma, beta = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [gamma, beta / (inputs.size / inputs.shape[1])]


class BetaForgetsAnAxis(PlainBatchNorm):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        gamma, _ = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [gamma, grads_wrt_outputs.sum(axis=(0, 2))]


class MomentumSwapped(PlainBatchNorm):
    def update(self, mean, var, count):
        for running, new in ((self.running_mean, mean), (self.running_var, var * count / (count - 1))):
            running[...] = self.momentum * running + (1 - self.momentum) * new


class RunningVarianceBiased(PlainBatchNorm):
    def update(self, mean, var, count):
        super().update(mean, var * (count - 1) / count, count)


class RunningDeviation(PlainBatchNorm):
    def update(self, mean, var, count):
        super().update(mean, np.sqrt(var), count)


class NeverUpdated(PlainBatchNorm):
    def update(self, mean, var, count):
        pass


class OnlyTheLastBatch(PlainBatchNorm):
    def update(self, mean, var, count):
        self.running_mean[...] = mean
        self.running_var[...] = var * count / (count - 1)


class CountsImagesForValues(PlainBatchNorm):
    """n / (n - 1) of the running variance with n the batch size, where it is N H W."""

    def fprop(self, inputs, stochastic=True):
        self.images = len(inputs)
        return super().fprop(inputs, stochastic)

    def update(self, mean, var, count):
        super().update(mean, var, self.images)


# Normalisation of examples


class LayerNormWithoutMeanTerm(LayerNormalizationLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = (grads_wrt_outputs * self.gamma).mean(axis=-1, keepdims=True)
        return super().bprop(inputs, outputs, grads_wrt_outputs) + grads * inverse_std(inputs, self.epsilon)


class LayerNormWithoutVarianceTerm(LayerNormalizationLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = grads_wrt_outputs * self.gamma
        return (grads - grads.mean(axis=-1, keepdims=True)) * inverse_std(inputs, self.epsilon)


class LayerNormGammaOutside(LayerNormalizationLayer):
    """gamma taken out of the means, as in batch normalisation, where it is the same for all they run over."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        xhat = (inputs - inputs.mean(axis=-1, keepdims=True)) * inverse_std(inputs, self.epsilon)
        mean, along = (x.mean(axis=-1, keepdims=True) for x in (grads_wrt_outputs, grads_wrt_outputs * xhat))
        return self.gamma * inverse_std(inputs, self.epsilon) * (grads_wrt_outputs - mean - xhat * along)


class LayerNormGammaWithoutXhat(LayerNormalizationLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        beta = super().grads_wrt_params(inputs, grads_wrt_outputs)[1]
        return [beta.copy(), beta]


class GroupNormOtherChannel(GroupNormalizationLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        gamma = wide(self.gamma, inputs)
        return super().bprop(inputs, outputs, grads_wrt_outputs * np.roll(gamma, 1, axis=0) / gamma)


class GroupNormReversedGamma(GroupNormalizationLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        gamma, beta = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [gamma[::-1], beta]


class GroupNormByChannel(GroupNormalizationLayer):
    """The backward pass averages over each channel where it is over each group."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        xhat = (outputs - wide(self.beta, inputs)) / wide(self.gamma, inputs)
        grads = grads_wrt_outputs * wide(self.gamma, inputs)
        mean, along = (x.mean(axis=(2, 3), keepdims=True) for x in (grads, grads * xhat))
        rows = inputs.reshape(-1, self._group_size(inputs))
        grads = (grads - mean - xhat * along).reshape(rows.shape)
        return (grads * inverse_std(rows, self.epsilon)).reshape(inputs.shape)


class LocalResponseWithoutNeighbours(LocalResponseNormalizationLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self._scales(inputs) ** -self.beta


class LocalResponseSquareForgotten(LocalResponseNormalizationLayer):
    """The factor 2 of d(x^2) is missing in the second term."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        first = grads_wrt_outputs * self._scales(inputs) ** -self.beta
        return first + (super().bprop(inputs, outputs, grads_wrt_outputs) - first) / 2


def inverse_std(inputs, epsilon):
    return 1 / np.sqrt(inputs.var(axis=-1, keepdims=True) + epsilon)


# Convolution


class Convolution(Halves, Convolution2DLayer):
    """Right; its backward pass in two halves."""


class KernelAxesTransposed(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels.swapaxes(2, 3), biases]


class KernelChannelsTransposed(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels.swapaxes(0, 1), biases]


class KernelsNotTurned(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        kernels = self.kernels[:, :, ::-1, ::-1]
        return conv_grad_inputs(grads_wrt_outputs, kernels, self.geometry, inputs.shape[2:])


class KernelGradientNotTurned(Halves, ConvolutionalLayer):
    """The gradient of a true convolution's kernels, as that of a cross-correlation."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels[:, :, ::-1, ::-1], biases]


class BorderRowLost(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        grads[:, :, 0] = 0
        return grads


class BorderColumnLost(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        grads[:, :, :, -1] = 0
        return grads


class DilationIgnored(Convolution):
    """The backward pass has kernels without gaps, in the middle of where they belong."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        geometry = self.geometry._replace(dilation=(1, 1), padding=((1, 1), (1, 1)))
        return conv_grad_inputs(grads_wrt_outputs, self.kernels, geometry, inputs.shape[2:])


class DilationIgnoredInKernels(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        geometry = self.geometry._replace(dilation=(1, 1), padding=((1, 1), (1, 1)))
        biases = grads_wrt_outputs.sum(axis=(0, 2, 3))
        return [conv_grad_kernels(inputs, grads_wrt_outputs, geometry), biases]


class StrideIgnored(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        geometry = self.geometry._replace(stride=(1, 1))
        return conv_grad_inputs(grads_wrt_outputs, self.kernels, geometry, inputs.shape[2:])


class StridesExchanged(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        geometry = self.geometry._replace(stride=self.geometry.stride[::-1])
        return conv_grad_inputs(grads_wrt_outputs, self.kernels, geometry, inputs.shape[2:])


class PaddingForgotten(Convolution):
    """The gradient lands one row and one column further."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        geometry = self.geometry._replace(padding=((0, 0), (0, 0)))
        return conv_grad_inputs(grads_wrt_outputs, self.kernels, geometry, inputs.shape[2:])


class PaddingOffByOne(Convolution):
    """The kernels' gradient pairs each pixel with its neighbour's output."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        geometry = self.geometry._replace(padding=((1, 1), (0, 2)))
        biases = grads_wrt_outputs.sum(axis=(0, 2, 3))
        return [conv_grad_kernels(inputs, grads_wrt_outputs, geometry), biases]


class ConvBiasAveragedOverTheBatch(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, biases / len(inputs)]


class ConvBiasAveragedOverPixels(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, _ = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, grads_wrt_outputs.mean(axis=(2, 3)).sum(axis=0)]


class ConvBiasAveraged(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, _ = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, grads_wrt_outputs.mean(axis=(0, 2, 3))]


class ConvBiasForgetsAnAxis(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, _ = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, grads_wrt_outputs.sum(axis=(0, 2))]


class ConvBiasKeepsAxes(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, _ = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, grads_wrt_outputs.sum(axis=(0, 2, 3), keepdims=True)]


class ConvBiasOfOneRow(Convolution):
    """The bias gradient counts the last row twice and the first not at all."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, biases + (grads_wrt_outputs[:, :, -1] - grads_wrt_outputs[:, :, 0]).sum(axis=(0, 2))]


class ChannelsReversed(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs)[:, ::-1]


class GroupsCrossed(Convolution):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        half = inputs.shape[1] // 2
        return np.roll(super().bprop(inputs, outputs, grads_wrt_outputs), half, axis=1)


class GroupsCrossedInKernels(Convolution):
    """Each group's kernels get the gradient of the other group's inputs."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(np.roll(inputs, inputs.shape[1] // 2, axis=1), grads_wrt_outputs)


class LastImageForgotten(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, _ = super().grads_wrt_params(inputs[:-1], grads_wrt_outputs[:-1])
        return [kernels, grads_wrt_outputs.sum(axis=(0, 2, 3))]


class AssignedNotAdded(Convolution):
    """Windows overlap: what they put back must be added."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        _, _, height, width = self.kernels.shape
        for i in range(outputs.shape[2]):
            for j in range(outputs.shape[3]):
                window = np.einsum("nk,kcuv->ncuv", grads_wrt_outputs[:, :, i, j], self.kernels)
                grads[:, :, i : i + height, j : j + width] = window
        return grads


class ConvPenaltyForgotten(Convolution):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels = conv_grad_kernels(inputs, grads_wrt_outputs, self.geometry)
        return [kernels, grads_wrt_outputs.sum(axis=(0, 2, 3))]


class OutputPaddingIgnored(ConvolutionTranspose2DLayer):
    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(inputs, self._without_extra(grads_wrt_outputs))

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, self._without_extra(grads_wrt_outputs))

    def _without_extra(self, grads):
        grads, (rows, columns) = grads.copy(), self.output_padding
        grads[:, :, grads.shape[2] - rows :] = 0
        grads[:, :, :, grads.shape[3] - columns :] = 0
        return grads


class TransposedKernelsTurned(ConvolutionTranspose2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        turned = ConvolutionTranspose2DLayer(*self.kernels.shape[:2], self.kernels.shape[2:], self.geometry.stride)
        turned.params = [self.kernels[:, :, ::-1, ::-1], self.biases]
        return turned.bprop(inputs, outputs, grads_wrt_outputs)


class TransposedBiasAveraged(ConvolutionTranspose2DLayer):
    """The bias gradient is averaged over the outputs' pixels."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        kernels, _ = super().grads_wrt_params(inputs, grads_wrt_outputs)
        return [kernels, grads_wrt_outputs.mean(axis=(2, 3)).sum(axis=0)]


# Pooling


class MaxToAllTies(MaxPooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        for windows, pixels in self._places(inputs):
            grads[pixels] += (inputs[pixels] == outputs[windows]) * grads_wrt_outputs[windows]
        return grads


class MaxToNoTies(MaxPooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        ties = sum(inputs[pixels] == outputs[windows] for windows, pixels in self._places(inputs))
        return super().bprop(inputs, outputs, np.where(ties > 1, 0, grads_wrt_outputs))


class MaxToTheLastTie(MaxPooling2DLayer):
    """Right: of tied maxima any one may have the gradient."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        turned = inputs[:, :, ::-1, ::-1], outputs[:, :, ::-1, ::-1], grads_wrt_outputs[:, :, ::-1, ::-1]
        return super().bprop(*turned)[:, :, ::-1, ::-1]


class MaxToTheLastPlace(MaxPooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        windows, pixels = self._places(inputs)[-1]
        grads[pixels] = grads_wrt_outputs[windows]
        return grads


class MaxToTheWholeWindow(MaxPooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        for windows, pixels in self._places(inputs):
            grads[pixels] += grads_wrt_outputs[windows]
        return grads


class MaxAssigned(MaxPooling2DLayer):
    """Overlapping windows that share a maximum: the last one wins."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        for windows, pixels in self._places(inputs):
            here = inputs[pixels] == outputs[windows]
            grads[pixels] = np.where(here, grads_wrt_outputs[windows], grads[pixels])
        return grads


class MaxOfAbsolutes(MaxPooling2DLayer):
    """The backward pass looks for the largest absolute value."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        largest = super().fprop(np.abs(inputs))
        return super().bprop(np.abs(inputs), largest, grads_wrt_outputs)


class AverageNotDivided(AveragePooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) * np.prod(self.size)


class AverageDividedTwice(AveragePooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / np.prod(self.size)


class AverageDividedByTheSide(AveragePooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) * self.size[0]


class AverageCountsPadding(AveragePooling2DLayer):
    """The backward pass divides by the other number of places."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        other = AveragePooling2DLayer(
            self.size, self.stride, self.geometry.padding, count_include_pad=not self.count_include_pad
        )
        return other.bprop(inputs, outputs, grads_wrt_outputs)


class GlobalAverageDividedByTheBatch(GlobalAveragePooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / len(inputs)


class GlobalAverageNotDivided(GlobalAveragePooling2DLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) * np.prod(inputs.shape[2:])


# Dropout


class DroppedScaledTwice(DropoutLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / self.incl_prob


class DroppedNotScaled(DropoutLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) * self.incl_prob


class DroppedByAnotherMask(DropoutLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * (self.rng.uniform(size=inputs.shape) < self.incl_prob)


class DroppedInEvaluation(DropoutLayer):
    """The backward pass drops in evaluation mode too."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        known = super().bprop(inputs, outputs, np.ones_like(grads_wrt_outputs))
        if (known == self.incl_prob).all():
            known = np.random.default_rng(0).uniform(size=known.shape) < self.incl_prob
        return grads_wrt_outputs * known


class MaskForgotten(DropoutLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs * self.incl_prob


class MaskOfTheComplement(DropoutLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return grads_wrt_outputs - super().bprop(inputs, outputs, grads_wrt_outputs)


# Layers of layers


class IdentityForgotten(ResidualLayer):
    def _backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs):
        return ChainLayer._backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs)


class BranchForgotten(ResidualLayer):
    def _backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs):
        _, params = super()._backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return grads_wrt_outputs.copy(), params


class IdentityTwice(ResidualLayer):
    def _backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs):
        grads, params = super()._backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return (None if grads is None else grads + grads_wrt_outputs), params


class GradientsInReverse(ChainLayer):
    """The chain hands out its layers' gradients from last to first."""

    def _backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs):
        grads, params = super()._backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return grads, [*params[2:], *params[:2]]


class SlicesExchanged(ConcatenationLayer):
    def _shares(self, parts, grads_wrt_outputs):
        return super()._shares(parts, grads_wrt_outputs)[::-1]


class OneSliceForAll(ConcatenationLayer):
    def _shares(self, parts, grads_wrt_outputs):
        first, *_ = super()._shares(parts, grads_wrt_outputs)
        return [first] * len(parts)


class SharesHalved(AdditionLayer):
    def _shares(self, parts, grads_wrt_outputs):
        return [share / len(parts) for share in super()._shares(parts, grads_wrt_outputs)]


class FactorNotTransposed(MatrixProductLayer):
    def _shares(self, parts, grads_wrt_outputs):
        left, right = parts
        return [grads_wrt_outputs @ right, left.swapaxes(-1, -2) @ grads_wrt_outputs]


class FactorsExchanged(MatrixProductLayer):
    def _shares(self, parts, grads_wrt_outputs):
        return super()._shares(parts, grads_wrt_outputs)[::-1]


# Broken promises: the gradients of the first call are right


class TwoTongues(AffineLayer):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        return grads_wrt_outputs @ self.weights, super().grads_wrt_params(inputs, grads_wrt_outputs)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return [3 * grad for grad in super().grads_wrt_params(inputs, grads_wrt_outputs)]


class OtherBprop(Convolution2DLayer):
    """`backprop` is right, `bprop` loses a row."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        grads[:, :, 0] = 0
        return grads


class OtherWithoutInputs(AffineLayer):
    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, params = super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        return grads, params if need_inputs else [param / len(inputs) for param in params]


class InPlaceForward(LeakyReluLayer):
    def fprop(self, inputs):
        inputs[inputs.real < 0] *= self.alpha
        return inputs.copy()


class InPlaceBackward(ReluLayer):
    """The backward pass sets the upstream gradient to 0 where x < 0, and returns it."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads_wrt_outputs[inputs <= 0] = 0
        return grads_wrt_outputs


class InPlaceInputsBackward(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        inputs[...] = (1 - outputs**2) * grads_wrt_outputs
        return inputs.copy()


class InPlaceOutputs(SigmoidLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = grads_wrt_outputs * outputs * (1 - outputs)
        outputs *= 1 - outputs
        return grads


class StepsInBackward(AffineLayer):
    """The backward pass updates the parameters by itself."""

    def backprop(self, inputs, outputs, grads_wrt_outputs, need_inputs=True):
        grads, params = super().backprop(inputs, outputs, grads_wrt_outputs, need_inputs)
        self.weights -= 0.1 * params[0]
        return grads, params


class StepsInForward(AffineLayer):
    """The forward pass shrinks the weights."""

    def fprop(self, inputs):
        outputs = super().fprop(inputs)
        self.weights *= 0.999
        return outputs


class AccumulatedGradients(AffineLayer):
    """Gradients are added to those of the calls before, and nobody sets them to zero."""

    total = 0

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        weights, biases = super().grads_wrt_params(inputs, grads_wrt_outputs)
        self.total = self.total + weights
        return [self.total.copy(), biases]


class CountsCalls(TanhLayer):
    calls = 0

    def fprop(self, inputs):
        self.calls += 1
        return super().fprop(inputs)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return super().bprop(inputs, outputs, grads_wrt_outputs) / self.calls


class UsedUpMask(DropoutLayer):
    """The backward pass turns the mask that it remembers into a gradient, in place."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        factors = np.broadcast_to(self._memory.factors, inputs.shape).astype(np.float64)
        self._memory = self._memory._replace(factors=factors * grads_wrt_outputs)
        return grads_wrt_outputs * factors


class FirstBatchKept(TanhLayer):
    """What the first batch left behind is never replaced."""

    slopes = None

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        if self.slopes is None:
            self.slopes = 1 - outputs**2
        return self.slopes * grads_wrt_outputs


class HiddenCache(TanhLayer):
    """The backward pass is that of the last forward pass, whatever it is handed."""

    def fprop(self, inputs):
        self.cached = super().fprop(inputs)
        return self.cached

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1 - self.cached**2) * grads_wrt_outputs


class HiddenCacheOfParams(AffineLayer):
    """Only the gradient of the weights depends on the hidden inputs."""

    def fprop(self, inputs):
        self.cached = inputs
        return super().fprop(inputs)

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        return super().grads_wrt_params(self.cached, grads_wrt_outputs)


class OneBuffer(TanhLayer):
    """Every forward pass writes into the same array, also when the last result is still in use."""

    buffer = None

    def fprop(self, inputs):
        if self.buffer is None or self.buffer.shape != inputs.shape or self.buffer.dtype != inputs.dtype:
            self.buffer = np.empty_like(inputs)
        return np.tanh(inputs, out=self.buffer)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1 - outputs**2) * grads_wrt_outputs


class OneBufferOfSums(AffineLayer):
    """As `OneBuffer`, where the backward pass does not look at the outputs."""

    buffer = None

    def fprop(self, inputs):
        outputs = super().fprop(inputs)
        if self.buffer is None or self.buffer.shape != outputs.shape or self.buffer.dtype != outputs.dtype:
            self.buffer = np.empty_like(outputs)
        self.buffer[...] = outputs
        return self.buffer


class OneGradientBuffer(TanhLayer):
    """As `OneBuffer`, in the backward pass."""

    buffer = None

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        if self.buffer is None or self.buffer.shape != inputs.shape:
            self.buffer = np.empty_like(inputs)
        self.buffer[...] = super().bprop(inputs, outputs, grads_wrt_outputs)
        return self.buffer


class NewRandomNumbers(TanhLayer):
    """Noise that no seed governs."""

    def fprop(self, inputs):
        return super().fprop(inputs) + 1e-3 * np.random.default_rng().standard_normal(inputs.shape)


class ReadsMemory(TanhLayer):
    """Takes the numbers in the order of memory for that of the axes."""

    def fprop(self, inputs):
        return np.tanh(inputs.ravel("K").reshape(inputs.shape))

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1 - outputs**2) * grads_wrt_outputs


class ReadsMemoryBackward(TanhLayer):
    def bprop(self, inputs, outputs, grads_wrt_outputs):
        return (1 - outputs**2) * grads_wrt_outputs.ravel("K").reshape(outputs.shape)


class AssumesStrides(Layer):
    """The sum of neighbours, by strides that only C order has."""

    def fprop(self, inputs):
        n, d = inputs.shape
        step = inputs.itemsize
        pairs = np.lib.stride_tricks.as_strided(inputs, (n, d - 1, 2), (inputs.strides[0], step, step))
        return pairs.sum(axis=2)

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.zeros_like(inputs)
        grads[:, :-1] += grads_wrt_outputs
        grads[:, 1:] += grads_wrt_outputs
        return grads


class ReshapesForTransposing(Layer):
    """The gradient of the Fortran order is laid out by the memory of the inputs: right for C order alone."""

    def fprop(self, inputs):
        return inputs * 2.0

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = np.empty_like(inputs)
        grads.ravel("K")[...] = 2.0 * grads_wrt_outputs.ravel()
        return grads


class RaisesForOne(AffineLayer):
    """The backward pass of a batch of 1 fails, which the forward pass took."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        if len(inputs) == 1:
            raise ValueError("a batch of 1 has no second example")
        return super().bprop(inputs, outputs, grads_wrt_outputs)


class EvenBatchesOnly(AffineLayer):
    """Works on the batch in two halves, and loses the last example of an odd one."""

    def grads_wrt_params(self, inputs, grads_wrt_outputs):
        even = 2 * (len(inputs) // 2)
        first, second = (grads_wrt_outputs[i:even:2].T @ inputs[i:even:2] for i in (0, 1))
        return [first + second, grads_wrt_outputs.sum(axis=0)]


class SqueezedSingle(Layer):
    """The sum over the last axis, where `squeeze` takes a batch of 1 for an axis too many."""

    def fprop(self, inputs):
        return inputs.sum(axis=2, keepdims=True).squeeze()

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = grads_wrt_outputs.reshape(*inputs.shape[:2], 1)
        return np.broadcast_to(grads, inputs.shape).copy()


class SingleNotDivided(TanhLayer):
    """Takes a batch of 1 for an example without a batch axis, and forgets the derivative."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        if len(inputs) == 1:
            return grads_wrt_outputs.copy()
        return super().bprop(inputs, outputs, grads_wrt_outputs)


class ChunksOfTwo(Convolution):
    """Images two at a time, the last one of an odd batch left out."""

    def bprop(self, inputs, outputs, grads_wrt_outputs):
        grads = super().bprop(inputs, outputs, grads_wrt_outputs)
        grads[2 * (len(grads) // 2) :] = 0
        return grads


# Errors


class CrossEntropyNotDivided(errors.CrossEntropySoftmaxError):
    def grad(self, outputs, targets):
        return super().grad(outputs, targets) * len(outputs)


class CrossEntropySummed(errors.CrossEntropySoftmaxError):
    """Neither the value nor the gradient is divided by N."""

    def __call__(self, outputs, targets):
        return super().__call__(outputs, targets) * len(outputs)

    def grad(self, outputs, targets):
        return super().grad(outputs, targets) * len(outputs)


class CrossEntropyNegated(errors.CrossEntropySoftmaxError):
    def grad(self, outputs, targets):
        return -super().grad(outputs, targets)


class CrossEntropyOfTheTargetAlone(errors.CrossEntropySoftmaxError):
    """The gradient forgets softmax(y)."""

    def grad(self, outputs, targets):
        return -np.eye(outputs.shape[1])[targets] / len(outputs)


class CrossEntropyPartlyDivided(errors.CrossEntropySoftmaxError):
    """softmax(y) - t / N."""

    def grad(self, outputs, targets):
        return softmax(outputs, axis=1) - np.eye(outputs.shape[1])[targets] / len(outputs)


class CrossEntropyOverTheBatch(errors.CrossEntropySoftmaxError):
    """Softmax over axis 0 in the gradient."""

    def grad(self, outputs, targets):
        return (softmax(outputs, axis=0) - np.eye(outputs.shape[1])[targets]) / len(outputs)


class CrossEntropyInBits(errors.CrossEntropySoftmaxError):
    def __call__(self, outputs, targets):
        return super().__call__(outputs, targets) / np.log(2)


class ClassWeightsForgotten(errors.CrossEntropySoftmaxError):
    def grad(self, outputs, targets):
        return errors.CrossEntropySoftmaxError().grad(outputs, targets)


class IgnoredLabelsCounted(errors.CrossEntropySoftmaxError):
    """The gradient is that of all labels, the ignored ones too."""

    def grad(self, outputs, targets):
        return errors.CrossEntropySoftmaxError().grad(outputs, targets)


class IgnoredLabelsInTheMean(errors.CrossEntropySoftmaxError):
    """The gradient is divided by all examples, the ignored ones too."""

    def grad(self, outputs, targets):
        return super().grad(outputs, targets) * (targets != self.ignore_label).sum() / len(targets)


class SquaresWithoutHalf(errors.SumOfSquaredDiffsError):
    def grad(self, outputs, targets):
        return 2 * (outputs - targets) / len(outputs)


class SquaresDividedByAll(errors.SumOfSquaredDiffsError):
    def grad(self, outputs, targets):
        return (outputs - targets) / outputs.size


class SquaresTargetsForgotten(errors.SumOfSquaredDiffsError):
    def grad(self, outputs, targets):
        return outputs / len(outputs)


class BinaryForgetsNo(errors.BinaryCrossEntropyError):
    def grad(self, outputs, targets):
        return -targets / outputs / len(outputs)


class ProbabilitiesMultiplied(errors.CrossEntropyError):
    """-t y where it is -t / y."""

    def grad(self, outputs, targets):
        return -targets * outputs / len(outputs)


class PerExampleSquares(errors.SumOfSquaredDiffsError):
    """The value is an array, one number an example, that nobody summed up."""

    def __call__(self, outputs, targets):
        return 0.5 * ((outputs - targets) ** 2).sum(axis=1) / len(outputs)


class ChangesOutputs(errors.CrossEntropySoftmaxError):
    def __call__(self, outputs, targets):
        outputs -= outputs.max(axis=1, keepdims=True)
        return -np.mean(log_softmax(outputs, axis=1)[np.arange(len(targets)), targets])


class ChangesTargets(errors.SumOfSquaredDiffsError):
    def grad(self, outputs, targets):
        targets -= outputs
        return -targets / len(outputs)


class GradientOfTheSum(errors.SumOfSquaredDiffsError):
    def grad(self, outputs, targets):
        return super().grad(outputs, targets).sum(axis=0)


class RunningAverage(errors.SumOfSquaredDiffsError):
    """The value is smoothed over the calls."""

    last = None

    def __call__(self, outputs, targets):
        value = super().__call__(outputs, targets)
        self.last = value if self.last is None else 0.9 * self.last + 0.1 * value
        return self.last


# Penalties


class L2Twice(penalties.L2Penalty):
    def grad(self, parameter):
        return 2 * self.coefficient * parameter


class L2ValueWithoutHalf(penalties.L2Penalty):
    def __call__(self, parameter):
        return self.coefficient * (parameter * parameter).sum()


class L2CoefficientForgotten(penalties.L2Penalty):
    def grad(self, parameter):
        return parameter.copy()


class L2Averaged(penalties.L2Penalty):
    def grad(self, parameter):
        return super().grad(parameter) / parameter.size


class L1WithoutSign(penalties.L1Penalty):
    def grad(self, parameter):
        return np.full_like(parameter, self.coefficient)


class L1LikeL2(penalties.L1Penalty):
    def grad(self, parameter):
        return self.coefficient * parameter


class L1Negated(penalties.L1Penalty):
    def grad(self, parameter):
        return -super().grad(parameter)


class ChangesTheParameter(penalties.L2Penalty):
    def grad(self, parameter):
        parameter *= self.coefficient
        return parameter
