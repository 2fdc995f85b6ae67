"""Muon turns convolutions by equal steps in all directions, and is SGD for everything else."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lenext
from lenext.data import Dataset
from lenext.ladder import resolve
from lenext.record import Record
from lenext.run import run
from lenext.spec import Recipe
from lenext.training.muon import Muon, multiply_adds, orthogonal
from lenext.training.optim import make_optimizer


def step_of(optimizer: torch.optim.Optimizer, weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """What the last of the steps along `gradients` adds to `weight`."""
    before = weight
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach() - before


@pytest.mark.parametrize("shape", [(32, 16, 3, 3), (64, 2, 3, 3), (16, 1, 5, 5)])
def test_its_steps_point_where_pytorchs_do(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    begin, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    weight, flat = nn.Parameter(begin.clone()), nn.Parameter(begin.flatten(1).clone())
    found = step_of(Muon([{"params": [weight], "turned": True}], lr=1e-3, momentum=0.9), weight, gradients)
    # PyTorch's takes matrices, computes in bfloat16, and mixes gradient and momentum as a mean of them
    theirs = torch.optim.Muon([flat], lr=1e-3, momentum=0.9, weight_decay=0.0, ns_steps=3)
    expected = step_of(theirs, flat, [gradient.flatten(1) for gradient in gradients])
    across = expected - (expected * flat).sum() / flat.square().sum() * flat.detach()  # ours keeps the norm
    assert F.cosine_similarity(found.flatten(), across.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_keeps_the_norm_and_its_angle_is_the_learning_rate(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    begin = (7 * torch.randn(48, 32, 3, 3)).to(memory_format=memory_format)
    weight = nn.Parameter(begin.clone())
    step_of(Muon([{"params": [weight], "turned": True}], lr=0.02, momentum=0.9), weight, [torch.randn(48, 32, 3, 3)])
    assert weight.norm().item() == pytest.approx(begin.norm().item(), rel=1e-6)
    cosine = F.cosine_similarity(weight.flatten(), begin.flatten(), dim=0).clamp(max=1)
    assert torch.acos(cosine).item() == pytest.approx(0.02, rel=0.02)


def test_singular_vectors_stay_and_values_come_to_about_1() -> None:
    torch.manual_seed(0)
    u, v = torch.linalg.qr(torch.randn(2, 24, 24))[0], torch.linalg.qr(torch.randn(2, 60, 24))[0]
    values = torch.linspace(0.1, 1.0, 24)
    for matrices in (u @ torch.diag(values) @ v.mT, (u @ torch.diag(values) @ v.mT).mT):
        left, right = (u, v) if matrices.shape[1] == 24 else (v, u)
        found = left.mT @ orthogonal(matrices) @ right
        diagonal = found.diagonal(dim1=1, dim2=2)
        assert 0.6 < diagonal.min() < diagonal.max() < 1.25
        torch.testing.assert_close(found, torch.diag_embed(diagonal), atol=1e-4, rtol=0)


def test_the_groups_of_a_convolution_turn_by_themselves() -> None:
    torch.manual_seed(0)
    gradient, begin = torch.randn(8, 3, 3, 3), torch.randn(8, 3, 3, 3)
    weight = nn.Parameter(begin.clone())
    found = step_of(
        Muon([{"params": [weight], "turned": True, "blocks": 2}], lr=1e-4, momentum=0.0), weight, [gradient]
    )
    for part in (slice(0, 4), slice(4, 8)):
        alone = nn.Parameter(begin[part].clone())
        expected = step_of(Muon([{"params": [alone], "turned": True}], lr=1e-4, momentum=0.0), alone, [gradient[part]])
        across, own = (step - (step * begin[part]).sum() / begin[part].square().sum() * begin[part]
                       for step in (expected, found[part]))  # fmt: skip
        assert F.cosine_similarity(across.flatten(), own.flatten(), dim=0) > 0.999


def test_all_but_convolutions_learn_as_by_pytorchs_sgd() -> None:
    torch.manual_seed(0)
    network = lenext.build("lenet_relu")
    twin = copy.deepcopy(network)
    recipe = Recipe(optimizer="muon", lr=0.05, weight_decay=5e-4)
    muon = make_optimizer(network, recipe)
    turned = {p for group in muon.param_groups if group["turned"] for p in group["params"]}
    assert turned == {module.weight for module in network.modules() if isinstance(module, nn.Conv2d)}
    groups = [[p for p in twin.parameters() if (p.ndim > 1) is matrices] for matrices in (True, False)]
    sgd = torch.optim.SGD([{"params": groups[0], "weight_decay": 5e-4}, {"params": groups[1]}], lr=0.05, momentum=0.9,
                          nesterov=True)  # fmt: skip
    ours, theirs = dict(network.named_parameters()), dict(twin.named_parameters())
    for _ in range(3):
        for name, parameter in ours.items():
            parameter.grad = torch.randn_like(parameter)
            theirs[name].grad = parameter.grad.clone()
        muon.step()
        sgd.step()
    for name, parameter in ours.items():
        if parameter not in turned:
            torch.testing.assert_close(parameter, theirs[name], msg=name)


def test_a_network_learns_more_by_it_in_the_same_steps(digits: Dataset, tmp_path: Path) -> None:
    losses = {}
    for optimizer in ("sgd", "muon"):
        settings = {"epochs": 4, "model": {"width": 0.5}, "recipe": {"optimizer": optimizer}}
        result = run(resolve("digits", "resnet20", settings), out=tmp_path / optimizer, data=digits, page=False)
        losses[optimizer] = Record.open(result.root).history()[-1]["train_loss"]
    assert losses["muon"] < losses["sgd"]


def test_multiply_adds_are_those_of_the_matrix_products() -> None:
    # 3 iterations of 16 × 16 from 16 × 72 and back, and their square
    assert multiply_adds(nn.Conv2d(8, 16, 3)) == 3 * (2 * 16 * 16 * 72 + 16**3)
    assert multiply_adds(nn.Conv2d(8, 16, 3, groups=4)) == 4 * 3 * (2 * 4 * 4 * 18 + 4**3)
    assert multiply_adds(nn.Conv2d(1, 16, 3)) == 3 * (2 * 9 * 9 * 16 + 9**3)
