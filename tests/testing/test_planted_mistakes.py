"""The checker is checked: classic mistakes are planted one by one, and it must find each and name the right thing."""

import copy
import inspect
import re
from typing import Any, NamedTuple

import numpy as np
import pytest

from mlp import layers, penalties
from mlp.errors import CrossEntropySoftmaxError
from mlp.models import MultipleLayerModel
from mlp.testing import GradientError, check_gradients
from tests.testing import mistakes as m
from tests.testing import right_layers
from tests.testing.formulas import check_running_statistics

COMPLEX, CENTRAL = "complex step", "central differences"
RNG = np.random.default_rng
UNKNOWN = r"^no simple relation between both$|^\d+ of \d+ entries are wrong(, they are 0)?$"
TIMES = r"^it is {} times the right one"
NEARLY = "^it agrees to some digits: a cast to float32, or a small constant"
TRAINING, EVALUATION, BOTH_MODES = ("training",), ("evaluation",), ("training", "evaluation")

ROWS, IMAGES, POOLED = (5, 3), (3, 2, 5, 4), (3, 2, 4, 6)
LABELS, OUTPUTS, TARGETS = np.array([0, 3, 1, 1, 2]), RNG(3).standard_normal((5, 4)), RNG(4).standard_normal((5, 4))
PROBABILITIES = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(axis=1, keepdims=True)
PARAMETER = RNG(5).standard_normal((4, 3))
L1, L2 = penalties.L1Penalty(0.2), penalties.L2Penalty(0.3)


class Planted(NamedTuple):
    """A mistake: the wrong subject, its inputs, and for each array whose gradient is wrong the cause, as a pattern.

    `blind` names the method that does not see it, if it is used alone.
    """

    subject: Any
    inputs: Any
    wrong: dict[str, str]
    modes: tuple[str, ...] = ("both",)
    targets: Any = None
    blind: str | None = None


def _init(shape):
    return RNG(6).standard_normal(shape)


def _affine(kind, inputs=3, outputs=4, **options):
    return kind(inputs, outputs, _init, _init, **options)


def _conv(kind, *args, **options):
    return kind(*args, kernels_init=_init, biases_init=_init, **options)


def _norm(kind, *args):
    layer = kind(*args)
    layer.params = [RNG(1).uniform(0.5, 2.0, 4), RNG(2).standard_normal(4)]
    return layer


def _branch():
    return [_affine(layers.AffineLayer, 3, 3), layers.TanhLayer()]


GRADIENTS = [
    Planted(m.SigmoidPlus(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.SigmoidOfTheOutputs(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.TanhUnsquared(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.TanhWithoutDerivative(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.TanhOfGradients(), ROWS, {"inputs": "the upstream gradient is forgotten"}),
    Planted(m.NegatedTanh(), ROWS, {"inputs": "^the sign is wrong$"}),
    Planted(m.ReluOnTheWrongSide(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.ReluLetsAllPass(), ROWS, {"inputs": "^8 of 15 entries are wrong$"}),
    Planted(m.ReluOfGradients(), ROWS, {"inputs": "^6 of 15 entries are wrong, they are 0$"}),
    Planted(m.LeakForgotten(0.1), ROWS, {"inputs": "^8 of 15 entries are wrong, they are 0$"}),
    Planted(m.LeakOnBothSides(0.1), ROWS, {"inputs": "^7 of 15 entries are wrong$"}),
    Planted(m.EluAlphaForgotten(1.5), ROWS, {"inputs": "^8 of 15 entries are wrong$"}),
    Planted(m.EluOfTheInputs(1.5), ROWS, {"inputs": "^8 of 15 entries are wrong$"}),
    Planted(m.SeluGammaForgotten(), ROWS, {"inputs": TIMES.format("0.951746")}),
    Planted(m.SoftsignUnsquared(), ROWS, {"inputs": UNKNOWN}, blind=COMPLEX),
    Planted(m.SquaredPart(), ROWS, {"inputs": "^it is half the right one: a factor 2 is missing$"}, blind=COMPLEX),
    Planted(m.DiagonalSoftmax(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.SoftmaxWithoutSum(), ROWS, {"inputs": "missing or wrong: the difference goes with the outputs.* a sum"}),
    Planted(m.SoftmaxOverTheBatch(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.SoftmaxOverTheLastAxis(1), (2, 4, 3), {"inputs": UNKNOWN}),
    Planted(m.LogSoftmaxWithoutSum(), ROWS, {"inputs": UNKNOWN}),
    Planted(m.LogSoftmaxSumsNothing(), ROWS, {"inputs": UNKNOWN}),
    Planted(_affine(m.AveragedBias), ROWS, {"biases": "^it is divided by the batch size, 5: averaged"}),
    Planted(_affine(m.AveragedWeights), ROWS, {"weights": "^it is divided by the batch size, 5: averaged"}),
    Planted(_affine(m.NormalisedInputsGradient), ROWS, {"inputs": "^it is divided by the batch size, 5: averaged"}),
    Planted(_affine(m.RowsPairedWrongly, 3, 3), ROWS, {"inputs": UNKNOWN}),
    Planted(_affine(m.TransposedWeights, 3, 3), ROWS, {"weights": "transposed: axes 0 and 1 are exchanged"}),
    Planted(_affine(m.NoWeights), ROWS, {"weights": "^it is all zeros: the gradient is missing$"}),
    Planted(_affine(m.NegatedWeights), ROWS, {"weights": "^the sign is wrong$"}),
    Planted(_affine(m.FirstExampleOnly), ROWS, {"weights": UNKNOWN}),
    Planted(_affine(m.OneWrongWeight, 50, 40), (3, 50), {"weights": UNKNOWN}),
    Planted(_affine(m.MadeUp), ROWS, {"inputs": UNKNOWN, "weights": UNKNOWN, "biases": UNKNOWN}),
    Planted(_affine(m.NotANumber), ROWS, {"biases": "^it holds numbers that are not finite$"}),
    Planted(_affine(m.RoundedGradient), ROWS, {"weights": NEARLY}, blind=CENTRAL),
    Planted(_affine(m.PenaltyForgotten, weights_penalty=L2), ROWS, {"weights": "an L2 penalty is missing"}),
    Planted(_affine(m.PenaltyForgotten, weights_penalty=L1), ROWS, {"weights": "an L1 penalty is missing"}),
    Planted(_affine(m.PenaltyTwice, weights_penalty=L2), ROWS, {"weights": "L2 penalty.*(twice|too often|too much)"}),
    Planted(_affine(m.PenaltyTwice, weights_penalty=L1), ROWS, {"weights": "L1 penalty.*(twice|too often|too much)"}),
    Planted(_affine(m.PenaltyInBprop, weights_penalty=L2), ROWS, {"weights": "L2 penalty.*(twice|too often|too much)"}),
    Planted(_affine(m.PenaltyWithoutValue, weights_penalty=L2), ROWS, {"weights": "L2 .*(too often|too much)"}),
    Planted(_affine(m.PenaltyAveraged, weights_penalty=L2), ROWS, {"weights": "L2 penalty"}),
    Planted(m.NoVarianceTerm(3), ROWS, {"inputs": "missing or wrong: .*centred inputs.* a variance"}, TRAINING),
    Planted(m.NoVarianceTerm(2), IMAGES, {"inputs": "missing or wrong: .*centred inputs.* a variance"}, TRAINING),
    Planted(m.NoMeanTerm(3), ROWS, {"inputs": "missing or wrong: .*the way through a mean"}, TRAINING),
    Planted(m.NoMeanTerm(2), IMAGES, {"inputs": "missing or wrong: .*the way through a mean"}, TRAINING),
    Planted(m.MeanTermAdded(3), ROWS, {"inputs": "the way through a mean"}, TRAINING),
    Planted(m.NoXhat(3), ROWS, {"inputs": UNKNOWN}, TRAINING),
    Planted(m.EvaluationFormulaInTraining(3), ROWS, {"inputs": UNKNOWN}, TRAINING),
    Planted(m.TrainingFormulaInEvaluation(3), ROWS, {"inputs": UNKNOWN}, EVALUATION),
    Planted(m.UnbiasedForward(3), ROWS, {"inputs": "the way through a variance"}, TRAINING),
    Planted(m.UnbiasedForward(2), IMAGES, {"inputs": "the way through a variance"}, TRAINING),
    Planted(m.UnbiasedBackward(3), ROWS, {"inputs": r"the root of \(n - 1\) / n times .*, n = 5$"}, BOTH_MODES),
    Planted(m.UnbiasedBackward(2), IMAGES, {"inputs": r"the root of \(n - 1\) / n times .*, n = 60$"}, BOTH_MODES),
    Planted(m.EvaluatesOnTheBatch(3), ROWS, {"inputs": UNKNOWN}, EVALUATION),
    Planted(m.EpsilonOutsideTheRoot(3), ROWS, {"inputs": NEARLY}, BOTH_MODES),
    Planted(m.EpsilonOutsideTheRoot(3, epsilon=0.1), ROWS, {"inputs": UNKNOWN + "|axis 1|channel"}, BOTH_MODES),
    Planted(m.EpsilonForgotten(3), ROWS, {"inputs": NEARLY}, BOTH_MODES),
    Planted(m.EpsilonForgotten(3, epsilon=1e-7), ROWS, {"inputs": NEARLY}, BOTH_MODES, blind=CENTRAL),
    Planted(m.RootForgotten(3), ROWS, {"inputs": UNKNOWN + "|axis 1|channel"}, BOTH_MODES),
    Planted(m.GammaForgotten(2), IMAGES, {"inputs": UNKNOWN + "|axis 1|channel"}, BOTH_MODES),
    Planted(m.WrongAxes(2), IMAGES, {"inputs": UNKNOWN}, TRAINING),
    Planted(m.DetachedStatistics(3), ROWS, {"inputs": UNKNOWN}, TRAINING, blind=COMPLEX),
    Planted(m.GammaWithoutXhat(3), ROWS, {"gamma": UNKNOWN + "|beta"}, BOTH_MODES),
    Planted(m.GammaByOutputs(3), ROWS, {"gamma": UNKNOWN}, BOTH_MODES),
    Planted(
        m.GammaAndBetaExchanged(3),
        ROWS,
        {"gamma": UNKNOWN + "|that of beta", "beta": UNKNOWN + "|that of gamma"},
        BOTH_MODES,
    ),
    Planted(m.BetaAveraged(3), ROWS, {"beta": "^it is divided by the batch size, 5: averaged"}, BOTH_MODES),
    Planted(m.BetaAveraged(2), IMAGES, {"beta": "^it is divided by the batch size times the .*, 60: "}, BOTH_MODES),
    Planted(_norm(m.LayerNormWithoutMeanTerm, 4), (5, 4), {"inputs": "constant within an example, .* its mean"}),
    Planted(_norm(m.LayerNormWithoutMeanTerm, 4), (2, 3, 4), {"inputs": UNKNOWN + "|the way through a mean"}),
    Planted(_norm(m.LayerNormWithoutVarianceTerm, 4), (5, 4), {"inputs": "centred within each example, .* variance"}),
    Planted(_norm(m.LayerNormGammaOutside, 4), (5, 4), {"inputs": UNKNOWN}),
    Planted(_norm(m.LayerNormGammaWithoutXhat, 4), (5, 4), {"gamma": UNKNOWN + "|beta"}),
    Planted(_norm(m.GroupNormOtherChannel, 2, 4), (2, 4, 3, 2), {"inputs": UNKNOWN}),
    Planted(_norm(m.GroupNormReversedGamma, 2, 4), (2, 4, 3, 2), {"gamma": r"with axes \[0\] reversed$"}),
    Planted(_norm(m.GroupNormByChannel, 2, 4), (2, 4, 3, 2), {"inputs": UNKNOWN}),
    Planted(m.LocalResponseWithoutNeighbours(3, 0.9), (2, 4, 3, 2), {"inputs": UNKNOWN}),
    Planted(m.LocalResponseSquareForgotten(3, 0.9), (2, 4, 3, 2), {"inputs": UNKNOWN}),
    Planted(_conv(m.KernelAxesTransposed, 2, 4, 3), IMAGES, {"kernels": "transposed: axes 2 and 3 are exchanged"}),
    Planted(_conv(m.KernelChannelsTransposed, 2, 2, 3), IMAGES, {"kernels": "transposed: axes 0 and 1 are exchanged"}),
    Planted(_conv(m.KernelsNotTurned, 2, 4, 3, padding=1), IMAGES, {"inputs": UNKNOWN}),
    Planted(_conv(m.KernelGradientNotTurned, 2, 4, 5, 4, 3, 2), IMAGES, {"kernels": r"with axes \[2, 3\] reversed$"}),
    Planted(_conv(m.BorderRowLost, 2, 4, 3, padding=1), IMAGES, {"inputs": "^only index 0 of axis 2 .*a border"}),
    Planted(_conv(m.BorderColumnLost, 2, 4, 3, padding=1), IMAGES, {"inputs": "^only index 3 of axis 3 .*a border"}),
    Planted(_conv(m.DilationIgnored, 2, 4, 3, padding=2, dilation=2), IMAGES, {"inputs": UNKNOWN}),
    Planted(_conv(m.DilationIgnoredInKernels, 2, 4, 3, padding=2, dilation=2), IMAGES, {"kernels": UNKNOWN}),
    Planted(_conv(m.StrideIgnored, 2, 4, 3, stride=2), IMAGES, {"inputs": UNKNOWN}),
    Planted(_conv(m.StridesExchanged, 2, 4, 1, stride=(2, 1)), IMAGES, {"inputs": UNKNOWN}),
    Planted(_conv(m.PaddingForgotten, 2, 4, 3, padding=1), IMAGES, {"inputs": UNKNOWN}),
    Planted(_conv(m.PaddingOffByOne, 2, 4, 3, padding=1), IMAGES, {"kernels": UNKNOWN}),
    Planted(_conv(m.ConvBiasAveragedOverTheBatch, 2, 4, 3), IMAGES, {"biases": "^it is divided by the batch size, 3"}),
    Planted(
        _conv(m.ConvBiasAveragedOverPixels, 2, 4, 3),
        IMAGES,
        {"biases": "^it is divided by .* of pixels of the outputs, 6: "},
    ),
    Planted(
        _conv(m.ConvBiasAveraged, 2, 4, 3),
        IMAGES,
        {"biases": "by the batch size times the number of pixels of the outputs, 18"},
    ),
    Planted(_conv(m.ConvBiasOfOneRow, 2, 4, 3), IMAGES, {"biases": UNKNOWN}),
    Planted(_conv(m.ChannelsReversed, 2, 4, 3), IMAGES, {"inputs": r"with axes \[1\] reversed$"}),
    Planted(_conv(m.GroupsCrossed, 4, 2, 3, groups=2), (2, 4, 5, 4), {"inputs": UNKNOWN}),
    Planted(_conv(m.GroupsCrossedInKernels, 4, 2, 3, groups=2), (2, 4, 5, 4), {"kernels": UNKNOWN}),
    Planted(_conv(m.LastImageForgotten, 2, 4, 3), IMAGES, {"kernels": UNKNOWN}),
    Planted(_conv(m.AssignedNotAdded, 2, 4, 3), IMAGES, {"inputs": UNKNOWN}),
    Planted(_conv(m.ConvPenaltyForgotten, 2, 4, 3, kernels_penalty=L2), IMAGES, {"kernels": "L2 penalty is missing"}),
    Planted(
        _conv(m.OutputPaddingIgnored, 2, 4, 3, stride=2, output_padding=1),
        (3, 2, 3, 2),
        {"biases": UNKNOWN},
    ),
    Planted(
        _conv(m.OutputPaddingIgnored, 2, 4, 3, stride=2, output_padding=1, padding=1),
        (3, 2, 3, 2),
        {"inputs": UNKNOWN, "kernels": UNKNOWN, "biases": UNKNOWN},
    ),
    Planted(_conv(m.TransposedKernelsTurned, 2, 4, 3, stride=2), (3, 2, 3, 2), {"inputs": UNKNOWN}),
    Planted(
        _conv(m.TransposedBiasAveraged, 2, 4, 3, stride=2),
        (3, 2, 3, 2),
        {"biases": "of pixels of the outputs, 35: averaged"},
    ),
    Planted(m.MaxToTheLastPlace(), POOLED, {"inputs": "entries are wrong"}),
    Planted(m.MaxToTheWholeWindow(), POOLED, {"inputs": "^108 of 144 entries are wrong$"}),
    Planted(m.MaxAssigned(size=3, stride=1), (3, 2, 5, 6), {"inputs": "entries are wrong"}),
    Planted(m.MaxOfAbsolutes(), POOLED, {"inputs": "entries are wrong"}),
    Planted(m.AverageNotDivided(), POOLED, {"inputs": TIMES.format("4")}),
    Planted(m.AverageDividedTwice(), POOLED, {"inputs": TIMES.format("0.25") + "|divided by"}),
    Planted(m.AverageDividedByTheSide(), POOLED, {"inputs": "^it is twice the right one"}),
    Planted(m.AverageCountsPadding(3, 2, 1), (3, 2, 5, 7), {"inputs": UNKNOWN}),
    Planted(m.AverageCountsPadding(3, 2, 1, count_include_pad=False), (3, 2, 5, 7), {"inputs": UNKNOWN}),
    Planted(m.GlobalAverageDividedByTheBatch(), (3, 2, 4, 5), {"inputs": "^it is divided by the batch size, 3: "}),
    Planted(m.GlobalAverageNotDivided(), (3, 2, 4, 5), {"inputs": TIMES.format("20")}),
    Planted(m.DroppedScaledTwice(RNG(3), 0.6, rescale=True), ROWS, {"inputs": "divided by the prob"}, BOTH_MODES),
    Planted(m.DroppedNotScaled(RNG(3), 0.6, rescale=True), ROWS, {"inputs": "multiplied by the prob"}, BOTH_MODES),
    Planted(m.DroppedNotScaled(RNG(3), 0.6), ROWS, {"inputs": "multiplied by the prob.*once too often"}, BOTH_MODES),
    Planted(m.DroppedByAnotherMask(RNG(3), 0.6), ROWS, {"inputs": UNKNOWN}, BOTH_MODES),
    Planted(m.DroppedInEvaluation(RNG(3), 0.6), ROWS, {"inputs": UNKNOWN}, EVALUATION),
    Planted(m.MaskForgotten(RNG(3), 0.6), ROWS, {"inputs": UNKNOWN}, TRAINING),
    Planted(m.MaskOfTheComplement(RNG(3), 0.3), ROWS, {"inputs": r"F\(x\)|no simple|entries|times"}, BOTH_MODES),
    Planted(m.IdentityForgotten(_branch()), ROWS, {"inputs": r"missing: .*dE/d outputs itself"}),
    Planted(m.IdentityTwice(_branch()), ROWS, {"inputs": "(too often|twice|too much).*dE/d outputs"}),
    Planted(m.BranchForgotten(_branch()), ROWS, {"inputs": UNKNOWN}),
    Planted(
        m.GradientsInReverse(
            [_affine(layers.AffineLayer, 3, 3), layers.TanhLayer(), _affine(layers.AffineLayer, 3, 3)]
        ),
        ROWS,
        {
            "AffineLayer_0.weights": UNKNOWN + r"|that of AffineLayer_2.weights",
            "AffineLayer_0.biases": UNKNOWN + r"|that of AffineLayer_2.biases",
            "AffineLayer_2.weights": UNKNOWN + r"|that of AffineLayer_0.weights",
            "AffineLayer_2.biases": UNKNOWN + r"|that of AffineLayer_0.biases",
        },
    ),
    Planted(
        m.SlicesExchanged([_branch(), []]),
        ROWS,
        {"inputs": UNKNOWN, "AffineLayer_0.weights": UNKNOWN, "AffineLayer_0.biases": UNKNOWN},
    ),
    Planted(m.OneSliceForAll([_branch(), []]), ROWS, {"inputs": UNKNOWN}),
    Planted(
        m.SharesHalved([_branch(), []]),
        ROWS,
        dict.fromkeys(["inputs", "AffineLayer_0.weights", "AffineLayer_0.biases"], "^it is half the right one"),
    ),
    Planted(m.FactorNotTransposed([[], [layers.TanhLayer()]]), (2, 3, 3), {"inputs": UNKNOWN}),
    Planted(m.FactorsExchanged([[], [layers.TanhLayer()]]), (2, 3, 3), {"inputs": UNKNOWN}),
    Planted(
        m.CrossEntropyNotDivided(), OUTPUTS, {"outputs": "^it is 5 times .* the batch size: a 1/N"}, targets=LABELS
    ),
    Planted(m.CrossEntropyNegated(), OUTPUTS, {"outputs": "^the sign is wrong$"}, targets=LABELS),
    Planted(m.CrossEntropyOfTheTargetAlone(), OUTPUTS, {"outputs": UNKNOWN}, targets=LABELS),
    Planted(m.CrossEntropyPartlyDivided(), OUTPUTS, {"outputs": UNKNOWN}, targets=LABELS),
    Planted(m.CrossEntropyOverTheBatch(), OUTPUTS, {"outputs": UNKNOWN}, targets=LABELS),
    Planted(m.CrossEntropyInBits(), OUTPUTS, {"outputs": TIMES.format("0.693147")}, targets=LABELS),
    Planted(
        m.ClassWeightsForgotten(np.array([1.0, 2.0, 0.5, 3.0])),
        OUTPUTS,
        {"outputs": "each index of axis 0 has a wrong factor"},
        targets=LABELS,
    ),
    Planted(m.IgnoredLabelsCounted(None, 1), OUTPUTS, {"outputs": UNKNOWN}, targets=LABELS),
    Planted(m.IgnoredLabelsInTheMean(None, 1), OUTPUTS, {"outputs": TIMES.format("0.6")}, targets=LABELS),
    Planted(m.SquaresWithoutHalf(), OUTPUTS, {"outputs": "^it is twice the right one: a 1/2"}, targets=TARGETS),
    Planted(m.SquaresDividedByAll(), OUTPUTS, {"outputs": TIMES.format("0.25") + "|divided by"}, targets=TARGETS),
    Planted(m.SquaresTargetsForgotten(), OUTPUTS, {"outputs": UNKNOWN}, targets=TARGETS),
    Planted(m.BinaryForgetsNo(), PROBABILITIES[:, :1], {"outputs": UNKNOWN}, targets=RNG(9).uniform(0.1, 0.9, (5, 1))),
    Planted(m.ProbabilitiesMultiplied(), PROBABILITIES, {"outputs": UNKNOWN}, targets=np.eye(4)[LABELS]),
    Planted(m.L2Twice(0.3), PARAMETER, {"parameter": "^it is twice the right one"}),
    Planted(m.L2ValueWithoutHalf(0.3), PARAMETER, {"parameter": "^it is half the right one"}),
    Planted(m.L2CoefficientForgotten(0.3), PARAMETER, {"parameter": TIMES.format("3.33333")}),
    Planted(m.L2Averaged(0.3), PARAMETER, {"parameter": TIMES.format("0.0833333") + "|divided by"}),
    Planted(m.L1WithoutSign(0.3), PARAMETER, {"parameter": "^6 of 12 entries are wrong$"}),
    Planted(m.L1LikeL2(0.3), PARAMETER, {"parameter": UNKNOWN}),
    Planted(m.L1Negated(0.3), PARAMETER, {"parameter": "^the sign is wrong$"}),
]

BROKEN = [
    Planted(m.ReluTwoAtZero(), ROWS, {"inputs": "at ties of the inputs the backward pass gives no sub-gradient"}),
    Planted(m.MaxToAllTies(), POOLED, {"inputs": "at ties of the inputs the backward pass gives no sub-gradient"}),
    Planted(m.MaxToNoTies(), POOLED, {"inputs": "at ties of the inputs the backward pass gives no sub-gradient"}),
    Planted(_affine(m.BiasWithAnAxis), ROWS, {"biases": r"of biases has shape \(1, 4\), not \(4,\)"}),
    Planted(_affine(m.BiasSummedUp), ROWS, {"biases": r"of biases has shape \(\), not \(4,\)"}),
    Planted(_affine(m.WrongOrder), ROWS, {"weights": r"of weights has shape \(4,\), not \(4, 3\)"}),
    Planted(_affine(m.OneGradientTooFew), ROWS, {"": "2 gradients of 3 arrays"}),
    Planted(m.SummedOverTheBatch(), ROWS, {"inputs": r"of inputs has shape \(1, 3\), not \(5, 3\)"}),
    Planted(m.BetaForgetsAnAxis(2), IMAGES, {"beta": r"of beta has shape \(2, 4\), not \(2,\)"}, TRAINING),
    Planted(_conv(m.ConvBiasForgetsAnAxis, 2, 4, 3), IMAGES, {"biases": r"of biases has shape \(4, 2\), not \(4,\)"}),
    Planted(_conv(m.ConvBiasKeepsAxes, 2, 4, 3), IMAGES, {"biases": r"of biases has shape \(1, 4, 1, 1\), not \(4,\)"}),
    Planted(_affine(m.TwoTongues), ROWS, {"": "backprop gives other gradients than bprop and grads_wrt_params"}),
    Planted(_conv(m.OtherBprop, 2, 4, 3), IMAGES, {"": "backprop gives other gradients than bprop"}),
    Planted(_affine(m.OtherWithoutInputs), ROWS, {"": "backprop gives other gradients with need_inputs=False"}),
    Planted(m.InPlaceForward(0.1), ROWS, {"": "fprop changed its inputs"}),
    Planted(m.InPlaceBackward(), ROWS, {"": "the backward pass changed its grads_wrt_outputs"}),
    Planted(m.InPlaceInputsBackward(), ROWS, {"": "the backward pass changed its inputs"}),
    Planted(m.InPlaceOutputs(), ROWS, {"": "the backward pass changed its outputs"}),
    Planted(_affine(m.StepsInBackward), ROWS, {"": "changed the parameters"}),
    Planted(_affine(m.StepsInForward), ROWS, {"": "changed the parameters"}),
    Planted(_affine(m.AccumulatedGradients), ROWS, {"": "the result depends on the previous call"}),
    Planted(m.CountsCalls(), ROWS, {"": "the result depends on the previous call"}),
    Planted(m.UsedUpMask(RNG(3), 0.6), ROWS, {"": "bprop|two calls|depends on"}, TRAINING),
    Planted(m.FirstBatchKept(), ROWS, {"": "the result depends on the previous call"}),
    Planted(m.NewRandomNumbers(), ROWS, {"": "two calls give two results|the result depends on"}),
    Planted(m.HiddenCache(), ROWS, {"": "after fprop of another batch, bprop of the first"}),
    Planted(_affine(m.HiddenCacheOfParams), ROWS, {"": "after fprop of another batch, bprop of the first"}),
    Planted(m.OneBuffer(), ROWS, {"": "after fprop of another batch|overwrites|same array"}),
    Planted(_affine(m.OneBufferOfSums), ROWS, {"": "overwrites|same array"}),
    Planted(m.OneGradientBuffer(), ROWS, {"": "overwrites|same array"}),
    Planted(m.ReadsMemory(), ROWS, {"": "Fortran memory gives another result"}),
    Planted(m.ReadsMemoryBackward(), ROWS, {"": "Fortran memory gives another result"}),
    Planted(m.AssumesStrides(), ROWS, {"": "Fortran memory gives another result"}),
    Planted(m.ReshapesForTransposing(), ROWS, {"": "Fortran memory gives another result"}),
    Planted(_affine(m.RaisesForOne), (4, 3), {"": "a batch of 1: .*a batch of 1 has no second example"}),
    Planted(_affine(m.EvenBatchesOnly), (4, 3), {"weights": "a batch of 1: weights\\[.*\\]: got 0, expected"}),
    Planted(m.SqueezedSingle(), (4, 3, 2), {"": "a batch of 1"}),
    Planted(m.SingleNotDivided(), (4, 3), {"inputs": "a batch of 1: inputs\\[.*\\]: got"}),
    Planted(_conv(m.ChunksOfTwo, 2, 4, 3), (4, 2, 5, 4), {"inputs": "a batch of 1: inputs\\[.*\\]: got 0, "}),
    Planted(m.EvaluatesOnTheBatchBothWays(3), ROWS, {"": "other examples|of the batch"}, EVALUATION),
    Planted(m.EvaluationMovesTheStatistics(3), ROWS, {"": "the result depends on the previous call"}, EVALUATION),
    Planted(m.CrossEntropySummed(), OUTPUTS, {"": "no mean over the batch, a 1/N is missing"}, targets=LABELS),
    Planted(m.ChangesOutputs(), OUTPUTS, {"": "an argument was changed"}, targets=LABELS),
    Planted(m.ChangesTargets(), OUTPUTS, {"": "an argument was changed"}, targets=TARGETS),
    Planted(
        m.PerExampleSquares(), OUTPUTS, {"": r"an error is one number, and this one has shape \(5,\)"}, targets=TARGETS
    ),
    Planted(
        m.GradientOfTheSum(),
        OUTPUTS,
        {"outputs": r"the gradient of outputs has shape \(4,\), not \(5, 4\)"},
        targets=TARGETS,
    ),
    Planted(m.RunningAverage(), OUTPUTS, {"": "two calls give two results"}, targets=TARGETS),
    Planted(m.ChangesTheParameter(0.3), PARAMETER, {"": "an argument was changed"}),
]


def _each(planted):
    names = [type(p.subject).__name__ for p in planted]
    ids = [f"{name}-{names[:i].count(name)}" if names[:i].count(name) else name for i, name in enumerate(names)]
    return pytest.mark.parametrize("planted", planted, ids=ids)


def _check(planted, **options):
    planted = copy.deepcopy(planted)
    with pytest.raises(GradientError) as caught:
        check_gradients(planted.subject, planted.inputs, targets=planted.targets, **options)
    return caught.value


def _lines(error):
    """Return {(mode, array): cause} for every wrong array that the message names."""
    lines = re.findall(r"^  (?:in (\w+) mode )?([\w.]+)\[.*?\]: got .*?, expected .*?; (.*)$", str(error), re.M)
    return {(mode or "both", array): cause for mode, array, cause in lines}


@_each(GRADIENTS)
def test_a_wrong_gradient_is_found_and_mode_array_and_cause_are_named(planted):
    error = _check(planted)
    assert type(planted.subject).__name__ in error.subject
    assert (error.mode, error.array) == (planted.modes[0], next(iter(planted.wrong)))
    assert re.search(planted.wrong[error.array], error.cause)
    found = _lines(error)
    assert set(found) == {(mode, array) for mode in planted.modes for array in planted.wrong}
    assert {(row.mode, row.name) for row in error.report.arrays if not row.right} == set(found)
    for (_, array), cause in found.items():
        assert re.search(planted.wrong[array], cause)
    assert not np.isclose(error.got, error.expected, rtol=1e-9)


@pytest.mark.parametrize("method", [COMPLEX, CENTRAL])
@_each(GRADIENTS)
def test_each_method_alone_finds_the_same_arrays_or_is_known_to_be_blind(planted, method):
    if planted.blind == method:
        report = check_gradients(
            planted.subject, planted.inputs, targets=planted.targets, methods=(method,), conduct=False
        )
        assert report.right
        return
    error = _check(planted, methods=(method,), conduct=False)
    assert set(_lines(error)) == {(mode, array) for mode in planted.modes for array in planted.wrong}


@_each(BROKEN)
def test_a_broken_promise_is_found_and_said_in_words(planted):
    error = _check(planted)
    (array, cause), *_ = planted.wrong.items()
    assert type(planted.subject).__name__ in error.subject
    assert (error.mode, error.array) == (planted.modes[0], array or None)
    assert re.search(cause, error.cause)
    assert error.cause in str(error)


def test_a_wrong_entry_among_thousands_is_pointed_at():
    error = _check(Planted(_affine(m.OneWrongWeight, 50, 40), (3, 50), {}))
    assert error.index == (17, 23)
    assert error.got == pytest.approx(1.01 * error.expected, rel=1e-9)


def test_a_factor_with_two_explanations_is_given_both():
    error = _check(Planted(m.SquaresWithoutHalf(), OUTPUTS[:2], {}, targets=TARGETS[:2]))
    assert "batch size" in error.cause
    assert "1/2" in error.cause


def test_the_entry_named_is_one_that_is_wrong():
    error = _check(Planted(_conv(m.BorderRowLost, 2, 4, 3, padding=1), IMAGES, {}))
    assert error.index[2] == 0
    assert error.got == 0.0
    assert error.expected != 0.0


@pytest.mark.parametrize(
    ("dims", "rows"), [((1, 2), 3), ((2, 1), 3), ((2, 2), 2), ((3, 2), 1), ((2, 5), 2)], ids=lambda value: str(value)
)
def test_no_cause_is_made_up_for_small_arrays_either(dims, rows):
    error = _check(Planted(_affine(m.MadeUp, *dims), (rows, dims[0]), {}))
    sizes = {"inputs": rows * dims[0], "weights": dims[0] * dims[1], "biases": dims[1]}
    causes = {array: cause for (_, array), cause in _lines(error).items() if sizes[array] > 1}
    assert set(causes) == {array for array, size in sizes.items() if size > 1}
    assert set(causes.values()) == {"no simple relation between both"}


RIGHT = [
    (m.PlainBatchNorm(3), ROWS),
    (m.PlainBatchNorm(2), IMAGES),
    (m.PlainSoftsign(), ROWS),
    (_conv(m.Convolution, 2, 4, 3, stride=2, padding=1), IMAGES),
    (m.MaxToTheLastTie(), POOLED),
    *(
        (layer(), ROWS)
        for layer in vars(right_layers).values()
        if inspect.isclass(layer) and layer.__module__ == right_layers.__name__
    ),
]


@pytest.mark.parametrize("method", [COMPLEX + " and " + CENTRAL, CENTRAL])
@pytest.mark.parametrize(("layer", "shape"), RIGHT, ids=[f"{type(x).__name__}-{len(shape)}" for x, shape in RIGHT])
def test_right_layers_written_by_hand_are_not_rejected(layer, shape, method):
    for seed in range(5):
        report = check_gradients(layer, shape, methods=method.split(" and "), seed=seed)
        assert report.right
        assert report.conduct


BATCH_NORMS = [
    (m.MomentumSwapped, "running_mean"),
    (m.RunningVarianceBiased, "running_var"),
    (m.RunningDeviation, "running_var"),
    (m.NeverUpdated, "running_mean"),
    (m.OnlyTheLastBatch, "running_mean"),
    (m.CountsImagesForValues, "running_var"),
    (m.EvaluationMovesTheStatistics, "evaluation changed running_mean"),
]


@pytest.mark.parametrize(("layer", "named"), BATCH_NORMS, ids=[layer.__name__ for layer, _ in BATCH_NORMS])
def test_wrong_running_statistics_are_found_by_their_formula(layer, named):
    with pytest.raises(AssertionError, match=named):
        check_running_statistics(layer(2), IMAGES)


@pytest.mark.parametrize("layer", [layer for layer, _ in BATCH_NORMS[:-1]], ids=lambda layer: layer.__name__)
def test_wrong_running_statistics_are_none_of_the_gradients_business(layer):
    assert check_gradients(layer(2), IMAGES, directions=6, conduct=False).right


@pytest.mark.parametrize("shape", [ROWS, (4, 3, 5), (2, 3, 4, 2), (2, 3, 2, 3, 2)], ids=len)
@pytest.mark.parametrize("weighs", ["batch", "running"])
@pytest.mark.parametrize("variance", ["unbiased", "biased"])
def test_right_running_statistics_follow_their_formula(shape, weighs, variance):
    options = {"momentum": 0.3, "momentum_weighs": weighs, "running_variance": variance}
    layer = layers.BatchNormalizationLayer(3, **options)
    check_running_statistics(layer, shape, **options)
    other = options | {"momentum": 0.7}
    with pytest.raises(AssertionError, match="running_mean"):
        check_running_statistics(layers.BatchNormalizationLayer(3, **options), shape, **other)


def _network(*middle):
    """Return a model with the mistake among right layers."""
    ends = _affine(layers.AffineLayer, 3, 4), _affine(layers.AffineLayer, 4, 4)
    return MultipleLayerModel([ends[0], layers.TanhLayer(), *middle, layers.TanhLayer(), ends[1]])


def _images_network(*middle):
    last = [layers.ReshapeLayer(), layers.AffineLayer(2 * 5 * 4, 4)]
    return MultipleLayerModel(
        [_conv(layers.Convolution2DLayer, 2, 2, 3, padding=1), *middle, layers.TanhLayer(), *last]
    )


MODELS = [
    (_network(_affine(m.AveragedBias, 4)), "AveragedBias_2.biases", "divided by the batch size, 5"),
    (_network(_affine(m.TransposedWeights, 4)), "TransposedWeights_2.weights", "axes 0 and 1 are exchanged"),
    (_network(_affine(m.NoWeights, 4)), "NoWeights_2.weights", "all zeros"),
    (_network(_affine(m.NegatedWeights, 4)), "NegatedWeights_2.weights", "the sign is wrong"),
    (_network(_affine(m.PenaltyForgotten, 4, weights_penalty=L2)), "PenaltyForgotten_2.weights", "L2 penalty is miss"),
    (_network(m.GammaWithoutXhat(4)), "GammaWithoutXhat_2.gamma", UNKNOWN + "|beta"),
    (_network(_norm(m.LayerNormGammaWithoutXhat, 4)), "LayerNormGammaWithoutXhat_2.gamma", UNKNOWN + "|beta"),
    (_network(layers.ResidualLayer([_affine(m.AveragedWeights, 4)])), "AveragedWeights_2.weights", "the batch size, 5"),
    (
        _network(layers.AdditionLayer([_affine(layers.AffineLayer, 4), [_affine(m.AveragedBias, 4)]])),
        "AveragedBias_3.biases",
        "divided by the batch size, 5",
    ),
    (_images_network(m.BetaAveraged(2)), "BetaAveraged_1.beta", "the batch size|times the right one"),
    (_images_network(_conv(m.ConvBiasAveraged, 2, 2, 1)), "ConvBiasAveraged_1.biases", "times the right one|divided"),
    (
        _images_network(_conv(m.KernelAxesTransposed, 2, 2, 3, padding=1)),
        "KernelAxesTransposed_1.kernels",
        "axes 2 and 3 are exchanged",
    ),
    (
        _images_network(_conv(m.KernelChannelsTransposed, 2, 2, 3, padding=1)),
        "KernelChannelsTransposed_1.kernels",
        "axes 0 and 1 are exchanged",
    ),
]


@pytest.mark.parametrize(("model", "named", "cause"), MODELS, ids=[named for _, named, _ in MODELS])
def test_inside_a_model_the_right_layer_and_parameter_are_named(model, named, cause):
    inputs = (5, 3) if isinstance(model.layers[0], layers.AffineLayer) else (5, 2, 5, 4)
    with pytest.raises(GradientError) as caught:
        check_gradients(model, inputs, CrossEntropySoftmaxError(), LABELS)
    assert caught.value.array == named
    assert {row.name for row in caught.value.report.arrays if not row.right} == {named}
    assert re.search(cause, caught.value.cause)


BACKWARD = [
    (m.NegatedTanh(), "the sign is wrong"),
    (m.DiagonalSoftmax(), UNKNOWN),
    (m.NoVarianceTerm(4), UNKNOWN),
    (_affine(m.RowsPairedWrongly, 4), UNKNOWN),
    (m.IdentityForgotten([layers.TanhLayer()]), UNKNOWN),
]


@pytest.mark.parametrize(("layer", "cause"), BACKWARD, ids=[type(layer).__name__ for layer, _ in BACKWARD])
def test_a_layer_that_passes_on_a_wrong_gradient_spoils_what_comes_before_it_and_nothing_after(layer, cause):
    with pytest.raises(GradientError) as caught:
        check_gradients(_network(layer), (5, 3), CrossEntropySoftmaxError(), LABELS, modes=("training",))
    wrong = [row.name for row in caught.value.report.arrays if not row.right]
    assert wrong == ["inputs", "AffineLayer_0.weights", "AffineLayer_0.biases"]
    assert re.search(cause, caught.value.cause)


def test_an_error_that_is_not_divided_spoils_every_gradient_by_the_batch_size():
    model = _network(_affine(layers.AffineLayer, 4))
    with pytest.raises(GradientError) as caught:
        check_gradients(model, (5, 3), m.CrossEntropyNotDivided(), LABELS)
    found = _lines(caught.value)
    assert len(found) == len(caught.value.report.arrays) == 7
    assert all("it is 5 times the right one, the batch size: a 1/N is missing" in cause for cause in found.values())


def test_a_lost_gradient_is_found_however_much_it_had_vanished():
    model = MultipleLayerModel(
        [_affine(m.NoWeights, 3, 3), *(layer for _ in range(12) for layer in (layers.SigmoidLayer(), _small()))]
    )
    with pytest.raises(GradientError) as caught:
        check_gradients(model, (5, 3))
    assert caught.value.array == "NoWeights_0.weights"
    assert [row.name for row in caught.value.report.arrays if not row.right] == ["NoWeights_0.weights"]


def _small():
    return layers.AffineLayer(3, 3, lambda shape: 0.05 * RNG(1).standard_normal(shape))


def test_every_planted_mistake_is_in_a_table():
    classes = {value for value in vars(m).values() if inspect.isclass(value) and value.__module__ == m.__name__}
    planted = {type(case.subject) for case in (*GRADIENTS, *BROKEN)} | {layer for layer, _ in BATCH_NORMS}
    assert classes - planted == {m.Halves, m.PlainBatchNorm, m.PlainSoftsign, m.Convolution, m.MaxToTheLastTie}
    assert len(planted) > 150


def test_a_changed_upstream_gradient_is_found_inside_other_layers_too():
    with pytest.raises(GradientError) as caught:
        check_gradients(layers.ResidualLayer([m.InPlaceBackward()]), ROWS)
    assert re.search("changed its grads_wrt_outputs|entries are wrong", caught.value.cause)
    with pytest.raises(GradientError):
        check_gradients(MultipleLayerModel([layers.ResidualLayer([m.InPlaceBackward()])]), ROWS)


def test_a_subject_is_not_changed_and_can_be_mended():
    layer = _affine(m.AveragedBias)
    before = [param.copy() for param in layer.params]
    _check(Planted(layer, ROWS, {}))
    for old, new in zip(before, layer.params, strict=True):
        np.testing.assert_array_equal(old, new)
    layer.__class__ = layers.AffineLayer
    assert check_gradients(layer, ROWS).right
