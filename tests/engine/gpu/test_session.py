"""Whole steps on a GPU: the same as steps one by one, without the host, and resumable to the bit."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from mlp.backend import to_cpu, to_device
from mlp.checks import ShapeError
from mlp.data_providers import ImageDataProvider, ImageSet
from mlp.engine import Engine
from mlp.engine.gpu import session as module
from mlp.errors import CrossEntropySoftmaxError, SumOfSquaredDiffsError
from mlp.experiments import runner
from mlp.experiments.crash import TrainingBrokeError
from mlp.experiments.runner import Runner
from mlp.layers import AffineLayer, GlobalAveragePooling2DLayer, SigmoidLayer
from mlp.learning_rules import AdamLearningRule, AdamLearningRuleWithWeightDecay, KingmaAdamLearningRule
from mlp.models import MultipleLayerModel, vgg
from mlp.optimisers import Scores, evaluate, train_step
from mlp.penalties import L1Penalty
from mlp.records import RunFolder

from ...experiments import tiny
from ...strict_cupy import Sync

STEPS = 6  # of an epoch: five batches of 4 and one of 2


def provider(training=True):
    rng = np.random.default_rng(0)
    data = ImageSet(rng.integers(0, 256, (22, 8, 8, 3), dtype=np.uint8), rng.integers(0, 7, 22))
    return ImageDataProvider(data, 4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 3, training, training)


def network(**options):
    return vgg(0, num_filters=8, num_classes=7, rng=np.random.RandomState(1), **options)


class Side:
    """A model with its engine and learning rule."""

    def __init__(self, model, rule=None, error=None, **options):
        self.model, self.rule = model, rule or KingmaAdamLearningRule(1e-3)
        self.engine = Engine(model, error or CrossEntropySoftmaxError(), **options)
        self.rule.initialise(model.params)

    def session(self):
        return self.engine.gpu_session(provider(), self.rule)


def one_by_one(side, epochs):
    scores, batches = Scores(), provider()
    for epoch in range(epochs):
        for index in range(batches.num_batches):
            inputs, labels = batches.batch(epoch, index)
            step = train_step(side.engine, side.rule, inputs, labels)
            scores = scores.with_batch(step.loss, step.outputs, labels)
    return scores, step


@pytest.mark.parametrize("rule", [KingmaAdamLearningRule, AdamLearningRule])
def test_a_session_takes_the_steps_of_a_loop(gpu, rule):
    ours, theirs = Side(network().to_gpu(), rule(2e-3)), Side(network(), rule(2e-3))
    session, sums = ours.session(), (0.0, 0, 0)
    for epoch in range(3):
        sums = session.run(epoch, 0, STEPS, sums)
    scores, last = one_by_one(theirs, 3)
    assert sums[0] == pytest.approx(scores.loss_sum, rel=1e-5)
    assert sums[1:] == (scores.correct, scores.images) == (scores.correct, 66)
    assert ours.rule.step_count == theirs.rule.step_count == 18
    for (name, array), (_, other) in zip(
        ours.model.named_arrays().items(), theirs.model.named_arrays().items(), strict=True
    ):
        np.testing.assert_allclose(to_cpu(array), other, rtol=0, atol=2e-4 * np.abs(other).max(), err_msg=name)
    step = session.last_step()
    assert step.loss == pytest.approx(last.loss, rel=1e-4)
    for grad, other in zip(step.grads, last.grads, strict=True):
        np.testing.assert_allclose(to_cpu(grad), other, rtol=0, atol=1e-3 * np.abs(other).max())


def test_an_epoch_waits_for_the_device_once_at_its_end(gpu):
    side = Side(network().to_gpu())
    session = side.session()
    session.run(0, 0, STEPS)
    if gpu == "stand-in":
        before = Sync.count
        session.run(1, 0, STEPS)
        assert Sync.count == before + 1


def test_a_session_cut_in_pieces_gives_the_same_bits(gpu):
    whole, pieces = Side(network(batch_norm=True).to_gpu()), Side(network(batch_norm=True).to_gpu())
    one, sums = whole.session(), (0.0, 0, 0)
    for epoch in range(2):
        sums = one.run(epoch, 0, STEPS, sums)
    parts = (0.0, 0, 0)
    for epoch, start, stop in ((0, 0, 2), (0, 2, 3), (0, 3, 6), (1, 0, 1), (1, 1, 6)):
        parts = pieces.session().run(epoch, start, stop, parts)  # each time a new one
    assert parts == sums
    for state in ("moms_1", "moms_2"):
        for array, other in zip(getattr(whole.rule, state), getattr(pieces.rule, state), strict=True):
            np.testing.assert_array_equal(to_cpu(array), to_cpu(other))
    for name, array in whole.model.named_arrays().items():
        np.testing.assert_array_equal(to_cpu(array), to_cpu(pieces.model.named_arrays()[name]), err_msg=name)


def test_graphs_give_the_bits_of_launches_one_by_one(gpu, monkeypatch):
    def run(capture):
        side = Side(network(residual=True).to_gpu())
        session = side.session()
        sums = session.run(0, 0, 5)
        step = session._step(4)[1]
        assert (step.graph is not None) == capture
        return sums, [to_cpu(param) for param in side.model.params], len(step.launches), step.graph

    sums, params, count, graph = run(True)
    if gpu == "stand-in":
        assert len(graph.nodes) == count
    monkeypatch.setattr("mlp.engine.gpu.graph._RUNS_BEFORE", 1000)
    eager_sums, eager_params, _, _ = run(False)
    assert sums == eager_sums
    for one, other in zip(params, eager_params, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_have_the_bits_of_the_providers(gpu):
    session, batches = Side(network().to_gpu()).session(), provider()
    for epoch, index in ((0, 0), (0, 4), (3, 2), (2**33, 1)):
        session.run(epoch, index, index + 1)
        inputs, labels = batches.batch(epoch, index)
        plan = session.last
        np.testing.assert_array_equal(to_cpu(plan.inputs).transpose(0, 3, 1, 2), inputs)
        np.testing.assert_array_equal(to_cpu(plan.labels), labels)


def test_evaluation(gpu):
    model = network(batch_norm=True)
    for layer in model.layers:
        for name in layer.state_names:
            getattr(layer, name)[...] = 0.5 + np.random.default_rng(4).random(8)
    ours, theirs = Engine(model.to_gpu(), CrossEntropySoftmaxError()), Engine(model, CrossEntropySoftmaxError())
    batches = provider(training=False)
    session = ours.gpu_session(batches)
    arrays = {name: to_cpu(array).copy() for name, array in ours.model.named_arrays().items()}
    sums, scores = session.run(0, 0, STEPS), evaluate(theirs, batches)
    assert sums[0] == pytest.approx(scores.loss_sum, rel=1e-5)
    assert sums[1:] == (scores.correct, scores.images)
    assert session.run(0, 0, STEPS) == sums
    for name, array in ours.model.named_arrays().items():
        np.testing.assert_array_equal(to_cpu(array), arrays[name])


def penalised():
    return [*network().layers[:-1], AffineLayer(8, 7, weights_penalty=L1Penalty(0.1))]


UNFIT = {
    "a layer": (lambda: [*network().layers[:-2], SigmoidLayer(), *network().layers[-2:]], {}, "through SigmoidLayer"),
    "penalties": (penalised, {}, "knows penalties"),
    "the error": (lambda: network().layers, {"error": SumOfSquaredDiffsError()}, "knows MeanSquaredErrorCost"),
    "the rule": (
        lambda: network().layers,
        {"rule": AdamLearningRuleWithWeightDecay()},
        "no kernel knows Adam",
    ),
    "a map": (lambda: network().layers[:-2], {}, "knows CrossEntropySoftmaxError"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_no_kernel_knows_is_named_in_the_log(gpu, caplog, what):
    layers, options, reason = UNFIT[what]
    side = Side(MultipleLayerModel(layers()).astype(np.float32).to_gpu(), **options)
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert side.session() is None
    assert "steps are taken one by one: " in caplog.text
    assert reason in caplog.text


def test_no_session_on_the_cpu_or_by_layers(gpu):
    assert Side(network()).session() is None
    assert Side(network().to_gpu(), kind="layers").session() is None
    assert Side(MultipleLayerModel([GlobalAveragePooling2DLayer()]).to_gpu()).session() is None


def test_steps_outside_the_epoch_are_refused(gpu):
    session = Side(network().to_gpu()).session()
    with pytest.raises(IndexError, match=r"GpuSession.run: steps 4\.\.6, expected within 0\.\.5"):
        session.run(0, 4, 7)
    with pytest.raises(LookupError, match="no step yet: call run first"):
        session.last_step()


def test_a_session_notices_that_its_model_changed(gpu):
    ours, theirs = Side(network().to_gpu()), Side(network())
    session = ours.session()
    session.run(0, 0, 2)
    for index in range(2):
        train_step(theirs.engine, theirs.rule, *provider().batch(0, index))
    for side in (ours, theirs):
        side.model.layers[2].alpha = 0.5
        side.model.layers[1].momentum = 0.9
        side.rule.learning_rate = 5e-3
    assert session.run(0, 2, 3)[0] / 4 == pytest.approx(
        train_step(theirs.engine, theirs.rule, *provider().batch(0, 2)).loss, rel=1e-5
    )
    running = [side.model.layers[1].running_mean for side in (ours, theirs)]
    np.testing.assert_allclose(to_cpu(running[0]), running[1], rtol=0, atol=1e-5 * np.abs(running[1]).max())
    ours.model.layers[0].kernels = ours.model.layers[0].kernels.copy()
    with pytest.raises(ValueError, match="other arrays than when the session was made: ask"):
        session.run(0, 3, 4)


@pytest.mark.parametrize("what", ["augment", "padding", "seed", "batch_size", "images"])
def test_a_session_notices_that_its_provider_changed(gpu, what):
    session, batches = Side(network().to_gpu()).session(), provider()
    session.run(0, 0, 2)
    new = {"augment": False, "padding": 1, "seed": 8, "batch_size": 7, "images": batches.images.take(slice(3, 20))}[
        what
    ]
    setattr(session.provider, what, new)
    setattr(batches, what, new)
    for changed in (session.provider, batches):
        changed._order = (None, np.arange(0))
    session.run(1, 1, 2)
    inputs, labels = batches.batch(1, 1)
    np.testing.assert_array_equal(to_cpu(session.last.inputs).transpose(0, 3, 1, 2), inputs)
    np.testing.assert_array_equal(to_cpu(session.last.labels), labels)


def test_a_rule_that_starts_anew_is_followed(gpu):
    ours, theirs = Side(network().to_gpu()), Side(network())
    session = ours.session()
    for epoch in range(2):
        for side in (ours, theirs):
            side.rule.initialise(side.model.params)
        session.run(epoch, 0, 3)
        for index in range(3):
            train_step(theirs.engine, theirs.rule, *provider().batch(epoch, index))
    for one, other in zip(ours.rule.moms_1, theirs.rule.moms_1, strict=True):
        np.testing.assert_allclose(to_cpu(one), other, rtol=0, atol=1e-4 * np.abs(other).max())
    ours.rule.initialise(network().to_gpu().params)
    with pytest.raises(ValueError, match="those of the learning rule, are other arrays"):
        session.run(0, 0, 1)


def test_a_last_batch_that_no_plan_takes_is_seen_at_once(gpu, caplog):
    """Batch normalisation of one example of one pixel has no variance."""
    model = vgg(0, batch_norm=True, num_filters=4, num_classes=7, rng=np.random.RandomState(1)).to_gpu()
    rng = np.random.default_rng(0)
    data = ImageSet(rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8), rng.integers(0, 7, 9))
    side = Side(model)
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert side.engine.gpu_session(ImageDataProvider(data, 4, (0.5,) * 3, (0.2,) * 3), side.rule) is None
    assert "no plan on a GPU takes batches of 1 through BatchNormalizationLayer" in caplog.text


def test_other_channels_name_the_layer(gpu, caplog):
    side = Side(vgg(0, num_filters=4, num_channels=1, num_classes=7, rng=np.random.RandomState(1)).to_gpu())
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert side.session() is None
    assert "through Convolution2DLayer(1, 4" in caplog.text


def test_parameters_that_are_not_in_one_array_are_named(gpu, caplog):
    side = Side(network().to_gpu().astype(np.float32))
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert side.session() is None
    assert "make the model by to_gpu() last" in caplog.text


def test_an_error_inside_is_not_taken_for_an_unfit_model(gpu, monkeypatch):
    side = Side(network().to_gpu())
    monkeypatch.setattr("mlp.engine.gpu.plan.step_for", lambda *_: {}["a mistake"])
    with pytest.raises(KeyError, match="a mistake"):
        side.session()


def test_another_model_or_error_is_not_taken_for_the_sessions(gpu):
    for name, other in (("model", network().to_gpu()), ("error", SumOfSquaredDiffsError())):
        side = Side(network().to_gpu())
        session = side.session()
        setattr(side.engine, name, other)
        with pytest.raises(ValueError, match="the engine has another model or error now: ask it for a new session"):
            session.run(0, 0, 1)


def test_the_last_step_is_that_of_the_session(gpu):
    side = Side(network().to_gpu())
    session = side.session()
    session.run(0, 0, 1)
    kept = [to_cpu(grad).copy() for grad in session.last_step().grads]
    inputs, labels = provider().batch(3, 1)
    side.engine.forward_backward(to_device(inputs, "gpu"), to_device(labels, "gpu"))
    for grad, before in zip(session.last_step().grads, kept, strict=True):
        np.testing.assert_array_equal(to_cpu(grad), before)


@pytest.mark.parametrize("steps", [("a", 0, 1), (0, 1.5, 2), (-1, 0, 1), (0, 0, None)])
def test_steps_that_are_no_numbers_are_refused(gpu, steps):
    with pytest.raises((TypeError, ValueError), match=r"run: (epoch|start|stop) is .*, expected a whole number"):
        Side(network().to_gpu()).session().run(*steps)


def test_a_learning_rate_of_nothing_is_refused(gpu):
    side = Side(network().to_gpu())
    side.rule.learning_rate = None
    with pytest.raises(TypeError, match="NoneType"):
        side.session().run(0, 0, 1)


def test_a_batch_larger_than_the_data(gpu):
    side, batches = Side(network().to_gpu()), provider()
    batches.batch_size = 3_000_000_000
    sums = side.engine.gpu_session(batches, side.rule).run(0, 0, 1)
    assert sums[2] == 22


def test_labels_outside_the_classes_are_refused(gpu):
    side = Side(vgg(0, num_filters=8, num_classes=5, rng=np.random.RandomState(1)).to_gpu())
    with pytest.raises(ShapeError, match=r"Engine.gpu_session: labels are 0\.\.6, expected 0\.\.4, one per output"):
        side.session()


def test_parameters_on_a_gpu_are_views_of_one_array(gpu):
    model = network(batch_norm=True).to_gpu()
    flat = model.flat_params()
    assert flat.size == sum(param.size for param in model.params)
    flat[...] = 3.0
    assert all((to_cpu(param) == 3.0).all() for param in model.params)
    model.layers[0].kernels = to_device(np.zeros((8, 3, 3, 3), np.float32), "gpu")
    assert model.flat_params() is None
    assert network().flat_params() is None
    back = network().to_gpu().to_cpu()
    assert back.flat_params() is None
    for param, other in zip(back.params, network().params, strict=True):
        np.testing.assert_array_equal(param, other)


@pytest.fixture
def folders(tmp_path):
    def new(experiment):
        folder = RunFolder.create(tmp_path, experiment.name)
        folder.write_json("config.json", {"experiment": experiment.to_dict()})
        return folder

    return new


def test_a_run_on_a_gpu_resumes_to_the_bit_and_agrees_with_the_cpu(gpu, folders, monkeypatch):
    experiment, data = tiny.VGG_BN, tiny.shapes()
    monkeypatch.setattr(runner, "STEPS_OF_A_FIRST_LOOK", 2)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)  # after every look
    whole, parts, on_cpu = (folders(experiment) for _ in range(3))
    Runner(experiment, data, whole, "gpu", quiet=True).run()
    Runner(experiment, data, on_cpu, "cpu", quiet=True).run()
    first = Runner(experiment, data, parts, "gpu", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(first.folder, "add_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            first.run()
    resumed = Runner(experiment, data, RunFolder.open(parts.path), "gpu", quiet=True)
    assert resumed.position.step == 4  # the last look before the end of the epoch
    resumed.run()
    tiny.assert_same_results(whole.path, parts.path)
    for row, other in zip(whole.metrics(), on_cpu.metrics(), strict=True):
        assert row.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        assert row.val_loss == pytest.approx(other.val_loss, rel=1e-2)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("saves", ["every look", "every epoch"])
def test_a_run_that_breaks_on_a_gpu_names_the_step_and_the_layer(gpu, folders, monkeypatch, capsys, saves):
    """The learning rate is such that the numbers overflow in a step between two looks."""
    experiment, data = replace(tiny.VGG, learning_rate=1e9), tiny.shapes()
    monkeypatch.setattr(runner, "STEPS_OF_A_FIRST_LOOK", 3)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0 if saves == "every look" else 1e9)
    folder, other = folders(experiment), folders(experiment)
    with np.errstate(all="ignore"):
        with pytest.raises(TrainingBrokeError) as on_gpu:
            Runner(experiment, data, folder, "gpu", quiet=True).run()
        with pytest.raises(TrainingBrokeError) as on_cpu:
            Runner(experiment, data, other, "cpu", quiet=True).run()
    assert "Going back to the last checkpoint, and on one by one" in capsys.readouterr().err
    found, expected = (
        re.match(r"(the training broke in epoch \d+\. step \d+: \w+, \w+)", str(error.value))[1]
        for error in (on_gpu, on_cpu)
    )
    assert found == expected
    packs = [sorted(path.name for path in (run.path / "crash").iterdir()) for run in (folder, other)]
    assert packs[0] == packs[1]


def test_a_parameter_that_breaks_after_a_finite_loss_is_seen_before_it_is_saved(gpu, folders, monkeypatch):
    experiment, data = replace(tiny.VGG, epochs=1), tiny.shapes()
    folder = folders(experiment)
    run = Runner(experiment, data, folder, "gpu", quiet=True)
    steps, real = run.train_batches.num_batches, run.session.run

    def hurt(*arguments):
        sums = real(*arguments)
        run.model.flat_params()[5] = np.inf
        return sums

    monkeypatch.setattr(run.session, "run", hurt)
    saved = folder.last_checkpoint.read_bytes()
    message = f"between steps 1 and {steps}; step by step from the last checkpoint on, it does not"
    with pytest.raises(TrainingBrokeError, match=message):
        run.run()
    assert run.position.step == steps > 1
    assert folder.last_checkpoint.read_bytes() == saved


def test_a_break_with_no_checkpoint_of_its_epoch_is_said_with_what_to_do(gpu, folders, monkeypatch):
    """The last one is lost, and the one before it is of an epoch before."""
    experiment, data = replace(tiny.VGG, epochs=3), tiny.shapes()
    folder = folders(experiment)
    run = Runner(experiment, data, folder, "gpu", quiet=True)
    real = run.session.run

    def hurt(epoch, *arguments):
        sums = real(epoch, *arguments)
        if epoch == 1:
            folder.last_checkpoint.unlink()
            run.model.flat_params()[5] = np.inf
        return sums

    monkeypatch.setattr(run.session, "run", hurt)
    with pytest.raises(TrainingBrokeError, match=r"in epoch 2, .* one of epoch 1: resume"):
        run.run()
    resumed, whole = Runner(experiment, data, RunFolder.open(folder.path), "gpu", quiet=True), folders(experiment)
    resumed.run()
    Runner(experiment, data, whole, "gpu", quiet=True).run()
    tiny.assert_same_results(whole.path, folder.path)
