"""Softmax regression and LeNet: counts from the lecture's corrected table; and what cannot be built is said."""

import pytest

import lenext
from lenext.costing import count
from lenext.errors import UsageError


@pytest.mark.parametrize("name", ["lenet", "lenet_relu"])
def test_lenet_has_the_61706_parameters_of_the_usual_layout(name):
    # 5·5·6+6, 5·5·6·16+16, 400·120+120, 120·84+84, 84·10+10
    network = lenext.build(name, classes=10, channels=1, size=28)
    assert count(network, channels=1, size=28).params == 156 + 2416 + 48120 + 10164 + 850 == 61706


@pytest.mark.parametrize("name", ["lenet", "lenet_relu"])
def test_lenet_costs_what_the_lecture_recomputes(name):
    # LECTURE.md: conv1 117,600, conv2 240,000, dense 48,000 and 10,080; then 840 for the ten classes
    network = lenext.build(name, classes=10, channels=1, size=28)
    counted = count(network, channels=1, size=28)
    assert counted.macs == 117_600 + 240_000 + 48_000 + 10_080 + 840
    assert counted.flops == 2 * counted.macs


def test_softmax_regression_is_one_matrix():
    counted = count(lenext.build("softmax", classes=10, channels=1, size=28), channels=1, size=28)
    assert (counted.params, counted.macs) == (7850, 7840)


def test_lenet_original_is_sigmoid_and_average_the_twin_relu_and_max():
    kinds = {name: {type(m).__name__ for m in lenext.build(name).modules()} for name in ("lenet", "lenet_relu")}
    assert {"Sigmoid", "AvgPool2d"} <= kinds["lenet"]
    assert not {"ReLU", "MaxPool2d"} & kinds["lenet"]
    assert {"ReLU", "MaxPool2d"} <= kinds["lenet_relu"]
    assert not {"Sigmoid", "AvgPool2d"} & kinds["lenet_relu"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "lennet"}, r"unknown network 'lennet'; did you mean 'lenet'\?"),
        ({"name": "lenet", "classes": 1}, r"given 1 class\(es\), accepted: 2 or more"),
        ({"name": "lenet", "size": 15}, r"given images of 15 px, accepted: 16 px or more"),
        ({"name": "lenet", "channels": 0}, r"given 0 channels, accepted: 1 or more"),
    ],
)
def test_what_cannot_be_built_is_said(arguments, said):
    with pytest.raises(UsageError, match=said):
        lenext.build(arguments.pop("name"), **arguments)
