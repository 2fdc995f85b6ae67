"""Training: learns as well as the reference, ends in time, stops when it makes no sense."""

import copy
import dataclasses
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import lenext
from lenext.errors import DivergenceError, UsageError
from lenext.ladder import resolve
from lenext.models import VARIANTS
from lenext.run import run
from lenext.spec import Model, Recipe
from lenext.training import recipe_for
from lenext.training.budget import Pace
from lenext.training.optim import MovingAverage, make_optimizer, parameter_groups
from lenext.training.precision import choose_precision
from lenext.training.schedule import lr_factor
from lenext.training.shards import Shards


@pytest.fixture
def threads():
    """For tests that set their number; afterwards it is what it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_softmax_regression_is_as_good_as_scikit_learns(tmp_path, digits):
    result = run(resolve("digits", "softmax", {}), out=tmp_path / "r", data=digits)
    flat = [part.images.reshape(len(part), -1) / 255 for part in (digits.train, digits.test)]
    reference = LogisticRegression(max_iter=1000).fit(flat[0], digits.train.labels).score(flat[1], digits.test.labels)
    assert result.accuracy >= reference - 0.01


def test_lenet_relu_reads_digits(run):
    assert run.accuracy >= 0.965  # 12 epochs; the full recipe's figure is in benchmarks/


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, digits):
    spec = resolve("digits", "lenet_relu", {"epochs": 1})
    results = [
        run(dataclasses.replace(spec, seed=seed), out=tmp_path / str(number), data=digits)
        for number, seed in enumerate((1, 1, 2))
    ]
    files = [result.bundle.read_bytes() for result in results]
    assert files[0] == files[1] != files[2]


def test_a_mad_learning_rate_stops_with_advice(tmp_path, digits):
    spec = resolve("digits", "lenet_relu", {"epochs": 2, "recipe": {"lr": 1e5}})
    with pytest.raises(DivergenceError, match=r"training diverged: .* try --set recipe.lr=2.5e\+04"):
        run(spec, out=tmp_path / "r", data=digits)


def test_every_network_has_a_recipe():
    for name in VARIANTS:
        assert recipe_for(Model(name)).lr > 0


def test_settings_a_model_does_not_read_are_refused():
    with pytest.raises(UsageError, match="svm: lenet does not read these settings"):
        resolve("digits", "lenet", {"svm": {"c": 1.0}})
    with pytest.raises(UsageError, match="recipe: svm_linear does not read these settings"):
        resolve("digits", "svm_linear", {"recipe": {"lr": 1.0}})
    with pytest.raises(UsageError, match=r"unknown model 'lennet'; did you mean 'lenet'\?"):
        resolve("digits", "lennet", {})


class SimulatedClock:
    now = 0.0

    def seconds(self) -> float:
        return self.now


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 3.0])
def test_a_budget_is_kept_when_the_machine_changes_its_speed_half_way(slowdown):
    clock = SimulatedClock()
    pace = Pace(total_steps=None, deadline=60.0, clock=clock)
    pace.measured(0.01)
    pace.validated(0.2, steps_between=100)
    progress, step, factors = 0.0, 0, []
    while progress < 1.0:
        advance = pace.advance(progress, step)
        seconds = 0.01 * (slowdown if clock.now > 30 else 1.0)
        clock.now += seconds
        pace.measured(seconds)
        progress = min(1.0, progress + advance)
        step += 1
        if step % 100 == 0 or progress >= 1.0:
            clock.now += 0.2  # a validation
        factors.append(lr_factor(Recipe(), progress))
    assert 57.0 < clock.now < 60.1  # a few steps
    assert factors[-1] == 0.0  # the schedule ran to its end


@pytest.mark.parametrize(("slower", "steps", "ended"), [(1.0, 500, 5.0), (100.0, None, 60.0)])
def test_of_a_number_of_steps_and_a_deadline_whichever_comes_sooner(slower, steps, ended):
    clock = SimulatedClock()
    pace = Pace(total_steps=500, deadline=60.0, clock=clock)
    pace.measured(0.01)
    progress, step = 0.0, 0
    while progress < 1.0:
        advance = pace.advance(progress, step)
        clock.now += 0.01 * slower
        pace.measured(0.01 * slower)
        progress = min(1.0, progress + advance)
        step += 1
    assert steps is None or step == steps
    assert clock.now == pytest.approx(ended, abs=1.1)  # a step


def test_a_number_of_epochs_is_kept_exactly():
    pace = Pace(total_steps=7, deadline=None, clock=SimulatedClock())
    progress = 0.0
    for step in range(7):
        assert progress < 1.0
        progress += pace.advance(progress, step)
    assert progress == 1.0


def test_schedules_have_the_papers_shapes():
    cosine, line = Recipe(schedule="cosine", warmup=0.2), Recipe(schedule="one_cycle", warmup=0.2)
    for recipe in (cosine, line):
        assert lr_factor(recipe, 0.0) < 0.05
        assert lr_factor(recipe, 0.2) == pytest.approx(1.0)
        assert lr_factor(recipe, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert lr_factor(cosine, 0.6) == pytest.approx(0.5)  # half way down
    assert lr_factor(cosine, 0.4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(line, 0.4) == pytest.approx(0.75)
    assert lr_factor(Recipe(schedule="constant", warmup=0.0), 1.0) == 1.0


def test_weight_decay_is_for_weights_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2))
    decayed, plain = parameter_groups(network)
    assert {id(p) for p in decayed} == {id(network[0].weight), id(network[3].weight)}
    assert len(plain) == 6
    groups = make_optimizer(network, Recipe(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_optimizers_descend(optimizer):
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    chosen = make_optimizer(layer, Recipe(optimizer=optimizer, lr=0.05))
    inputs, target = torch.randn(64, 4), torch.randn(64, 1)
    losses = []
    for _ in range(50):
        loss = (layer(inputs) - target).square().mean()
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_moving_average_of_a_constant_is_the_constant_and_of_a_ramp_lags():
    layer = nn.Linear(1, 1, bias=False)
    average = MovingAverage(layer, share=0.1)
    steps = 1000
    for step in range(steps):
        layer.weight.data.fill_(step / steps)
        average.update(step / steps, 1 / steps)
    # An exponential average with time constant τ lags a ramp by τ
    assert average.network.weight.item() == pytest.approx(1 - 0.1, abs=0.005)
    assert MovingAverage(layer, share=0.0).network is layer


def test_precision_is_what_the_machine_has():
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu).dtype == torch.float32
    assert choose_precision("auto", cpu).name in ("bf16", "float32")


@pytest.mark.parametrize(("channels", "batch"), [(1, 128), (3, 30)])
def test_a_batch_cut_among_cores_has_the_gradients_of_the_whole(channels, batch, threads):
    torch.manual_seed(0)
    network = lenext.build("lenet_relu", classes=10, channels=channels, size=28)
    twin = copy.deepcopy(network)
    images, labels = torch.randn(batch, channels, 28, 28), torch.randint(0, 10, (batch,))

    def loss_of(model, part):
        logits = model(images[part])
        return nn.functional.cross_entropy(logits, labels[part], reduction="sum") / batch, logits

    torch.set_num_threads(3)
    shards = Shards(network, macs=10_000_000, at_once=batch)
    assert len(shards.models) == 3
    loss, logits = shards.gradients(loss_of, batch)
    whole = nn.functional.cross_entropy(twin(images), labels)
    whole.backward()
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    assert logits.shape == (batch, 10)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_each_part_is_normalised_by_itself_and_batch_norm_remembers_their_average(threads):
    torch.manual_seed(0)
    network = lenext.build("resnet20", channels=1, size=28, width=0.5)
    images, labels = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
    halves = [copy.deepcopy(network) for _ in range(2)]

    def loss_of(model, part):
        logits = model(images[part])
        return nn.functional.cross_entropy(logits, labels[part], reduction="sum") / 64, logits

    torch.set_num_threads(2)
    shards = Shards(network, macs=10_000_000, at_once=64)
    assert len(shards.models) == 2
    shards.gradients(loss_of, 64)
    for half, part in zip(halves, (slice(0, 32), slice(32, 64)), strict=True):
        loss_of(half, part)[0].backward()
    for one, first, second in zip(network.parameters(), *(half.parameters() for half in halves), strict=True):
        torch.testing.assert_close(one.grad, first.grad + second.grad, rtol=1e-4, atol=1e-6)
    for one, first, second in zip(network.buffers(), *(half.buffers() for half in halves), strict=True):
        torch.testing.assert_close(one.double(), (first.double() + second.double()) / 2, rtol=1e-5, atol=1e-7)


def test_what_is_dropped_is_a_function_of_seed_and_part(threads):
    torch.manual_seed(0)
    network = lenext.build("lenet_relu", dropout=0.5)
    images = torch.randn(2, 1, 28, 28).repeat(64, 1, 1, 1)

    def loss_of(model, part):
        logits = model(images[part])
        return logits.square().mean(), logits

    torch.set_num_threads(2)
    shards = Shards(network, macs=10_000_000, at_once=128)
    assert len(shards.models) == 2
    found = [shards.gradients(loss_of, 128, seed)[1] for seed in (5, 5, 6)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0][:64], found[0][64:])  # the same images, other numbers dropped


def test_a_batch_stays_whole_where_cutting_would_show_or_not_pay(threads):
    torch.set_num_threads(4)

    def number(*layers, macs=1_000_000, at_once=128):
        return len(Shards(nn.Sequential(nn.Linear(10, 10), *layers), macs=macs, at_once=at_once).models)

    assert number() == 4
    assert number(nn.Dropout(0.5)) == 1  # draws from one generator
    assert number(nn.BatchNorm1d(10), at_once=63) == 1  # statistics of at least 32 images
    assert number(nn.BatchNorm1d(10), at_once=100) == 3
    assert number(macs=2_000_000_000) == 1
    assert number(macs=1_000) == 1
