"""Networks that vote: each learns as it would alone, their mean is right more often, and nobody downstream asks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lenext
from lenext.classifier import ConvNet
from lenext.comparison.asked import Asked
from lenext.data import Dataset
from lenext.errors import UsageError
from lenext.ladder import resolve
from lenext.models import VARIANTS, heads
from lenext.record import Record
from lenext.run import Result, run
from lenext.ship.explain import explain
from lenext.training.optim import lr_shares
from networks import KINDS, logits_of, narrow, on_meta, shape_of

SHORT: dict[str, Any] = {"epochs": 2, "data": {"val": 0.1}}


@pytest.fixture(scope="module")
def voting(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("voting") / "run"
    return run(resolve("digits", "lenet_relu", {**SHORT, "model": {"members": 3}}), out=out, data=digits)


def network_of(result: Result) -> ConvNet:
    classifier = lenext.load(result.bundle, verify=True).classifier
    assert isinstance(classifier, ConvNet)
    return classifier


@pytest.mark.parametrize("name", KINDS)
def test_every_network_can_vote_with_others_like_it_and_costs_as_many_times_as_much(name: str) -> None:
    options, size = narrow(VARIANTS[name]), max(32, VARIANTS[name].min_size)
    shape: dict[str, int] = {"classes": 7, "channels": 3, "size": size}
    one, three = (lenext.cost(name, **shape, **options, members=number) for number in (1, 3))
    assert (three.params, three.training_params) == (3 * one.params, 3 * one.training_params)
    assert three.macs == 3 * one.macs
    assert shape_of(on_meta(name, **shape, **options, members=3), 2, 3, size) == (2, 7)
    images = torch.empty(2, 3, size, size, device="meta")
    single, voting = (logits_of(on_meta(name, **shape, **options, members=m).train()(images)) for m in (1, 3))
    assert voting.shape == (len(single), 3 * 2, 7)


def test_its_logits_are_the_mean_of_its_members_which_begin_differently() -> None:
    torch.manual_seed(1)
    network = lenext.build("lenet_relu", members=3).eval()
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        members = [member(images) for member in network.get_submodule("members").children()]
        torch.testing.assert_close(network(images), (members[0] + members[1] + members[2]) / 3)
        torch.testing.assert_close(network.train()(images), torch.cat(members))
    assert (members[0] - members[1]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["lenet_relu", "googlenet"])
def test_a_member_learns_as_it_would_alone(name: str, digits: Dataset, tmp_path: Path) -> None:
    # The first member begins with the weights that one network with the same seed has; with clipped gradients and,
    # of GoogLeNet, with auxiliary heads
    layers = {"recipe": {"clip_norm": 1.0, "ema": 0.0}, "model": {}}
    if name == "googlenet":
        layers |= {"epochs": 0.2, "model": {"width": 0.125, "dropout": 0.0}, "recipe": {"auxiliary": 0.3, "lr": 0.01}}
    results = [
        run(resolve("digits", name, {"epochs": 1}, layers, {"model": {**layers["model"], "members": m}}),
            out=tmp_path / str(m), data=digits, page=False)
        for m in (1, 2)
    ]  # fmt: skip
    losses = [Record.open(result.root).history()[-1]["train_loss"] for result in results]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)  # the mean of both, not their sum
    alone, both = map(network_of, results)
    found = both.network.get_submodule("members.0").state_dict()
    for key, value in alone.network.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=2e-3, atol=2e-3, msg=key)
    other = both.network.get_submodule("members.1").state_dict()
    assert any((other[key] - found[key]).abs().max() > 0.05 for key in found if key.endswith("weight"))


def test_it_is_right_more_often_than_its_members(voting: Result, digits: Dataset) -> None:
    model, labels = network_of(voting), np.concatenate([digits.val.labels, digits.test.labels])
    images = np.concatenate([digits.val.images, digits.test.images])
    right = (model.scores(images).argmax(1) == labels).mean()
    alone = []
    for member in list(model.network.get_submodule("members").children()):
        model.network = member
        alone.append((model.scores(images).argmax(1) == labels).mean())
    assert right > np.mean(alone)


def test_a_bundle_of_it_gives_the_runs_answers_and_says_what_it_is(voting: Result, digits: Dataset) -> None:
    bundle = lenext.load(voting.bundle, verify=True)
    assert bundle.metadata["model"]["members"] == 3
    assert (bundle.scores(digits.test.images).argmax(1) == digits.test.labels).mean() == voting.accuracy
    assert voting.summary["macs"] == 3 * lenext.cost("lenet_relu", classes=10, channels=1, size=28).macs
    assert "members: 3" in (voting.root / "args.yaml").read_text()


def test_what_speaks_for_a_class_is_the_mean_of_what_its_members_see(voting: Result, digits: Dataset) -> None:
    bundle, image = lenext.load(voting.bundle), digits.test.images[0]
    model = bundle.classifier
    assert isinstance(model, ConvNet)
    found = explain(bundle, image, "3")
    members, seen = list(model.network.get_submodule("members").children()), []
    for member in members:
        model.network = member
        seen.append(explain(bundle, image, "3").evidence)
    assert found.method == "Grad-CAM"
    np.testing.assert_allclose(found.evidence, np.mean(seen, axis=0), rtol=1e-3, atol=1e-5)


def test_each_member_has_a_head_and_rates_that_rise_to_it() -> None:
    network, alone = lenext.build("resnet20", width=0.25, members=2), lenext.build("resnet20", width=0.25)
    assert len(heads(network)) == 2
    shares = lr_shares(network, 0.01)
    expected = [share for _, share in sorted((name, lr_shares(alone, 0.01)[p]) for name, p in alone.named_parameters())]
    for member in network.get_submodule("members").children():
        found = [share for _, share in sorted((name, shares[p]) for name, p in member.named_parameters())]
        assert found == expected


def test_in_a_comparison_their_number_follows_the_width() -> None:
    spec = Asked("digits").spec("resnet9@0.5x3+flip")
    assert (spec.model.width, spec.model.members, spec.model.mirror) == (0.5, 3, True)
    assert Asked("digits", settings={"model": {"members": 2}}).spec("lenet").model.members == 2
    assert Asked("digits").spec("resnext29_2x32d@0.25").model.members == 1
    assert Asked("digits", settings={"model": {"members": 2}}).spec("svm_linear").model.members == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "model.members: given 0, accepted: 1 to 100"),
        ({"members": 2.5}, "model.members: given 2.5, accepted: a whole number"),
        ({"members": 2, "weights": "IMAGENET1K_V1"}, "resnet18: given members=2 and weights, accepted: one of them"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        lenext.build("resnet18", **options)
    assert message in str(refusal.value)
    with pytest.raises(UsageError, match=r"model\.members: given 'many', accepted: a whole number"):
        Asked("digits").spec("resnet9@1xmany")
    with pytest.raises(UsageError, match=r"model\.members: svm_linear does not read it"):
        resolve("digits", "svm_linear", {"model": {"members": 2}})
