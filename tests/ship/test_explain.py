"""Where a classifier looked: by the formulas of the papers, and where we know what is to be seen."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

import lenext
from lenext.classical import fit
from lenext.classifier import Classifier, ConvNet
from lenext.data import Dataset, Preprocess, encode_png, prepare, preprocess
from lenext.errors import DataError, UsageError
from lenext.ladder import LADDER, resolve
from lenext.models import VARIANTS, Shape
from lenext.nn import Layers, Units, without_auxiliary
from lenext.run import Result
from lenext.run import run as run_spec
from lenext.ship.bundle import Bundle, load
from lenext.ship.explain import Explanation, explain
from lenext.spec import Data, Model, Recipe, Run
from lenext.training.recipes import RECIPES
from tuxpaint import stamp_files

Image = NDArray[np.uint8]
CLASSES = tuple("abcdefg")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Networks have the same weights each time."""
    torch.manual_seed(0)


def picture(size: int, channels: int = 3) -> Image:
    """One of the stamps."""
    settings = Preprocess(size=size, channels=3 if channels == 3 else 1)
    return preprocess(stamp_files()[7].read_bytes(), settings)


def bundle_of(network: nn.Module, size: int, channels: int = 3, **views: Any) -> Bundle:
    """The network as it is, with normalisation."""
    settings = Preprocess(size=size, channels=3 if channels == 3 else 1)
    mean, std = np.full(channels, 120, np.float32), np.full(channels, 60, np.float32)
    model = ConvNet(without_auxiliary(network), CLASSES, settings, mean=mean, std=std, **views).eval()
    run = Run(Data("made up", size=size), Model("made_up"))
    return Bundle.create(model, run, metrics={}, fingerprint="", golden_files=[])


def normal(image: Image) -> Tensor:
    return (torch.from_numpy(image[None].transpose(0, 3, 1, 2).astype(np.float32)) - 120) / 60


def grad_cam(network: nn.Module, layer: nn.Module, x: Tensor, label: int) -> Tensor:
    """Equations 1 and 2 of Selvaraju et al. 2017, by hooks on `layer`: the weighted sum before ReLU, [h, w]."""
    kept: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _args: Any, out: Tensor) -> None:
        kept["map"] = out
        out.register_hook(lambda gradient: kept.update(gradient=gradient))

    handle = layer.register_forward_hook(keep)
    network(x)[0, label].backward()
    handle.remove()
    _, channels, high, wide = kept["map"].shape
    cam = torch.zeros(high, wide)
    for k in range(channels):
        cam += kept["gradient"][0, k].sum() / (high * wide) * kept["map"][0, k].detach()
    return cam


def check(evidence: NDArray[np.float32], cam: Tensor) -> None:
    """The ReLU of the map, at the image's size."""
    expected = F.interpolate(cam.relu()[None, None], evidence.shape, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(evidence, expected.numpy(), atol=1e-3 * float(cam.abs().max()))


def compare(bundle: Bundle, image: Image, book: nn.Module, layer: nn.Module) -> None:
    """Of the first classes, until there is one that something speaks for."""
    for label, name in enumerate(CLASSES):
        found = explain(bundle, image, name)
        assert (found.method, found.label) == ("Grad-CAM", name)
        check(found.evidence, grad_cam(book, layer, normal(image), label))
        if found.evidence.any():
            assert found.heat.max() == 1
            return
    raise AssertionError("nothing speaks for any class")


def by_the_book(network: nn.Module) -> nn.Module:
    """Layers one after another as they stand, none in place, so that hooks see what each of them gives."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Units):
                setattr(module, name, nn.Sequential(*child))
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


@pytest.mark.parametrize(
    ("name", "layer", "make"),
    [("resnet18", "layer4", torchvision.models.resnet18), ("alexnet_owt", "features.11", torchvision.models.alexnet)],
)
def test_grad_cam_is_that_of_torchvisions_network(name: str, layer: str, make: Callable[..., nn.Module]) -> None:
    theirs = by_the_book(make(num_classes=len(CLASSES))).eval()
    ours = lenext.build(name, classes=len(CLASSES), channels=3, size=80, layout="large")
    ours.load_state_dict(theirs.state_dict())
    compare(bundle_of(ours, 80), picture(80), theirs, theirs.get_submodule(layer))


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("lenet", "4", 28),
        ("alexnet", "features.11", 28),
        ("vgg11_bn", "features.20", 28),  # the last block sees one pixel
        ("googlenet", "inception5b", 32),
        ("googlenet", "inception4e", 64),  # the last blocks see 2 × 2
        ("inception_v4", "features.21", 32),
        ("resnet20", "layer3", 32),
        ("resnext29_2x8d", "layer3", 28),
        ("resnet9", "2", 28),
    ],
)
def test_grad_cam_looks_at_the_last_map_that_has_places(name: str, layer: str, size: int) -> None:
    width = {} if name == "lenet" else {"width": 0.125}
    network = lenext.build(name, classes=len(CLASSES), channels=1, size=size, **width).eval()
    bundle, book = bundle_of(copy.deepcopy(network), size, 1), by_the_book(network)
    compare(bundle, picture(size, 1), book, book.get_submodule(layer))


def test_lenets_map_is_that_of_relu_before_pooling() -> None:
    network = lenext.build("lenet_relu", classes=len(CLASSES), channels=1, size=28).eval()
    bundle, image = bundle_of(copy.deepcopy(network), 28, 1), picture(28, 1)
    conv1, pool1, _, conv2, pool2, _, *dense = by_the_book(network).children()
    book = nn.Sequential(conv1, nn.ReLU(), pool1, conv2, nn.ReLU(), pool2, *dense)
    compare(bundle, image, book, book[4])


class Functional(nn.Module):
    """As many write it: nothing but convolutions are modules."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, classes)

    def last_map(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        return F.relu(self.second(x)) + x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last_map(x).mean((2, 3)))  # type: ignore[no-any-return]


class TwoWays(Functional):
    """A ReLU comes next to a max pooling without being of what was pooled."""

    def last_map(self, x: Tensor) -> Tensor:
        x = self.first(x)
        finer = self.second(x)[:, :, ::2, ::2]
        pooled = F.max_pool2d(x, 2)
        return F.relu(finer) + pooled


@pytest.mark.parametrize("make", [Functional, TwoWays])
def test_a_network_of_ones_own_whose_layers_are_functions(make: type[Functional]) -> None:
    network, image = make(len(CLASSES)).eval(), picture(32)
    with torch.no_grad():
        found = network.last_map(normal(image))[0]
    # The gradient of a score over the map of so many pixels is the head's weight over their number (Zhou et al. 2016)
    for label, weights in enumerate(network.head.weight.detach()):
        cam = torch.einsum("k,khw->hw", weights, found) / found[0].numel()
        check(explain(bundle_of(network, 32), image, CLASSES[label]).evidence, cam)


def test_with_several_views_it_is_their_mean_each_put_back_to_its_place() -> None:
    network, image = Functional(len(CLASSES)).eval(), picture(32)
    found = explain(bundle_of(network, 32, mirror=True, shift=2), image, "b").evidence
    background = np.full((2, 32, 3), 120, np.uint8)  # which is 0 to the network
    expected = np.zeros((32, 32), np.float32)
    for rows in (0, -2, 2):
        parts = {0: [image], 2: [background, image[:-2]], -2: [image[2:], background]}
        view = np.concatenate(parts[rows])
        for mirrored in (False, True):
            alone = explain(
                bundle_of(network, 32), np.ascontiguousarray(view[:, ::-1]) if mirrored else view, "b"
            ).evidence
            alone = alone[:, ::-1] if mirrored else alone
            low, high = max(0, -rows), min(32, 32 - rows)
            expected[low:high] += alone[low + rows : high + rows] / 6
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_softmax_regression_is_a_sum_over_pixels() -> None:
    network = lenext.build("softmax", classes=len(CLASSES), channels=1, size=28)
    linear = network[1]
    assert isinstance(linear, nn.Linear)
    nn.init.normal_(linear.weight)
    nn.init.normal_(linear.bias)
    bundle, image = bundle_of(network, 28, 1), picture(28, 1)
    found = explain(bundle, image, "d")
    assert found.method == "gradient × pixels"
    by_hand = linear.weight.detach().numpy()[3].reshape(28, 28) * ((image[..., 0] - 120.0) / 60)
    np.testing.assert_allclose(found.evidence, by_hand, atol=1e-4)
    assert found.evidence.sum() == pytest.approx(bundle.scores(image[None])[0, 3] - linear.bias[3].item(), abs=1e-2)


class Scores:
    """An engine: of a classifier the scores alone."""

    def __init__(self, classifier: Classifier) -> None:
        self.classes, self.preprocess, self.scores = classifier.classes, classifier.preprocess, classifier.scores


# ---- classical rungs ----

SMALL: dict[str, dict[str, Any]] = {
    "svm_linear": {},
    "hog_svm": {},
    "bow_sift": {"codebook": {"words": 24, "sample": 4000}},
    "bow_surf": {"codebook": {"words": 24, "sample": 4000}},
    "vlad_sift": {"codebook": {"words": 8, "pca": 16, "sample": 4000}},
    "fisher_sift": {"codebook": {"words": 8, "pca": 16, "sample": 4000}},
}


def fitted(name: str, digits: Dataset, folder: Path, settings: dict[str, Any]) -> Bundle:
    """A classical rung, of some of the digits."""
    run, train, val = resolve("digits", name, settings), digits.train, digits.val
    found = fit(run, train.images[:300], train.labels[:300], val.images, val.labels, classes=digits.classes,
                preprocess=digits.preprocess, folder=folder)  # fmt: skip
    return Bundle.create(found.classifier, found.run, metrics={}, fingerprint="", golden_files=[])


@pytest.mark.parametrize("name", SMALL)
def test_votes_add_up_to_the_score_without_its_bias(name: str, digits: Dataset, tmp_path: Path) -> None:
    bundle = fitted(name, digits, tmp_path, {"svm": {"c": 1.0}, **SMALL[name]})
    bias = bundle.classifier.machine.bias * np.float32(bundle.classifier.scale)  # type: ignore[attr-defined]
    images = digits.test.images[:6]
    for image, scores in zip(images, bundle.scores(images), strict=True):
        for label in (0, int(scores.argmax())):
            found = explain(bundle, image, digits.classes[label])
            assert found.method == "votes"
            assert found.evidence.shape == (28, 28)
            expected = pytest.approx(scores[label] - bias[label], abs=2e-3 * float(abs(scores).max()))
            assert found.evidence.sum(dtype=np.float64) == expected


def test_a_kernel_machine_is_explained_by_covering(digits: Dataset, tmp_path: Path) -> None:
    bundle = fitted("svm_rbf", digits, tmp_path, {"svm": {"c": 3.0, "gamma": 1.0}})
    image = digits.test.images[0]
    found = explain(bundle, image)
    assert found.method == "occlusion"

    def odds(scores: NDArray[np.float32]) -> float:
        p = np.exp(scores[0]) / np.exp(scores[0]).sum()
        k = digits.classes.index(found.label)
        return float(np.log(p[k] / (1 - p[k])))

    # The corner is in one square of 4 × 4 pixels alone, of 28 / 7
    covered = image.copy()
    covered[:4, :4] = round(float(image.mean()))
    fall = odds(bundle.scores(image[None])) - odds(bundle.scores(covered[None]))
    assert found.evidence[0, 0] == pytest.approx(fall, abs=1e-4)


def test_any_classifier_that_gives_scores_is_explained(run: Result, digits: Dataset) -> None:
    bundle = load(run.bundle)
    found = explain(dataclasses.replace(bundle, classifier=Scores(bundle.classifier)), digits.test.images[0])
    assert found.method == "occlusion"
    assert found.heat.max() == 1


# ---- what is to be seen ----


def small(shape: Shape, layers: Layers) -> nn.Module:
    """Sees an object wherever it is."""
    units: list[nn.Module] = []
    for before, after in ((shape.channels, 16), (16, 32), (32, 32)):
        units += [*layers.conv_unit(before, after, 3, first=not units), layers.pool(2, stride=2)]
    return nn.Sequential(*units, *layers.conv_unit(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(32, shape.classes))  # fmt: skip


@pytest.fixture(scope="module")
def corners(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, Dataset]]:
    """Digits in a corner of a canvas four times as large, and a small network that tells three of them apart there."""
    lenext.add_rung("small_one", small, recipe=Recipe(lr=0.1, epochs=8), layers=Layers(norm="batch"))
    root = tmp_path_factory.mktemp("corners")
    data = prepare(Data(str(canvases(digits, root / "pictures")), size=56))
    made = run_spec(resolve(str(root / "pictures"), "small_one"), out=root / "run", data=data, page=False)
    yield load(made.bundle), data
    for table in (LADDER, VARIANTS, RECIPES):
        table.pop("small_one", None)


def canvases(digits: Dataset, root: Path) -> Path:
    """Files of the digits 0, 1 and 2 in the corners in turn, which their names tell."""
    for label in range(3):
        (root / digits.classes[label]).mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(digits.train.labels == label)):
            top, left = (i // 2) % 2, i % 2
            canvas = np.zeros((56, 56, 1), np.uint8)
            canvas[28 * top : 28 * top + 28, 28 * left : 28 * left + 28] = digits.train.images[row]
            (root / digits.classes[label] / f"{top}{left}-{i}.png").write_bytes(encode_png(canvas))
    return root


def share_in_corner(heat: NDArray[np.float32], path: str) -> float:
    """How much of the heat is in the quarter where the object is."""
    top, left = int(Path(path).name[0]), int(Path(path).name[1])
    return float(heat[28 * top : 28 * top + 28, 28 * left : 28 * left + 28].sum() / heat.sum())


def test_the_heat_is_where_the_object_is(corners: tuple[Bundle, Dataset]) -> None:
    bundle, data = corners
    assert bundle.metadata["metrics"]["accuracy"] > 0.9
    images, paths = data.test.images[:16], data.test.paths[:16]
    shares = [share_in_corner(explain(bundle, image).heat, path) for image, path in zip(images, paths, strict=True)]
    assert np.mean(shares) > 0.75  # a quarter by chance
    assert min(shares) > 0.4
    engine = dataclasses.replace(bundle, classifier=Scores(bundle.classifier))
    covered = [share_in_corner(explain(engine, image).heat, path) for image, path in zip(images, paths, strict=True)]
    assert np.mean(covered) > 0.75


def test_the_overlay_is_the_picture_in_gray_with_colour_where_the_heat_is() -> None:
    image = picture(56)
    evidence = np.full((56, 56), -1, np.float32)
    evidence[8:20, 30:40] = 2
    evidence[30:40, 30:40] = 1
    found = Explanation(image, "a", "votes", evidence)
    assert found.heat[10, 35] == 1
    assert found.heat[35, 35] == 0.5
    assert (found.overlay.shape, found.overlay.dtype) == ((224, 224, 3), np.uint8)
    gray = np.asarray(PIL.Image.fromarray(image).convert("L")).astype(int)  # ITU-R BT.601
    assert abs(found.overlay[:, :112:4].astype(int) - gray[np.arange(224) // 4, :28, None]).max() <= 1
    hot, warm, cold = (found.overlay[4 * y, 4 * x].astype(int) for y, x in ((14, 35), (35, 35), (50, 35)))
    assert hot[0] > hot[2] + 100
    assert warm[0] > warm[2] + 20
    assert np.ptp(cold) <= 1
    large = Explanation(picture(230), "a", "votes", np.zeros((230, 230), np.float32))
    assert large.overlay.shape == (230, 230, 3)


def test_the_likeliest_class_unless_another_is_asked_for(run: Result, digits: Dataset) -> None:
    bundle, image = load(run.bundle), digits.test.images[0]
    assert explain(bundle, image).label == digits.classes[int(bundle.scores(image[None]).argmax())]
    assert explain(bundle, image, "7").label == "7"
    with pytest.raises(UsageError, match="class 'seven': the model does not know it; accepted: 0, 1, 2"):
        explain(bundle, image, "seven")
    with pytest.raises(DataError, match=r"accepted: uint8 \[N, 28, 28, 1\]"):
        explain(bundle, image[:20])


def test_explaining_changes_nothing(run: Result, digits: Dataset) -> None:
    bundle, images = load(run.bundle), digits.test.images[:4]
    before = bundle.scores(images)
    with torch.no_grad():
        explain(bundle, images[0])
    assert all(weights.grad is None for weights in bundle.classifier.parameters())  # type: ignore[attr-defined]
    assert (bundle.scores(images) == before).all()


def test_a_picture_of_one_colour_and_one_without_any_evidence() -> None:
    network = Functional(len(CLASSES))
    nn.init.zeros_(network.head.weight)
    found = explain(bundle_of(network, 32), np.full((32, 32, 3), 255, np.uint8), "a")
    assert (found.heat == 0).all()
    assert (found.overlay == 255).all()
