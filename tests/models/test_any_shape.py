"""Every network takes any channels, classes and size from its least on, and a single image."""

import pytest
import torch
from torch import nn

import lenext
from lenext.errors import UsageError
from lenext.models import VARIANTS
from networks import KINDS, logits_of, narrow, on_meta, shape_of

# Depth changes nothing about shapes, so that the deeper ones need fewer of them
FEW = [(1, 2, 28), (3, 22_000, 224)]
MANY = [*FEW, (3, 101, 32), (5, 22_000, 33), (1, 10, 64), (3, 2, 75), (5, 101, 97)]


@pytest.mark.parametrize(
    ("name", "channels", "classes", "size"),
    [(name, *shape) for name in VARIANTS for shape in (MANY if name in KINDS else FEW)],
)
def test_any_shape(name, channels, classes, size):
    network = on_meta(name, channels=channels, classes=classes, size=size)
    assert shape_of(network, 2, channels, size) == (2, classes)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_as_published_where_nothing_is_said(name):
    row = VARIANTS[name]
    assert shape_of(on_meta(name), 1, row.channels, row.size) == (1, row.classes)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        (name, layout)
        for name, row in VARIANTS.items()
        for layout in ((None, "large", "small") if "layout" in row.options else (None,))
    ],
)
def test_the_least_size_is_taken_and_what_is_smaller_refused_by_its_name(name, layout):
    row = VARIANTS[name]
    options = {"layout": layout} if layout else {}
    least = row.least(layout)
    assert shape_of(on_meta(name, size=least, **options), 1, row.channels, least) == (1, row.classes)
    with pytest.raises(UsageError, match=rf"given images of {least - 1} px, accepted: {least} px or more"):
        lenext.build(name, size=least - 1, **options)


@pytest.mark.parametrize("name", [name for name, row in VARIANTS.items() if row.large_from])
def test_the_layout_follows_the_size(name):
    row = VARIANTS[name]
    for size, layout in ((row.large_from, "large"), (row.large_from - 1, "small")):
        chosen, asked = (on_meta(name, size=size, **options) for options in ({}, {"layout": layout}))
        assert str(chosen) == str(asked)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [28, 33])
def test_real_images_give_finite_scores_and_every_parameter_a_gradient(name, size):
    torch.manual_seed(0)
    row = VARIANTS[name]
    network = lenext.build(name, channels=1, classes=7, size=size, **narrow(row))
    images = torch.randn(3, 1, size, size)
    logits_of(network(images)).square().sum().backward()
    for parameter, tensor in network.named_parameters():
        assert tensor.grad is not None, parameter
        assert torch.isfinite(tensor.grad).all(), parameter
    scores = network.eval()(images)
    assert scores.shape == (3, 7)
    assert torch.isfinite(scores).all()
    # An image's scores are its own
    torch.testing.assert_close(network(images[1:2]), scores[1:2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "softmax"])  # whose weights begin at zero
def test_signals_neither_die_nor_explode_on_the_way(name):
    torch.manual_seed(0)
    row = VARIANTS[name]
    width = {"width": 0.25} if row.size > 32 else {}
    network = lenext.build(name, channels=3, size=32, classes=10, **width).eval()
    with torch.no_grad():
        scores = network(torch.randn(4, 3, 32, 32))
    assert scores.abs().max() < 100
    assert scores.std(0).mean() > 1e-4  # the head begins small


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", [name for name in KINDS if "norm" in VARIANTS[name].options])
def test_a_single_image_trains_but_where_batch_norm_has_one_number_a_channel(name, norm):
    row = VARIANTS[name]
    alone = 0

    def look(_module, inputs):
        nonlocal alone
        alone += inputs[0].shape[2:] == (1, 1)

    for size in (row.min_size, 32):
        network = lenext.build(name, channels=1, classes=2, size=size, norm=norm, **narrow(row))
        hooks = [m.register_forward_pre_hook(look) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        image = torch.randn(1, 1, size, size)
        alone = 0
        assert network.eval()(image).shape == (1, 2)
        for hook in hooks:
            hook.remove()
        network.train()
        if alone:
            with pytest.raises(UsageError, match="given batch size 1, accepted: 2 or more, or norm 'group' or 'none'"):
                network(image)
            network(torch.randn(2, 1, size, size))
        else:
            logits_of(network(image)).logsumexp(2).sum().backward()
            assert all(torch.isfinite(p.grad).all() for p in network.parameters())
