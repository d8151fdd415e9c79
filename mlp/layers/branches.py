"""Layers side by side on the same inputs, whose outputs are added, concatenated or multiplied."""

from collections.abc import Sequence
from typing import NamedTuple

from mlp.backend import Array, array_module
from mlp.checks import ShapeError, check_same_shape, check_shape, check_whole_number
from mlp.layers.base import Layer, Shape, forward
from mlp.layers.chain import ChainLayer, ContainerLayer, check_layers


class IdentityLayer(Layer):
    """y = x: the branch that does nothing."""

    runs_in_shards = True

    def fprop(self, inputs: Array) -> Array:
        """Return the inputs themselves."""
        check_shape("IdentityLayer.fprop: inputs", inputs, ("N", "..."))
        return inputs

    def bprop(self, inputs: Array, outputs: Array, grads_wrt_outputs: Array) -> Array:
        """Return dE/dy itself."""
        check_same_shape("IdentityLayer.bprop: grads_wrt_outputs", grads_wrt_outputs, inputs)
        return grads_wrt_outputs


class BranchOutputs(NamedTuple):
    """What branches took and gave together, and what each of them gave."""

    inputs: Array
    outputs: Array
    parts: list[Array]


class BranchesLayer(ContainerLayer):
    """What layers of branches have in common: y = combination of f_1(x), ..., f_B(x), and dE/dx the sum of theirs.

    A branch is a layer or a list of layers, one after the other; an empty list is the identity. Parameters are all
    branches', in order.
    """

    def __init__(self, branches: Sequence[Layer | Sequence[Layer]]) -> None:
        who = type(self).__name__
        if not isinstance(branches, (list, tuple)) or not branches:
            raise TypeError(f"{who}: branches is {branches!r}, expected a list of layers or of lists of layers")
        self.branches = check_layers(who, [_branch(branch) for branch in branches])

    def children(self) -> Sequence[Layer]:
        """Return the branches."""
        return self.branches

    def fprop(self, inputs: Array, stochastic: bool = True) -> Array:
        """Return the combination of the branches' outputs."""
        parts = [forward(branch, inputs, stochastic) for branch in self.branches]
        outputs = self._combined(parts)
        self.remember(BranchOutputs(inputs, outputs, parts))
        return outputs

    def _backprop(
        self, inputs: Array, outputs: Array | None, grads_wrt_outputs: Array, need_inputs: bool
    ) -> tuple[Array | None, list[Array]]:
        _, known, parts = self.remembered(BranchOutputs, inputs, outputs)
        check_same_shape(f"{type(self).__name__}.bprop: grads_wrt_outputs", grads_wrt_outputs, known)
        total: Array | None = None
        grads_wrt_params: list[Array] = []
        shares = self._shares(parts, grads_wrt_outputs)
        for branch, part, share in zip(self.branches, parts, shares, strict=True):
            through, grads = branch.backprop(inputs, part, share, need_inputs)
            grads_wrt_params += grads
            if need_inputs:
                total = through if total is None else total + through
        return total, grads_wrt_params

    def _combined(self, parts: list[Array]) -> Array:
        """Return y from the branches' outputs."""
        raise NotImplementedError

    def _shares(self, parts: list[Array], grads_wrt_outputs: Array) -> list[Array]:
        """Return dE/d f_b(x) for every branch."""
        raise NotImplementedError


class AdditionLayer(BranchesLayer):
    """y = f_1(x) + ... + f_B(x), broadcasting as NumPy does: a residual connection with any shortcut.

    dE/d f_b = dE/dy, summed over the axes along which f_b was broadcast. He, Zhang, Ren and Sun, Deep residual
    learning for image recognition, CVPR 2016, equation 2, is the case of F and a projection of x.
    """

    def _combined(self, parts: list[Array]) -> Array:
        _broadcast("AdditionLayer.fprop", [part.shape for part in parts])
        return sum(parts[1:], start=parts[0])

    def _shares(self, parts: list[Array], grads_wrt_outputs: Array) -> list[Array]:
        return [_summed_to(grads_wrt_outputs, part.shape) for part in parts]


class ConcatenationLayer(BranchesLayer):
    """y = [f_1(x), ..., f_B(x)] along an axis, by default that of the channels; dE/d f_b is its slice of dE/dy.

    Szegedy et al., Going deeper with convolutions, CVPR 2015, figure 2; Huang et al., Densely connected convolutional
    networks, CVPR 2017, equation 2.
    """

    def __init__(self, branches: Sequence[Layer | Sequence[Layer]], axis: int = 1) -> None:
        super().__init__(branches)
        self.axis = check_whole_number("ConcatenationLayer: axis", axis)

    def _combined(self, parts: list[Array]) -> Array:
        shapes, ndim = [part.shape for part in parts], parts[0].ndim
        axis = self.axis + ndim if self.axis < 0 else self.axis
        others = {(*shape[:axis], *shape[axis + 1 :], len(shape)) for shape in shapes}
        if not 0 <= axis < ndim:
            raise ShapeError(f"{self!r}.fprop: branches give shapes {shapes}, which have no axis {self.axis}")
        if len(others) > 1:
            raise ShapeError(f"{self!r}.fprop: branches give shapes {shapes}: only axis {self.axis} may differ")
        return array_module(parts[0]).concatenate(parts, axis=axis)

    def _shares(self, parts: list[Array], grads_wrt_outputs: Array) -> list[Array]:
        ends, shares = 0, []
        for part in parts:
            length = part.shape[self.axis]
            where: list[slice] = [slice(None)] * part.ndim
            where[self.axis] = slice(ends, ends + length)
            shares.append(grads_wrt_outputs[tuple(where)])
            ends += length
        return shares

    def __repr__(self) -> str:
        return f"ConcatenationLayer({self.branches}{'' if self.axis == 1 else f', axis={self.axis}'})"


class MatrixProductLayer(BranchesLayer):
    """y = f(x) @ g(x) of two branches, with NumPy's rules: matrices in the last two axes, the others broadcast.

    dE/df = dE/dy g', dE/dg = f' dE/dy, each summed over the axes along which it was broadcast. Vectors are rows on the
    left and columns on the right.
    """

    def __init__(self, branches: Sequence[Layer | Sequence[Layer]]) -> None:
        super().__init__(branches)
        if len(self.branches) != 2:
            raise ValueError(f"MatrixProductLayer: {len(self.branches)} branches, expected 2")

    def _combined(self, parts: list[Array]) -> Array:
        left, right = _matrices(*parts)
        _broadcast("MatrixProductLayer.fprop", [left.shape[:-2], right.shape[:-2]])
        if left.shape[-1] != right.shape[-2]:
            shapes = f"{parts[0].shape} and {parts[1].shape}"
            raise ShapeError(f"MatrixProductLayer.fprop: branches give shapes {shapes}, which have no matrix product")
        return array_module(parts[0]).asarray(parts[0] @ parts[1])

    def _shares(self, parts: list[Array], grads_wrt_outputs: Array) -> list[Array]:
        left, right = _matrices(*parts)
        batch = _broadcast("MatrixProductLayer.bprop", [left.shape[:-2], right.shape[:-2]])
        grads = grads_wrt_outputs.reshape(*batch, left.shape[-2], right.shape[-1])
        of_left, of_right = grads @ right.swapaxes(-1, -2), left.swapaxes(-1, -2) @ grads
        shares = (_summed_to(of_left, left.shape), _summed_to(of_right, right.shape))
        return [share.reshape(part.shape) for share, part in zip(shares, parts, strict=True)]


def _branch(branch: Layer | Sequence[Layer]) -> Layer:
    if isinstance(branch, (list, tuple)):
        return ChainLayer(branch) if branch else IdentityLayer()
    return branch  # type: ignore[return-value]  # check_layers refuses what is no layer


def _matrices(left: Array, right: Array) -> tuple[Array, Array]:
    """Return both factors with two axes at least: a vector on the left is a row, on the right a column."""
    return left[None] if left.ndim == 1 else left, right[:, None] if right.ndim == 1 else right


def _broadcast(who: str, shapes: list[Shape]) -> Shape:
    """Return the shape that these broadcast to."""
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes]
    lengths = [{length for length in axis if length != 1} for axis in zip(*padded, strict=True)]
    if any(len(axis) > 1 for axis in lengths):
        raise ShapeError(f"{who}: branches give shapes {shapes}, which do not broadcast")
    return tuple(max(axis, default=1) for axis in lengths)


def _summed_to(grads: Array, shape: Shape) -> Array:
    """Return grads summed over the axes along which an array of this shape was broadcast."""
    extra = grads.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and grads.shape[i + extra] != 1)
    return grads.sum(axis=axes).reshape(shape) if axes else grads
