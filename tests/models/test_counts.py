"""Parameters and multiply-adds are those of the papers and of torchvision, to the last digit given."""

import functools

import pytest
import torchvision
from torch import nn

from lenext.costing import count
from lenext.models import VARIANTS, variant
from lenext.nn import without_auxiliary
from networks import on_meta, params, shapes

# Of torchvision's own metadata, where it has the network
TORCHVISION = {
    name: torchvision.models.get_model_weights({"alexnet_owt": "alexnet"}.get(name, name))["IMAGENET1K_V1"].meta
    for name in VARIANTS
    if name != "alexnet" and name in {"alexnet_owt", *torchvision.models.list_models()}
}


@functools.cache
def counted(name):
    row = variant(name)
    return count(without_auxiliary(on_meta(name)), channels=row.channels, size=row.size)


@pytest.mark.parametrize("name", list(TORCHVISION))
def test_torchvisions_figures(name):
    figures, cost = TORCHVISION[name], counted(name)
    assert cost.params == figures["num_params"]
    assert f"{cost.macs / 1e9:.3f}" == f"{figures['_ops']:.3f}"


def test_torchvisions_figures_are_of_all_families():
    assert {VARIANTS[name].family for name in TORCHVISION} == {"AlexNet", "VGG", "GoogLeNet", "ResNet", "ResNeXt"}
    assert len(TORCHVISION) == 18


@pytest.mark.parametrize("name", [name for name, row in VARIANTS.items() if row.published])
def test_what_our_tables_print_as_published_is_what_the_network_is(name):
    published, cost = VARIANTS[name].published, counted(name)
    assert published.params in (None, cost.params)
    if published.gmacs:
        digits = 1 if published.source.startswith("timm") else 3
        assert round(cost.macs / 1e9, digits) == published.gmacs


def test_inception_v4_is_timms():
    # Its model card: 42.7 M and 12.3 G; to the digit as timm's network
    cost = counted("inception_v4")
    assert cost.params == 42_679_816
    assert round(cost.macs / 1e9, 1) == 12.3


@pytest.mark.parametrize(
    ("name", "expected"),
    # He et al. 2016, table 6, prints 0.27, 0.46, 0.66, 0.85 and 1.7 M; to the digit as others count option A
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_the_resnets_for_small_images(name, expected):
    assert params(on_meta(name, classes=10, channels=3, size=32)) == expected
    plain = name.replace("resnet", "plain")
    if plain in VARIANTS:  # the shortcut of option A has no parameters
        assert params(on_meta(plain, classes=10, channels=3, size=32)) == expected


def test_resnet18_and_resnext29_for_small_images():
    assert params(on_meta("resnet18", classes=10, channels=3, size=32)) == 11_173_962
    # Xie et al. 2017, table 7: 34.4 M parameters
    assert round(params(on_meta("resnext29_8x64d", classes=10, channels=3, size=32)) / 1e6, 1) == 34.4


@pytest.mark.parametrize(
    ("name", "convolutions"),  # channels in and out, side of the map
    [
        ("resnet9", [(1, 64, 28), (64, 64, 14), (64, 64, 14), (64, 128, 14), (128, 128, 7), (128, 128, 7),
                     (128, 256, 7), (256, 256, 3), (256, 256, 3)]),
        ("resnet9_late", [(1, 32, 28), (32, 32, 28), (32, 32, 28), (32, 64, 14), (64, 64, 14), (64, 64, 14),
                          (64, 128, 7), (128, 128, 7), (128, 128, 7)]),
    ],
)  # fmt: skip
def test_resnet9_by_hand(name, convolutions):
    weights = [9 * before * after for before, after, _ in convolutions]
    cost, last = counted(name), convolutions[-1][1]
    assert cost.params == sum(weights) + 2 * sum(after for _, after, _ in convolutions) + last * 10 + 10
    assert cost.macs == sum(n * side**2 for n, (*_, side) in zip(weights, convolutions, strict=True)) + last * 10


@pytest.mark.parametrize("depth", [18, 34])
def test_a_plain_twin_is_the_network_without_its_shortcuts(depth):
    residual, plain = on_meta(f"resnet{depth}"), on_meta(f"plain{depth}")
    shortcuts = sum(params(m) for place, m in residual.named_modules() if place.endswith("downsample"))
    # 64·128 + 128·256 + 256·512 weights of 1×1, and two numbers of batch norm a channel
    assert shortcuts == 64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)
    assert params(plain) == params(residual) - shortcuts
    assert counted(f"plain{depth}").macs < counted(f"resnet{depth}").macs


def test_resnext_is_resnet_in_groups():
    assert shapes(on_meta("resnext50_32x4d")) == shapes(on_meta("resnet50", groups=32, group_width=4))
    assert shapes(on_meta("resnext101_32x8d")) == shapes(on_meta("resnet101", groups=32, group_width=8))
    assert shapes(on_meta("resnext50_1x64d")) == shapes(on_meta("resnet50"))


@pytest.mark.parametrize(
    ("name", "cardinality", "width"),
    [("resnext50_8x14d", 8, 14), ("resnext50_2x40d", 2, 40), ("resnext29_16x64d", 16, 64)],
)
def test_resnext_of_any_cardinality_and_width(name, cardinality, width):
    assert name not in VARIANTS
    network = on_meta(name)
    grouped = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {m.groups for m in grouped if m.in_channels > 3} == {cardinality}
    assert network.layer1[0].conv2.weight.shape == (cardinality * width, width, 3, 3)


def test_resnext_at_every_cardinality_costs_about_the_same():
    # Xie et al. 2017, table 2: 25.0 to 25.6 M parameters, about 4.1 G multiply-adds
    for name in ("resnext50_1x64d", "resnext50_2x40d", "resnext50_4x24d", "resnext50_8x14d", "resnext50_32x4d"):
        cost = counted(name)
        assert 24.9e6 < cost.params < 25.7e6
        assert 4.0e9 < cost.macs < 4.3e9


def test_the_lectures_alexnet():
    # LECTURE.md, recomputed: weights without biases, on maps of 54², 26² and 12², without the layer of the classes
    network = on_meta("alexnet")
    convolutions = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d)]
    dense = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear)]
    assert convolutions[:2] == [34_848, 614_400]
    assert sum(convolutions[2:]) == 3_096_576
    assert dense[:2] == [256 * 5 * 5 * 4096, 4096 * 4096]
    assert round((sum(convolutions) + sum(dense[:2])) / 1e6, 1) == 46.7
    macs = 34_848 * 54**2 + 614_400 * 26**2 + 3_096_576 * 12**2 + sum(dense[:2])
    assert counted("alexnet").macs - dense[2] == macs == 1_005_849_728
