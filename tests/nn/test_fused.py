"""What is fused, against torch's own operations one by one."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lenext.models import build
from lenext.nn import (
    Units,
    convolve_pool_and_activate,
    missing_kernels,
    normalise_and_activate,
    pool_and_activate,
)

ROUNDING = 2**-8  # the largest relative error of one rounding to bfloat16

needs_kernels = pytest.mark.skipif(missing_kernels() is not None, reason=str(missing_kernels()))


def maps(*shape, seed=0, centre=3.0):
    """Bfloat16 [N, C, H, W], channels-last."""
    numbers = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + centre
    return numbers.bfloat16().to(memory_format=torch.channels_last)


def norm_of(channels):
    norm, generator = nn.BatchNorm2d(channels), torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.weight.uniform_(-1.5, 1.5, generator=generator)
        norm.bias.uniform_(-0.5, 0.5, generator=generator)
        norm.running_mean.uniform_(-1, 1, generator=generator)
    return norm


def difference(ours, theirs):
    return float((ours.detach().float() - theirs.detach()).norm() / theirs.detach().norm())


@needs_kernels
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "shape", [(4, 64, 14, 14), (3, 24, 7, 5), (8, 6, 9, 9), (2, 600, 3, 3), (5, 1, 28, 28), (16, 2048, 1, 1)]
)
def test_values_gradients_and_statistics_are_exact_but_for_rounding(shape, relu, residual):
    ours, theirs = norm_of(shape[1]), norm_of(shape[1]).double()
    x, other, gradient = maps(*shape), maps(*shape, seed=2, centre=0), maps(*shape, seed=3, centre=0.5)
    a, b = x.clone().requires_grad_(), other.clone().requires_grad_()
    fused = normalise_and_activate(a, ours, nn.ReLU() if relu else None, b if residual else None)
    fused.backward(gradient)

    c, d = x.double().requires_grad_(), other.double().requires_grad_()
    plain = theirs(c) + d if residual else theirs(c)
    # Where ReLU hangs on a rounding error either side would be right: the gradient goes through where ours is open
    plain.backward(gradient.double() * (fused > 0) if relu else gradient.double())

    assert fused.dtype == torch.bfloat16
    assert fused.is_contiguous(memory_format=torch.channels_last)
    assert difference(fused, plain.relu() if relu else plain) < ROUNDING
    assert difference(a.grad, c.grad) < ROUNDING
    for name in ("weight", "bias"):
        assert difference(ours.get_parameter(name).grad, theirs.get_parameter(name).grad) < ROUNDING / 4
    for name in ("running_mean", "running_var"):
        assert difference(ours.get_buffer(name), theirs.get_buffer(name)) < 1e-6
    assert ours.num_batches_tracked == 1
    if residual:
        assert torch.equal(b.grad.float(), gradient.float() * (fused > 0) if relu else gradient.float())


@needs_kernels
def test_far_from_zero_the_variance_keeps_its_digits():
    # In float32, E[x²] - E[x]² of these would have no right digit
    x = (torch.randn(8, 16, 16, 16, generator=torch.Generator().manual_seed(0)) + 300).bfloat16()
    ours, theirs = nn.BatchNorm2d(16), nn.BatchNorm2d(16).double()
    normalise_and_activate(x.to(memory_format=torch.channels_last), ours, nn.ReLU())
    theirs(x.double())
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, rtol=1e-3, atol=0)


@needs_kernels
def test_what_is_not_a_number_stays_so():
    x = maps(2, 16, 4, 4)
    x[0, 3, 1, 1] = float("nan")
    out = normalise_and_activate(x, nn.BatchNorm2d(16), nn.ReLU())
    assert out[:, 3].isnan().all()
    assert out[:, [0, 1, 2, *range(4, 16)]].isfinite().all()


@needs_kernels
def test_the_same_to_the_last_bit_again():
    x, gradient = maps(16, 32, 28, 28), maps(16, 32, 28, 28, seed=3)

    def once():
        norm, given = norm_of(32), x.clone().requires_grad_()
        normalise_and_activate(given, norm, nn.ReLU()).backward(gradient)
        return given.grad, norm.weight.grad, norm.running_var

    def convolved():
        torch.manual_seed(0)
        conv, given = nn.Conv2d(4, 8, 5), x[:, :4].contiguous(memory_format=torch.channels_last).requires_grad_()
        convolve_pool_and_activate(given, conv, nn.MaxPool2d(2), nn.ReLU()).float().square().sum().backward()
        return given.grad, conv.weight.grad, conv.bias.grad

    for first, second in zip((*once(), *convolved()), (*once(), *convolved()), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnext29_2x8d", "vgg11_bn", "vgg11", "googlenet", "plain20", "lenet_relu"]
)
def test_a_networks_gradients_are_as_near_to_float32_as_from_the_operations_one_by_one(name, monkeypatch):
    torch.manual_seed(0)
    network = build(name, classes=10, channels=1, size=32, width=0.5, dropout=0.0)
    network = network.to(memory_format=torch.channels_last).train()
    images = torch.randn(32, 1, 32, 32).to(memory_format=torch.channels_last)

    def gradients(*, bf16):
        torch.manual_seed(1)  # auxiliary heads have dropout in any case
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = network(images)
        (outputs[0] if isinstance(outputs, tuple) else outputs).float().square().sum().backward()
        learnt = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        return torch.cat([gradient.flatten() for gradient in learnt])

    exact, fused = gradients(bf16=False), gradients(bf16=True)
    monkeypatch.setattr("lenext.nn.fused.missing_kernels", lambda: "as on a machine without a compiler")
    plain = gradients(bf16=True)
    ours, theirs = (torch.nn.functional.cosine_similarity(found, exact, dim=0) for found in (fused, plain))
    assert ours > theirs - 0.02
    assert ours > 0.85


@needs_kernels
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(4, 8, 28, 28), (3, 24, 7, 5), (2, 16, 2, 3), (5, 3, 9, 8), (2, 64, 14, 14)])
def test_max_pooling_is_torchs_to_the_last_bit(shape, relu):
    x = maps(*shape, centre=-1.0)
    x[0, 0, :2, :2] = 1.5  # the first of equals
    x[-1, 1, 0, 1] = float("-nan")
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = pool_and_activate(a, nn.MaxPool2d(2), nn.ReLU() if relu else None)
    theirs = nn.MaxPool2d(2)(b).relu() if relu else nn.MaxPool2d(2)(b)
    assert torch.equal(ours.nan_to_num(-77), theirs.nan_to_num(-77))
    assert ours[-1, 1, 0, 0].isnan()
    gradient = maps(*ours.shape, seed=3)
    ours.backward(gradient)
    theirs.backward(gradient)
    assert torch.equal(a.grad, b.grad)


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "out", "padding"),
    [
        ((8, 1, 28, 28), 6, 2),
        ((8, 6, 14, 14), 16, 0),
        ((3, 3, 9, 11), 5, 2),
        ((2, 5, 6, 7), 8, 0),
        ((5, 4, 5, 4), 9, 2),
    ],
)
def test_a_convolution_pooled_is_exact_but_for_rounding(shape, out, padding):
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], out, 5, padding=padding).to(memory_format=torch.channels_last)
    exact = nn.Conv2d(shape[1], out, 5, padding=padding).double()
    exact.load_state_dict(conv.state_dict())
    x = maps(*shape, centre=0)
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    ours = convolve_pool_and_activate(a, conv, nn.MaxPool2d(2), nn.ReLU())
    theirs = nn.MaxPool2d(2)(exact(b)).relu()
    assert ours.dtype == torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert difference(ours, theirs) < ROUNDING
    gradient = maps(*ours.shape, seed=3, centre=0.5)
    ours.backward(gradient)
    theirs.backward(gradient.double())
    assert difference(a.grad, b.grad) < ROUNDING
    assert difference(conv.weight.grad, exact.weight.grad) < 1e-6
    assert difference(conv.bias.grad, exact.bias.grad) < 1e-6


@needs_kernels
def test_a_convolution_pooled_keeps_what_is_not_a_number_and_stays_in_its_image():
    conv = nn.Conv2d(1, 6, 5, padding=2)
    x = maps(3, 1, 12, 12)
    x[1, 0, 5, 5] = float("nan")
    out = convolve_pool_and_activate(x, conv, nn.MaxPool2d(2), nn.ReLU())
    reached = torch.zeros(3, 6, 6, 6, dtype=torch.bool)
    reached[1, :, 1:4, 1:4] = True
    assert torch.equal(out.isnan(), reached)


@needs_kernels
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(3, 8, 5, stride=2),
        nn.Conv2d(3, 6, 5, groups=3),
        nn.Conv2d(3, 8, 5, padding="same"),
        nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
        nn.Conv2d(3, 24, 5),
        nn.Conv2d(3, 8, 5, bias=False),  # which is no reason
    ],
)
def test_other_convolutions_are_left_to_torch(conv):
    images = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        ours = convolve_pool_and_activate(images, conv, nn.MaxPool2d(2), nn.ReLU())
        theirs = nn.MaxPool2d(2)(conv(images)).relu()
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    assert ("ConvPool" in type(ours.grad_fn).__name__) == (conv.bias is None)


@needs_kernels
def test_relu_before_pooling_gives_what_it_gives_after():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 12, 12).to(memory_format=torch.channels_last)
    layers = [nn.Conv2d(3, 24, 3).to(memory_format=torch.channels_last), nn.ReLU(), nn.MaxPool2d(2)]
    gradients = []
    for sequence in (Units(*layers), nn.Sequential(*layers)):
        sequence.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = sequence(images)
        out.float().square().sum().backward()
        gradients.append([out, layers[0].weight.grad.clone()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, ceil_mode=True)]
)
def test_other_poolings_are_left_to_torch(pool):
    x = maps(2, 8, 9, 9)
    assert torch.equal(pool_and_activate(x, pool, nn.ReLU()), pool(x).relu())


def test_units_in_float32_and_in_evaluation_are_a_sequence():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)]
    images = torch.randn(2, 3, 8, 8)
    for training in (True, False):
        ours, theirs = Units(*layers).train(training), nn.Sequential(*layers).train(training)
        assert torch.equal(ours(images), theirs(images))
    assert list(Units(*layers).state_dict()) == list(nn.Sequential(*layers).state_dict())


def test_without_a_compiler_the_reason_is_told(tmp_path):
    code = "from lenext.nn import missing_kernels; print(missing_kernels())"
    environment = {"PATH": str(tmp_path), "LENEXT_CACHE": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "no C compiler" in told.stdout


@needs_kernels
def test_a_compiler_that_fails_is_no_end_of_the_run(tmp_path):
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'cannot do this' >&2\nexit 1\n")
    fake.chmod(0o755)
    code = "from lenext.nn import missing_kernels; print(missing_kernels())"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LENEXT_CACHE": str(tmp_path / "cache"),
                   "PYTHONPATH": ":".join(filter(None, sys.path))}  # fmt: skip
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "cannot do this" in told.stdout
    assert not list((tmp_path / "cache").rglob("*.so"))
