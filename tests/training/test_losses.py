"""What training minimises: as published, as worked out by hand, and through a run on few images of some classes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.functional import cross_entropy
from torchvision.ops import sigmoid_focal_loss

import lenext
from lenext.data import Dataset
from lenext.record import Record
from lenext.spec import Recipe, merge
from lenext.training.losses import Loss

LABELS = np.repeat([0, 1, 2], [6, 3, 1])
WEIGHTS = (10 / 18, 10 / 9, 10 / 3)


def focal(gamma: float, **settings) -> Recipe:
    return Recipe(loss="focal", focal_gamma=gamma, **settings)


def some(n: int = 8, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, k, requires_grad=True), torch.arange(n) % k


def of_each(recipe: Recipe, logits, labels, *, others=None, shares=None, given=None) -> torch.Tensor:
    others = labels if others is None else others
    return Loss(recipe, given)(logits, labels, others, torch.ones(len(labels)) if shares is None else shares)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_of_two_classes_it_is_torchvisions_focal_loss(gamma):
    """A softmax of the scores 0 and z is a sigmoid of z."""
    z = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(33) % 2
    expected = sigmoid_focal_loss(z, labels.double(), alpha=-1, gamma=gamma)
    found = of_each(focal(gamma), torch.stack([torch.zeros_like(z), z], dim=1), labels)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(loss.sum(), z)[0] for loss in (found, expected)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize(("p", "times"), [(0.9, 100), (0.968, 1000), (0.5, 4)])
def test_an_image_that_is_classified_well_counts_as_little_as_the_paper_says(p, times):
    """Lin et al. 2017, section 3.2: with gamma 2 a hundredth at 0.9, a thousandth at about 0.968, a quarter at 0.5."""
    logits = torch.tensor([[p, 0.75 * (1 - p), 0.25 * (1 - p)]]).log()
    loss = of_each(focal(2.0), logits, torch.tensor([0])).item()
    assert -math.log(p) / loss == pytest.approx(times, rel=0.03)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}, {"class_weights": True}])
def test_with_gamma_0_it_is_cross_entropy_to_the_last_bit(settings):
    logits, labels = some()
    losses = [of_each(recipe, logits, labels, given=LABELS) for recipe in (focal(0.0, **settings), Recipe(**settings))]
    assert torch.equal(*losses)
    assert torch.equal(*(torch.autograd.grad(loss.sum(), logits)[0] for loss in losses))


def test_label_smoothing_is_of_the_cross_entropy_and_the_probability_that_of_the_label():
    logits, labels = some()
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    expected = (1 - p) ** 2 * cross_entropy(logits, labels, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(of_each(focal(2.0, label_smoothing=0.2), logits, labels), expected)


def test_slopes_stay_finite_where_an_image_is_classified_as_well_or_as_badly_as_can_be():
    logits = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0], [200.0, 0.0, 0.0]], requires_grad=True)
    for gamma in (0.3, 1.0, 2.0):
        loss = of_each(focal(gamma), logits, torch.tensor([0, 0, 0]))
        (slope,) = torch.autograd.grad(loss.sum(), logits)
        assert torch.isfinite(slope).all()
        assert loss[1].item() == pytest.approx(1000)
        torch.testing.assert_close(slope[1], torch.tensor([-1.0, 1.0, 0.0]))
        assert not slope[0].any()


def test_weighted_classes_count_equally_and_an_image_1_on_average():
    weights = Loss(Recipe(class_weights=True), LABELS).weights
    np.testing.assert_allclose(weights, WEIGHTS, rtol=1e-6)
    of_images = weights.numpy()[LABELS]
    assert of_images.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(LABELS, of_images), [10 / 3] * 3, rtol=1e-6)
    assert Loss(Recipe(class_weights=True), np.array([0, 2, 2, 2])).weights.tolist() == pytest.approx([2, 0, 2 / 3])
    assert Loss(Recipe(), LABELS).weights is None
    with pytest.raises(ValueError, match="class weights are made of the training images' labels: given none"):
        Loss(Recipe(class_weights=True))


@pytest.mark.parametrize("recipe", [Recipe(class_weights=True), focal(2.0, class_weights=True, label_smoothing=0.1)])
def test_an_image_weighs_as_its_label_and_of_a_mixed_one_each_part_as_its_own(recipe):
    logits, labels = some()
    others, shares = labels.roll(1), torch.linspace(0, 1, len(labels))
    plain = Recipe(loss=recipe.loss, label_smoothing=recipe.label_smoothing)
    weights = torch.tensor(WEIGHTS)
    expected = shares * weights[labels] * of_each(plain, logits, labels)
    expected += (1 - shares) * weights[others] * of_each(plain, logits, others)
    found = of_each(recipe, logits, labels, others=others, shares=shares, given=LABELS)
    torch.testing.assert_close(found, expected)


def test_mixed_loss_is_the_weighted_sum_of_both():
    torch.manual_seed(0)
    logits, labels, others = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 2, 0, 1, 1])
    shares = torch.tensor([1.0, 0.7, 0.5, 0.2, 0.9])
    expected = np.array([
        shares[i] * -logits[i].log_softmax(0)[labels[i]] + (1 - shares[i]) * -logits[i].log_softmax(0)[others[i]]
        for i in range(5)
    ])  # fmt: skip
    np.testing.assert_allclose(of_each(Recipe(), logits, labels, others=others, shares=shares), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """Threes, fives and eights: 90, 20 and 5 to train on, as many of each as of any other to judge on."""
    root = tmp_path_factory.mktemp("thinned")
    wanted = {"train": (90, 20, 5), "val": (15, 15, 15), "test": (30, 30, 30)}
    for name, counts in wanted.items():
        part = getattr(digits, name)
        for label, n in zip((3, 5, 8), counts, strict=True):
            folder = root / name / str(label)
            folder.mkdir(parents=True)
            for i in np.flatnonzero(part.labels == label)[:n]:
                Image.fromarray(part.images[i, :, :, 0]).save(folder / f"{i}.png")
    return root


def recalls(thinned: Path, out: Path, **recipe) -> list[float]:
    """Of threes, fives and eights in the test part."""
    recipe = {"batch_size": 10, "augment": {"shift": 0}, **recipe}
    lenext.train(str(thinned), model="softmax", loss="focal", epochs=6, settings={"recipe": recipe}, out=out)
    asked = yaml.safe_load((out / "args.yaml").read_text())["recipe"]
    assert merge(asked, recipe) == asked
    assert asked["loss"] == "focal"
    return [float(row["recall"]) for row in Record(out).read_csv("per_class.csv")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, thinned: Path) -> list[float]:
    return recalls(thinned, tmp_path_factory.mktemp("plain") / "r")


@pytest.mark.parametrize("settings", [{"class_weights": True}, {"balanced": True, "augment": {"shift": 2}}])
def test_a_rare_class_is_found_where_classes_count_equally(tmp_path, thinned, plain, settings):
    equal = recalls(thinned, tmp_path / "r", **settings)
    assert equal[2] > plain[2] + 0.1
    assert np.mean(equal) > np.mean(plain)
