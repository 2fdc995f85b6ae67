"""GoogLeNet and Inception-v4: maps, auxiliary heads, and that they learn."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import lenext
from lenext.costing import count
from lenext.nn import AuxiliaryHead, without_auxiliary
from networks import logits_of, on_meta, params


def sides(network, places, *, channels, size):
    """The sides of the maps that leave the modules named."""
    found = {}
    for place in places:
        network.get_submodule(place).register_forward_hook(
            lambda _module, _inputs, output, place=place: found.update({place: output.shape[-1]})
        )
    with torch.no_grad():
        network.eval()(torch.empty(1, channels, size, size, device="meta"))
    return [found[place] for place in places]


@pytest.mark.parametrize(
    ("size", "expected"),
    # 224 px: table 1 of the paper
    [(224, [112, 56, 28, 14, 7]), (28, [28, 28, 14, 7, 4]), (32, [32, 32, 16, 8, 4]), (8, [8, 8, 4, 2, 1])],
)
def test_googlenets_maps(size, expected):
    places = ["conv1", "conv3", "inception3b", "inception4e", "inception5b"]
    assert sides(on_meta("googlenet", size=size), places, channels=3, size=size) == expected


@pytest.mark.parametrize(
    ("size", "layout", "expected"),
    # 299 px: figure 9 of the paper
    [
        (299, "large", [149, 147, 147, 73, 71, 35, 35, 17, 17, 8, 8]),
        (75, "large", [37, 35, 35, 17, 15, 7, 7, 3, 3, 1, 1]),
        (28, "small", [28, 28, 28, 13, 13, 13, 13, 6, 6, 2, 2]),
        (15, "small", [15, 15, 15, 7, 7, 7, 7, 3, 3, 1, 1]),
    ],
)
def test_inception_v4s_maps(size, layout, expected):
    network = on_meta("inception_v4", size=size)
    assert str(network) == str(on_meta("inception_v4", size=size, layout=layout))
    places = [f"features.{place}" for place in (0, 1, 2, 3, 4, 5, 9, 10, 17, 18, 21)]
    assert sides(network, places, channels=3, size=size) == expected


def test_googlenet_has_auxiliary_heads_in_training_only():
    torch.manual_seed(0)
    network = lenext.build("googlenet", classes=5, channels=1, size=28, width=0.125)
    images = torch.randn(4, 1, 28, 28)
    outputs = network.train()(images)
    assert [tuple(logits.shape) for logits in outputs] == [(4, 5)] * 3
    assert network.eval()(images).shape == (4, 5)


def test_the_auxiliary_heads_hang_where_the_paper_has_them():
    network = lenext.build("googlenet", classes=5, channels=1, size=28, width=0.125)
    logits, second, first = network.train()(torch.randn(4, 1, 28, 28))
    reach = {"inception4a": [1, 1, 1], "inception4b": [1, 1, 0], "inception4d": [1, 1, 0], "inception4e": [1, 0, 0],
             "aux1": [0, 0, 1], "aux2": [0, 1, 0], "fc": [1, 0, 0]}  # fmt: skip
    for place, expected in reach.items():
        weight = next(network.get_submodule(place).parameters())
        gradients = [
            torch.autograd.grad(output.sum(), weight, retain_graph=True, allow_unused=True)[0]
            for output in (logits, second, first)
        ]
        assert [gradient is not None for gradient in gradients] == [bool(reached) for reached in expected], place


def test_without_its_auxiliary_heads_a_network_predicts_the_same():
    torch.manual_seed(0)
    network = lenext.build("googlenet", classes=5, channels=1, size=28, width=0.125).eval()
    images = torch.randn(2, 1, 28, 28)
    expected = network(images)
    assert without_auxiliary(network) is network
    assert not any(isinstance(m, AuxiliaryHead) for m in network.modules())
    assert not any(key.startswith("aux") for key in network.state_dict())
    assert torch.equal(network(images), expected)
    assert network.train()(images).shape == (2, 5)
    assert without_auxiliary(network) is network  # there is nothing left to take


def test_googlenets_parameters_with_and_without_its_auxiliary_heads():
    network = on_meta("googlenet")
    assert params(network) == 13_004_888  # torchvision's, with aux_logits
    assert params(without_auxiliary(network)) == 6_624_904
    assert round(count(network, channels=3, size=224).macs / 1e9, 3) == 1.498
    resnet = on_meta("resnet18")
    assert params(without_auxiliary(resnet)) == params(on_meta("resnet18"))


def test_the_heads_keep_their_own_dropout():
    network = on_meta("googlenet", dropout=0.35)
    assert (network.dropout.p, network.aux1.dropout.p, network.aux2.dropout.p) == (0.35, 0.7, 0.7)
    published = on_meta("googlenet").dropout.p, on_meta("inception_v4").head_drop.p
    assert published == (0.2, 0.2)  # torchvision; the paper of Inception-v4 keeps 0.8


@pytest.mark.parametrize("name", ["googlenet", "inception_v4"])
def test_a_few_steps_on_digits_reduce_the_loss(name):
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:24], dtype=torch.float32)[:, None] / 8 - 1
    images, labels = F.interpolate(images, size=32, mode="bilinear"), torch.tensor(digits.target[:24])
    network = lenext.build(name, classes=10, channels=1, size=32, width=0.125)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(30):
        of_heads = torch.stack([F.cross_entropy(logits, labels) for logits in logits_of(network(images))])
        optimizer.zero_grad()
        of_heads.sum().backward()
        optimizer.step()
        losses.append(of_heads[0].item())
    assert losses[0] < 3.5  # guessing costs 2.3: the scores begin small
    assert min(losses[-3:]) < losses[0] - 0.3
