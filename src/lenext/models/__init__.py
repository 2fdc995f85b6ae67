"""The networks of the ladder, one file per family; ordinary modules on float [N, C, H, W]."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from lenext.errors import UsageError
from lenext.models import alexnet, googlenet, inception, lenet, published, resnet, resnet9, softmax, vgg, weights
from lenext.models.ensemble import Ensemble, members
from lenext.models.published import Pretrained
from lenext.models.variant import LAYER_OPTIONS, Published, Shape, Variant
from lenext.models.weights import heads
from lenext.nn import Layers
from lenext.spec import OF_ALL_NETWORKS, OF_CLASSIFIERS, Model, from_dict, suggestion, validate

VARIANTS: dict[str, Variant] = {
    **softmax.VARIANTS,
    **lenet.VARIANTS,
    **alexnet.VARIANTS,
    **vgg.VARIANTS,
    **googlenet.VARIANTS,
    **inception.VARIANTS,
    **resnet.VARIANTS,
    **resnet9.VARIANTS,
}

__all__ = [
    "LAYER_OPTIONS",
    "VARIANTS",
    "Ensemble",
    "Pretrained",
    "Published",
    "Shape",
    "Variant",
    "build",
    "build_model",
    "check_weights",
    "describe_weights",
    "heads",
    "layers_of",
    "members",
    "variant",
    "without_weights",
]


def variant(name: str) -> Variant:
    """The row of network `name`: of the table, or a ResNeXt of any cardinality and width, as resnext50_8x14d.

    Raises UsageError for an unknown name.
    """
    if row := VARIANTS.get(name) or resnet.resnext(name):
        return row
    raise UsageError(f"unknown network {name!r}; {suggestion(name, VARIANTS)}")


def build(
    name: str, *, classes: int | None = None, channels: int | None = None, size: int | None = None, **options: Any
) -> nn.Module:
    """The network `name`, freshly initialised from torch's random state: ``lenext.build("resnet50", classes=10)``.

    It maps float images [N, channels, size, size] to logits [N, classes]; what is not given is as in its paper.
    `options` are the fields of `lenext.spec.Model`, such as ``width=0.5`` or ``norm="group"``; with ``weights``, a file
    or the name of published ones, it begins with these, its number of classes is theirs where none is given, and where
    another is given its last layer begins anew. Raises UsageError for an unknown name or option, an option that the
    network does not honour, fewer than 2 classes, no channel, or a size that it cannot take; DataError for weights that
    cannot be read, cannot be fetched or are of another network.
    """
    if isinstance(given := options.get("weights"), os.PathLike):
        options["weights"] = os.fspath(given)
    model = _model(name, options)
    for option in OF_CLASSIFIERS:
        if value := getattr(model, option):
            raise UsageError(f"{name}: given {option}={value} for a network alone; accepted: of a classifier, as "
                             f'lenext.train makes with settings={{"model": {{"{option}": {value}}}}}')  # fmt: skip
    return build_model(model, classes=classes, channels=channels, size=size)


def build_model(
    model: Model, *, classes: int | None = None, channels: int | None = None, size: int | None = None
) -> nn.Module:
    """`build`, with the options as a specification."""
    if model.weights is not None:
        return _with_weights(model, model.weights, classes, channels, size)
    name, row = model.name, variant(model.name)
    classes = row.classes if classes is None else classes
    channels = row.channels if channels is None else channels
    size = row.size if size is None else size
    if classes < 2:
        raise UsageError(f"{name}: given {classes} class(es), accepted: 2 or more")
    if channels < 1:
        raise UsageError(f"{name}: given {channels} channels, accepted: 1 or more")
    if size < (least := row.least(model.layout)):
        raise UsageError(f"{name}: given images of {size} px, accepted: {least} px or more")
    small = row.layout(size, model.layout) == "small"
    shape, layers = Shape(classes, channels, size, small), layers_of(model)
    if model.members == 1:
        return row.build(shape, layers)
    return Ensemble(row.build(shape, layers) for _ in range(model.members))


def _with_weights(model: Model, given: str, classes: int | None, channels: int | None, size: int | None) -> nn.Module:
    if model.members > 1:  # which would begin alike, and so err alike
        raise UsageError(f"{model.name}: given members={model.members} and weights, accepted: one of them")
    bare = without_weights(model)
    state = weights.read(published.file_of(model.name, given))
    if classes is None:
        with torch.device("meta"):
            classes = weights.classes_in(state, build_model(bare, channels=channels, size=size))
    network = build_model(bare, classes=classes, channels=channels, size=size)
    weights.load(network, state, what=f"{given} for {model.name}")
    return network


def without_weights(model: Model) -> Model:
    """The network of `model`, in the layout that its weights are for, but to begin without them."""
    if model.weights is None:
        return model
    layout = model.layout or ("large" if "layout" in variant(model.name).options else None)
    return replace(model, weights=None, layout=layout)


def describe_weights(model: Model) -> Pretrained | None:
    """What is known of the weights that `model` begins with; None where it begins without.

    Raises UsageError for a name that is not known, DataError for a file whose description is damaged.
    """
    if model.weights is None:
        return None
    return published.describe(model.name, model.weights, size=variant(model.name).size)


def check_weights(model: Model) -> Pretrained:
    """What is known of the weights that `model` begins with, of which it is made sure that they are here and fit.

    Raises UsageError and DataError as `build` does.
    """
    known = describe_weights(model)
    assert known is not None
    with torch.device("meta"):
        build_model(model)
    return known


def _model(name: str, options: Mapping[str, Any]) -> Model:
    return validate(from_dict(Model, {"name": name, **options}, "model"), "model")


def layers_of(model: Model) -> Layers:
    """The layers of network `model.name`, changed as `model` says.

    Raises UsageError for an unknown name, and for an option that the network does not honour.
    """
    row = variant(model.name)
    defaults = Model(model.name)
    given = {
        field.name: value
        for field in fields(model)
        if (value := getattr(model, field.name)) != getattr(defaults, field.name)
        and field.name not in (*OF_ALL_NETWORKS, "weights")  # which are not of the layers
    }
    for option, value in given.items():
        if option not in row.options:
            accepted = ", ".join(row.options) or "none"
            raise UsageError(f"{model.name}: given {option}={value!r}; of these options it honours: {accepted}")
    given.pop("layout", None)
    return replace(row.layers, **given)
