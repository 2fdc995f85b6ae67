"""The options of the layers: each changes what it says, and nothing else."""

import pytest
import torch
from torch import nn

import lenext
from lenext.costing import count
from lenext.errors import UsageError
from lenext.models import VARIANTS
from lenext.nn import AuxiliaryHead
from networks import KINDS, leaves, logits_of, on_meta, params, shape_of, shapes

OTHER = {  # than what anybody's paper says
    "width": 0.5,
    "norm": "group",
    "activation": "sigmoid",
    "pooling": "avg",
    "dropout": 0.35,
    "sliced": True,
    "groups": 2,
    "group_width": 8,
    "layout": "small",
}


def honouring(option):
    return [name for name in KINDS if option in VARIANTS[name].options]


def without(kinds, *names):
    return {name: number for name, number in kinds.items() if name not in names}


def square(network):
    """Its k×k convolutions, k > 1, but the first."""
    first, *others = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    return {name: m for name, m in others if m.kernel_size[0] == m.kernel_size[1] > 1}, first


@pytest.mark.parametrize("name", list(VARIANTS))
def test_an_option_that_a_network_does_not_honour_is_refused_with_those_that_it_does(name):
    honoured = VARIANTS[name].options
    refused = {option: value for option, value in OTHER.items() if option not in honoured}
    for option, value in refused.items():
        with pytest.raises(UsageError) as refusal:
            lenext.build(name, **{option: value})
        assert str(refusal.value) == (
            f"{name}: given {option}={value!r}; of these options it honours: {', '.join(honoured) or 'none'}"
        )
    if honoured:
        on_meta(name, **{option: OTHER[option] for option in honoured if option not in ("groups", "group_width")})


def test_an_option_that_nobody_knows_or_a_value_out_of_range_is_refused():
    with pytest.raises(UsageError, match=r"unknown key 'model.widht'; did you mean 'model.width'\?"):
        lenext.build("resnet18", widht=0.5)
    with pytest.raises(UsageError, match=r"model\.norm: given 'layer', accepted: batch, group, none"):
        lenext.build("resnet18", norm="layer")
    with pytest.raises(UsageError, match=r"model\.dropout: given 1, accepted: 0 to 0\.99"):
        lenext.build("alexnet", dropout=1.0)


@pytest.mark.parametrize("name", honouring("width"))
def test_width_1_is_the_published_network_and_half_has_about_a_quarter_of_the_parameters(name):
    published = on_meta(name, size=32)
    assert shapes(on_meta(name, size=32, width=1.0)) == shapes(published)
    half, double = (on_meta(name, size=32, width=width) for width in (0.5, 2.0))
    assert leaves(half) == leaves(published)
    assert 3 < params(double) / params(published) < 4.01
    assert params(half) < params(published) / 2
    # Channels are halved, but for the classes; where they come in groups, to the nearest number of whole ones
    row = VARIANTS[name]
    for ours, theirs in zip(half.parameters(), published.parameters(), strict=True):
        assert len(ours) == len(theirs) == row.classes or abs(len(ours) - len(theirs) / 2) <= row.layers.groups / 2


@pytest.mark.parametrize("name", honouring("norm"))
def test_norm(name):
    batch, group, none = (on_meta(name, size=32, norm=norm) for norm in ("batch", "group", "none"))
    counted = leaves(batch), leaves(group), leaves(none)
    norms = counted[0]["BatchNorm2d"]
    assert norms == counted[1]["GroupNorm"] > 0
    assert not counted[0]["GroupNorm"] + counted[1]["BatchNorm2d"] + counted[2]["BatchNorm2d"] + counted[2]["GroupNorm"]
    kinds = [without(kinds, "BatchNorm2d", "GroupNorm", "Identity") for kinds in counted]
    assert kinds[0] == kinds[1] == kinds[2]
    assert params(batch) == params(group) > params(none)
    # Group norm has no memory of other images
    assert any("running" in key for key in batch.state_dict())
    assert not any("running" in key for key in group.state_dict())
    # Without norm every convolution has the bias that the norm brought; one that is sliced has it at its end
    assert all(m.bias is not None for m in none.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("name", "option", "values", "kinds"),
    [
        *((name, "activation", ("relu", "sigmoid"), ("ReLU", "Sigmoid")) for name in honouring("activation")),
        *((name, "pooling", ("max", "avg"), ("MaxPool2d", "AvgPool2d")) for name in honouring("pooling")),
    ],
)
def test_activation_and_pooling(name, option, values, kinds):
    size = VARIANTS[name].size
    networks = [on_meta(name, size=size, **{option: value}) for value in values]
    one, other = map(leaves, networks)
    assert one[kinds[0]] > 0
    assert other[kinds[0]] == 0
    assert one[kinds[0]] + one[kinds[1]] == other[kinds[1]]
    assert without(one, *kinds) == without(other, *kinds)
    assert shapes(networks[0]) == shapes(networks[1])
    # Maps keep their sizes
    macs = {count(network, channels=VARIANTS[name].channels, size=size).macs for network in networks}
    assert len(macs) == 1


@pytest.mark.parametrize("name", honouring("dropout"))
def test_dropout(name):
    network, published = on_meta(name, size=32, dropout=0.35), on_meta(name, size=32)
    heads = [m for m in network.modules() if isinstance(m, AuxiliaryHead)]
    apart = {id(m) for head in heads for m in head.modules()}
    dropped = [m.p for m in network.modules() if isinstance(m, nn.Dropout) and id(m) not in apart]
    assert dropped
    assert set(dropped) == {0.35}
    assert without(leaves(network), "Dropout") == without(leaves(published), "Dropout")
    assert shapes(network) == shapes(published)


@pytest.mark.parametrize("name", honouring("dropout"))
def test_dropout_is_in_training_only(name):
    torch.manual_seed(0)
    images = torch.randn(2, 1, 32, 32)
    for dropout, same in ((0.0, True), (0.5, False)):
        network = lenext.build(name, channels=1, size=32, width=0.125, norm="group", dropout=dropout)
        one, other = (logits_of(network.train()(images))[0] for _ in range(2))
        assert torch.equal(one, other) is same
        network.eval()
        assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", honouring("sliced"))
def test_sliced(name):
    row = VARIANTS[name]
    size = row.size
    whole, sliced = on_meta(name, size=size), on_meta(name, size=size, sliced=True)
    expected, first = square(whole)
    left, first_sliced = square(sliced)
    assert expected
    assert not left
    assert first[1].weight.shape == first_sliced[1].weight.shape
    modules = dict(sliced.named_modules())
    for place, conv in expected.items():
        flat, tall = modules[place].children()
        kernel = conv.kernel_size[0]
        assert (flat.kernel_size, tall.kernel_size) == ((1, kernel), (kernel, 1))
        assert (flat.in_channels, tall.out_channels) == (conv.in_channels, conv.out_channels)
        assert flat.weight.numel() + tall.weight.numel() <= conv.weight.numel() * 2 / kernel
    costs = [count(network, channels=row.channels, size=size) for network in (whole, sliced)]
    assert costs[1].macs < costs[0].macs
    assert costs[1].params < costs[0].params
    assert shape_of(sliced, 1, row.channels, size) == (1, row.classes)
    assert without(leaves(sliced), "Conv2d") == without(leaves(whole), "Conv2d")
    assert leaves(sliced)["Conv2d"] == leaves(whole)["Conv2d"] + len(expected)


@pytest.mark.parametrize("name", [name for name in honouring("groups") if VARIANTS[name].layers.group_width is None])
def test_groups_divide_the_parameters_of_all_larger_kernels_but_the_first(name):
    one, two = on_meta(name), on_meta(name, groups=2)
    assert leaves(one) == leaves(two)
    modules = dict(two.named_modules())
    convolutions = [(place, m) for place, m in one.named_modules() if isinstance(m, nn.Conv2d)]
    for number, (place, conv) in enumerate(convolutions):
        grouped = number > 0 and conv.kernel_size != (1, 1)
        assert modules[place].groups == 1 + grouped, place
        assert modules[place].weight.numel() * (1 + grouped) == conv.weight.numel(), place
    with pytest.raises(UsageError, match=r"groups: given 7 for a layer with \d+ channels in and \d+ out, accepted"):
        on_meta(name, groups=7)
    # Where the width is free, the channels follow
    assert shape_of(on_meta(name, groups=7, width=0.5, channels=3, size=32), 1, 3, 32) == (1, VARIANTS[name].classes)


@pytest.mark.parametrize("name", KINDS)
def test_all_options_at_once_still_train(name):
    torch.manual_seed(0)
    row = VARIANTS[name]
    options = {**OTHER, "width": 0.125, "layout": None}
    options = {option: value for option, value in options.items() if option in row.options}
    network = lenext.build(name, channels=2, classes=3, size=32, **options)
    logits = logits_of(network(torch.randn(2, 2, 32, 32)))
    assert logits.shape[1:] == (2, 3)
    logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
