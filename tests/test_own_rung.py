"""A rung of one's own is one like any other: trained, compared, bundled."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import lenext
from lenext.data import Dataset
from lenext.errors import DataError, UsageError
from lenext.ladder import LADDER, resolve
from lenext.models import VARIANTS, Shape
from lenext.nn import Layers
from lenext.run import run
from lenext.spec import Recipe
from lenext.training.recipes import RECIPES


def small(shape: Shape, layers: Layers) -> nn.Module:
    width = layers.channels(8)
    unit = layers.conv_unit(shape.channels, width, 3, stride=2, first=True)
    return nn.Sequential(*unit, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, shape.classes))


@pytest.fixture
def added() -> Iterator[str]:
    lenext.add_rung("small_one", small, options=["width"], recipe=Recipe(lr=0.2, epochs=3))
    yield "small_one"
    for table in (LADDER, VARIANTS, RECIPES):
        table.pop("small_one", None)


def test_it_trains_counts_and_is_bundled(added: str, digits: Dataset, tmp_path: Path) -> None:
    parameters = 8 * 9 + 8 + 10 * 128 + 10
    assert lenext.cost(added, classes=10, channels=1, size=28).params == parameters
    spec = resolve("digits", added, {"model": {"width": 2}})
    assert spec.recipe is not None
    assert (spec.recipe.lr, spec.recipe.epochs) == (0.2, 3)
    result = run(spec, out=tmp_path / "run", data=digits, page=False)
    assert result.accuracy > 0.5
    assert result.summary["params"] == 16 * 9 + 16 + 10 * 256 + 10
    assert lenext.load(result.bundle, verify=True).classes == digits.classes
    VARIANTS.pop(added)
    with pytest.raises(DataError, match=r"is of a network 'small_one', which is not of the ladder; accepted: after"):
        lenext.load(result.bundle)


def test_only_options_that_it_honours(added: str) -> None:
    with pytest.raises(UsageError, match="small_one: given norm='batch'; of these options it honours: width"):
        lenext.build(added, norm="batch")


@pytest.mark.parametrize("name", ["resnet50", "Mine", "a+b", "a@2", ""])
def test_names_that_cannot_be_given(name: str) -> None:
    with pytest.raises(UsageError, match="accepted: a name of a-z, 0-9 and _ that the ladder does not have yet"):
        lenext.add_rung(name, small)


def test_an_option_that_no_network_has() -> None:
    with pytest.raises(UsageError, match="given option 'depth', accepted: width, norm"):
        lenext.add_rung("mine", small, options=["depth"])
    assert "mine" not in LADDER
