"""Shapes are those of torch's own shape functions."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import lenext
from lenext.costing import without_memory
from lenext.costing.shapes import ShapesOnly, run, tensors_in


class Compared(ShapesOnly):
    """Every operation that has a short shape function here must give what torch's gives."""

    def __init__(self):
        super().__init__()
        self.compared = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        reference = func(*args, **(kwargs or {}))
        result = run(func, args, kwargs or {})
        expected, given = (
            [(t.shape, t.dtype, t.stride(), t.device) for t in tensors_in(each)] for each in (reference, result)
        )
        # Statistics of batch norm in evaluation: the processor makes none, torch's shape function those of the channels
        kept = slice(1) if func is torch.ops.aten.native_batch_norm.default else slice(None)
        assert given[kept] == expected[kept], func
        self.compared.add(func.overloadpacket.__name__)
        return result


NETWORKS = [
    ("lenet", {"size": 28}),
    ("lenet_relu", {"size": 29, "norm": "group"}),
    ("alexnet", {"size": 64}),
    ("googlenet", {"size": 64}),
    ("inception_v4", {"size": 75, "pooling": "avg"}),
    ("resnet20", {"size": 33}),
    ("resnext50_32x4d", {"size": 65, "activation": "sigmoid"}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_of_the_ladders_networks(name, options, training):
    with without_memory():
        network = lenext.build(name, classes=10, channels=3, **options).train(training)
    with torch.device("meta"), torch.set_grad_enabled(training), Compared() as compared:
        network(torch.empty(2, 3, options["size"], options["size"]))
    assert {"convolution", "addmm"} <= compared.compared


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.relu_(),
        lambda x: x.clone().add_(x[:1]),
        lambda x: x + 1,
        lambda x: x + x[:1],
        lambda x: x * x.to(torch.float64),
        lambda x: x.to(torch.int64) + x.to(torch.int64),
        lambda x: x.to(memory_format=torch.channels_last).relu(),
        lambda x: F.conv2d(x.to(memory_format=torch.channels_last), torch.ones(4, 6, 3, 3)),
        lambda x: F.conv2d(x, torch.ones(4, 3, 3, 2), stride=(2, 3), padding=(1, 0), dilation=2, groups=2),
        lambda x: F.conv_transpose2d(x, torch.ones(6, 4, 3, 3), stride=2, output_padding=1),
        lambda x: F.conv3d(x[None], torch.ones(1, 2, 3, 3, 3), padding=1),
        lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6), torch.ones(6), torch.ones(6)),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.group_norm(x, 3),
        lambda x: F.max_pool2d(x, 3, dilation=2),
        lambda x: F.max_pool2d(x[0], 3),
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        lambda x: F.adaptive_avg_pool2d(x[0], (2, None)),
        lambda x: x.mean(),
        lambda x: x.mean((1, -1)),
        lambda x: x.mean(0, keepdim=True),
        lambda x: x.mean(2, dtype=torch.float64),
        lambda x: torch.cat([x, x[:, :1]], dim=1),
        lambda x: torch.cat([x, x], dim=-1),
        lambda x: x.flatten(1) @ torch.ones(6 * 9 * 11, 4),
        lambda x: F.linear(x, torch.ones(5, 11), torch.ones(5)),
        lambda x: torch.addmm(torch.ones(2, 5), x[:, 0, 0], torch.ones(11, 5)),
    ],
)
def test_of_an_operation(operation):
    with torch.device("meta"), torch.no_grad(), Compared() as compared:
        operation(torch.empty(2, 6, 9, 11))
    assert compared.compared


def test_of_pooling_at_every_edge():
    combinations = itertools.product((4, 5, 7), (1, 2, 3), (None, 1, 2, 3), (0, 1), (False, True))
    for side, kernel, stride, padding, ceil in combinations:
        if 2 * padding <= kernel:
            with torch.device("meta"), torch.no_grad(), Compared():
                images = torch.empty(1, 2, side, side + 1)
                F.max_pool2d(images, kernel, stride, padding, ceil_mode=ceil)
                F.avg_pool2d(images, kernel, stride, padding, ceil_mode=ceil)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: F.conv2d(x, torch.ones(4, 5, 3, 3)),
        lambda x: F.conv2d(x, torch.ones(4, 6, 10, 3)),
        lambda x: F.max_pool2d(x, 10),
        lambda x: F.max_pool2d(x, 2, padding=2),
        lambda x: F.linear(x, torch.ones(5, 12)),
        lambda x: torch.cat([x, x[..., 1:]]),
        lambda x: x + x[..., 1:],
        lambda x: x.add_(x[..., 1:]),
        lambda x: F.batch_norm(x, torch.zeros(5), torch.ones(5), torch.ones(5), torch.ones(5)),
    ],
)
def test_what_does_not_fit_is_refused(operation):
    with torch.device("meta"), ShapesOnly(), pytest.raises((RuntimeError, ValueError)):
        operation(torch.empty(2, 6, 9, 11))
