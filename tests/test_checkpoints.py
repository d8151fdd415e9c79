"""Checkpoints: exact, whole, and refused where they do not fit."""

import re

import numpy as np
import pytest

from mlp import checkpoints
from mlp.checkpoints import (
    CheckpointDamagedError,
    CheckpointError,
    load_checkpoint,
    load_newest_checkpoint,
    save_checkpoint,
)
from mlp.engine import Engine
from mlp.errors import CrossEntropySoftmaxError
from mlp.layers import AffineLayer, DropoutLayer, LayerWithParameters, ResidualLayer, TanhLayer
from mlp.learning_rules import (
    AdamLearningRule,
    GradientDescentLearningRule,
    KingmaAdamLearningRule,
    MomentumLearningRule,
)
from mlp.models import MultipleLayerModel, vgg
from mlp.optimisers import train_step

PROGRESS = {"epoch": 3, "step": 7, "scores": [0.1 + 0.2, 5, 60], "name": "ü"}


def build(seed=0, rule=KingmaAdamLearningRule, num_blocks=1, batch_norm=True, num_filters=4, dtype=np.float32):
    model = vgg(num_blocks, batch_norm, False, num_filters, 5, dtype=dtype, rng=np.random.RandomState(seed))
    learning_rule = rule(1e-2)
    learning_rule.initialise(model.params)
    return model, learning_rule


def trained(steps=3, **options):
    model, rule = build(**options)
    train(model, rule, steps)
    return model, rule


def train(model, rule, steps, seed=1):
    rng = np.random.default_rng(seed)
    dtype = model.params[0].dtype
    for _ in range(steps):
        inputs = rng.standard_normal((6, 3, 8, 8)).astype(dtype)
        train_step(Engine(model, CrossEntropySoftmaxError()), rule, inputs, rng.integers(0, 5, 6))


def content(model, rule):
    """Return all that a checkpoint holds, as bytes."""
    arrays = dict(model.named_arrays())
    for name in rule.state_names:
        arrays.update({f"{name} {i}": array for i, array in enumerate(getattr(rule, name))})
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}, rule.step_count


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_model_rule_statistics_and_progress_come_back_to_the_bit(tmp_path, dtype, batch_norm):
    model, rule = trained(dtype=dtype, batch_norm=batch_norm)
    save_checkpoint(tmp_path / "file", model, rule, PROGRESS)
    other, other_rule = build(seed=5, dtype=dtype, batch_norm=batch_norm)
    assert content(other, other_rule) != content(model, rule)
    assert load_checkpoint(tmp_path / "file", other, other_rule) == PROGRESS
    assert content(other, other_rule) == content(model, rule)
    assert any("running" in name for name in content(other, other_rule)[0])
    assert other_rule.step_count == 3


def test_training_goes_on_as_if_never_stopped(tmp_path):
    model, rule = trained(steps=3)
    save_checkpoint(tmp_path / "file", model, rule, {})
    train(model, rule, 4, seed=2)
    other, other_rule = build(seed=5)
    load_checkpoint(tmp_path / "file", other, other_rule)
    train(other, other_rule, 4, seed=2)
    assert content(other, other_rule) == content(model, rule)


def test_loading_keeps_the_very_arrays(tmp_path):
    model, rule = trained()
    save_checkpoint(tmp_path / "file", model, rule, {})
    other, other_rule = build(seed=5)
    params, moments = other.params, list(other_rule.moms_1)
    load_checkpoint(tmp_path / "file", other, other_rule)
    assert all(a is b for a, b in zip(params, other.params, strict=True))
    assert all(a is b for a, b in zip(moments, other_rule.moms_1, strict=True))
    assert all(a is b for a, b in zip(params, other_rule.params, strict=True))


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        model, rule = trained()
        progress = PROGRESS if name == "a" else dict(reversed(PROGRESS.items()))
        save_checkpoint(tmp_path / name, model, rule, progress)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other, other_rule = build(seed=5)
    progress = load_checkpoint(tmp_path / "a", other, other_rule)
    save_checkpoint(tmp_path / "c", other, other_rule, progress)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


def test_other_content_gives_other_bytes(tmp_path):
    model, rule = trained()
    save_checkpoint(tmp_path / "a", model, rule, PROGRESS)
    model.params[0].flat[0] = np.nextafter(model.params[0].flat[0], np.float32(9))
    save_checkpoint(tmp_path / "b", model, rule, PROGRESS)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_signed_zero_nan_and_subnormal_come_back(tmp_path):
    model, rule = build()
    odd = np.array([-0.0, np.nan, np.inf, 1e-45], np.float32)
    model.params[0].flat[:4] = odd
    save_checkpoint(tmp_path / "file", model, rule, {})
    other, other_rule = build(seed=5)
    load_checkpoint(tmp_path / "file", other, other_rule)
    assert other.params[0].ravel()[:4].tobytes() == odd.tobytes()


def test_a_model_alone_comes_back_and_its_rule_is_left(tmp_path):
    model, rule = trained()
    save_checkpoint(tmp_path / "best", model, None, {"epoch": 2})
    save_checkpoint(tmp_path / "last", model, rule, {"epoch": 2})
    for name in ("best", "last"):
        other, other_rule = build(seed=5)
        progress = load_checkpoint(tmp_path / name, other)
        assert progress["epoch"] == 2
        assert {k: v.tobytes() for k, v in other.named_arrays().items()} == {
            k: v.tobytes() for k, v in model.named_arrays().items()
        }
        assert other_rule.step_count == 0


def refused(path, model, rule, match=None):
    before = content(model, rule)
    with pytest.raises(CheckpointError, match=re.escape(str(path)) if match is None else match) as caught:
        load_checkpoint(path, model, rule)
    assert str(path) in str(caught.value)
    assert content(model, rule) == before


@pytest.mark.parametrize(
    "options",
    [
        {"num_filters": 5},
        {"num_blocks": 2},
        {"num_blocks": 0},
        {"batch_norm": False},
        {"dtype": np.float64},
        {"rule": MomentumLearningRule},
        {"rule": GradientDescentLearningRule},
    ],
    ids=["filters", "deeper", "shallower", "without BN", "dtype", "momentum", "plain descent"],
)
def test_a_checkpoint_of_another_model_or_rule_is_refused(tmp_path, options):
    save_checkpoint(tmp_path / "file", *trained(), PROGRESS)
    refused(tmp_path / "file", *build(seed=5, **options))


def test_the_refusal_names_array_and_shapes(tmp_path):
    save_checkpoint(tmp_path / "file", *trained(), PROGRESS)
    model, rule = build(num_filters=5)
    refused(
        tmp_path / "file", model, rule, r"float32 \(4, 3, 3, 3\) as model/input_conv_conv_0.kernels, expected float32"
    )


def test_a_checkpoint_without_rule_does_not_restore_a_rule(tmp_path):
    save_checkpoint(tmp_path / "adam", trained()[0], None, {"epoch": 1})
    refused(tmp_path / "adam", *build(seed=5))
    save_checkpoint(tmp_path / "plain", trained()[0], None, {"epoch": 1})
    refused(tmp_path / "plain", *build(seed=5, rule=GradientDescentLearningRule))


def test_rules_with_the_same_state_share_checkpoints(tmp_path):
    model, rule = trained(rule=AdamLearningRule)
    save_checkpoint(tmp_path / "file", model, rule, {})
    other, other_rule = build(seed=5)
    load_checkpoint(tmp_path / "file", other, other_rule)
    assert content(other, other_rule) == content(model, rule)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "file"
    save_checkpoint(path, *trained(), PROGRESS)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, *build(seed=5))


@pytest.mark.parametrize("damage", [b"\xff" * 64, b"\x00" * 64, b'{"a":1}' + b" " * 57])
def test_a_damaged_header_is_refused(tmp_path, damage):
    path = tmp_path / "file"
    save_checkpoint(path, *trained(), PROGRESS)
    whole = path.read_bytes()
    for start in (0, 8, 200):
        path.write_bytes(whole[:start] + damage + whole[start + 64 :])
        refused(path, *build(seed=5))


def test_a_damaged_number_is_refused(tmp_path):
    path = tmp_path / "file"
    save_checkpoint(path, *trained(), PROGRESS)
    whole = bytearray(path.read_bytes())
    whole[-2] ^= 0x40
    path.write_bytes(whole)
    refused(path, *build(seed=5))


def test_a_file_that_is_none_is_refused(tmp_path):
    refused(tmp_path / "nowhere", *build())
    (tmp_path / "text").write_text("not a checkpoint\n" * 100)
    refused(tmp_path / "text", *build())
    refused(tmp_path, *build())


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError("no memory")], ids=repr)
def test_what_says_nothing_of_the_file_does_not_call_it_damaged(tmp_path, monkeypatch, error):
    path, kept, said = tmp_path / "file", tmp_path / "kept", []
    for place in (path, kept):
        save_checkpoint(place, *trained(), PROGRESS)

    def fail(*_):
        raise error

    monkeypatch.setattr(checkpoints, "open_file", fail)
    with pytest.raises(
        CheckpointError, match=rf"{path} cannot be read as a checkpoint: .*(denied|no memory)"
    ) as caught:
        load_newest_checkpoint(path, kept, *build(seed=5), said.append)
    assert "nor can the one before it be used" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path, kept]
    assert said == []


def test_a_damaged_checkpoint_with_none_before_it_is_refused(tmp_path):
    path, said = tmp_path / "file", []
    path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointDamagedError, match=str(path)):
        load_newest_checkpoint(path, tmp_path / "kept", *build(seed=5), said.append)
    assert path.read_bytes() == b"rubbish"
    assert said == []


def test_weights_of_another_program_are_refused(tmp_path):
    from safetensors.numpy import save_file

    model, rule = build()
    save_file({f"model/{k}": np.ascontiguousarray(v) for k, v in model.named_arrays().items()}, tmp_path / "file")
    refused(tmp_path / "file", model, rule)


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "file"
    model, rule = trained()
    save_checkpoint(path, model, rule, PROGRESS)
    before = path.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    train(model, rule, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(path, model, rule, PROGRESS)
    assert path.read_bytes() == before


def test_a_changed_position_is_refused(tmp_path):
    save_checkpoint(tmp_path / "file", *trained(), {"epoch": 7})
    whole = (tmp_path / "file").read_bytes()
    assert whole.count(b'\\"epoch\\": 7') == 1
    (tmp_path / "file").write_bytes(whole.replace(b'\\"epoch\\": 7', b'\\"epoch\\": 1'))
    refused(tmp_path / "file", *build(seed=5))


@pytest.mark.parametrize("stream", [np.random.RandomState, np.random.default_rng])
def test_the_random_streams_of_layers_come_back(tmp_path, stream):
    model, other = (MultipleLayerModel([DropoutLayer(stream(seed))]) for seed in (3, 4))
    model.fprop(np.ones((2, 5)))
    save_checkpoint(tmp_path / "file", model, None, {})
    load_checkpoint(tmp_path / "file", other)
    for _ in range(3):
        np.testing.assert_array_equal(model.fprop(np.ones((2, 9)))[-1], other.fprop(np.ones((2, 9)))[-1])


def test_no_code_is_in_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "file", *trained(), PROGRESS)
    whole = (tmp_path / "file").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    assert whole[8] == ord("{")
    assert b"pickle" not in whole[: 8 + size]
    assert sorted(set(re.findall(rb'"(model|rule)/', whole[8 : 8 + size]))) == [b"model", b"rule"]


class Scale(LayerWithParameters):
    """A layer with one number as its parameter."""

    param_names = ("factor",)

    def __init__(self, factor):
        self.factor = np.array(factor)

    def fprop(self, inputs):
        return self.factor * inputs


def test_a_parameter_that_is_one_number_comes_back(tmp_path):
    save_checkpoint(tmp_path / "file", MultipleLayerModel([Scale(0.3), AffineLayer(2, 2)]), None, {})
    other = MultipleLayerModel([Scale(0.0), AffineLayer(2, 2)])
    load_checkpoint(tmp_path / "file", other)
    assert other.params[0] == 0.3


def two_dropouts(first, second, names=("a", "b")):
    drops = [DropoutLayer(np.random.RandomState(seed)) for seed in (first, second)]
    for drop, name in zip(drops, names, strict=True):
        drop.name = name
    return MultipleLayerModel([AffineLayer(4, 4), *drops])


def test_two_streams_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two layers with random streams have one name"):
        save_checkpoint(tmp_path / "a", two_dropouts(1, 2, ("d", "d")), None, {})


def test_the_stream_of_a_container_is_kept(tmp_path):
    class Noisy(ResidualLayer):
        rng = None

    def noisy(seed):
        layer = Noisy([TanhLayer()])
        layer.rng = np.random.RandomState(seed)
        return MultipleLayerModel([AffineLayer(4, 4), layer])

    model, other = noisy(1), noisy(2)
    save_checkpoint(tmp_path / "a", model, None, {})
    load_checkpoint(tmp_path / "a", other)
    assert model.layers[1].rng.uniform() == other.layers[1].rng.uniform()


def test_a_stream_of_another_kind_is_refused_before_anything_changes(tmp_path):
    save_checkpoint(tmp_path / "a", two_dropouts(1, 2), None, {})
    other = two_dropouts(3, 4)
    other.layers[2].rng = np.random.default_rng(0)
    before = [param.copy() for param in other.params]
    with pytest.raises(CheckpointError, match="random stream of kind MT19937 for b, expected PCG64"):
        load_checkpoint(tmp_path / "a", other)
    assert all(map(np.array_equal, before, other.params))
