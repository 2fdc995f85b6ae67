"""The ladder: every rung, networks and classical methods alike, from the cheapest up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lenext import classical
from lenext.classical import RUNGS
from lenext.costing import Count, count, without_memory
from lenext.errors import UsageError
from lenext.models import VARIANTS, Variant, build_model, check_weights, variant, without_weights
from lenext.spec import Model, Run, Svm, from_dict, merge, suggestion, to_dict, validate
from lenext.training import recipe_for
from lenext.training.recipes import FINE_TUNING


@dataclass(frozen=True)
class Rung:
    """A model that can be trained, by name."""

    name: str
    family: str
    year: int
    paper: str
    is_network: bool


def _rung(name: str, row: Variant | classical.Rung) -> Rung:
    return Rung(name, row.family, row.year, row.paper, isinstance(row, Variant))


LADDER: dict[str, Rung] = {
    name: _rung(name, row) for name, row in sorted((VARIANTS | RUNGS).items(), key=lambda item: item[1].year)
}


def rung(name: str) -> Rung:
    """The rung `name`; beyond the table, any ResNeXt. Raises UsageError with the nearest name where there is none."""
    if name in LADDER:
        return LADDER[name]
    try:
        return _rung(name, variant(name))
    except UsageError as error:
        raise UsageError(f"unknown model {name!r}; {suggestion(name, LADDER)}; `lenext models` lists them") from error


def resolve(source: str, model: str | None, *layers: Mapping[str, Any]) -> Run:
    """The run that trains `model` on `source`: the model's recipe, overlaid with `layers`, the last on top.

    `model` and `source` win over the layers where given. Where the model begins with weights, the recipe is that of
    fine-tuning and the images' size that of the weights, and published weights are fetched. Raises UsageError for an
    unknown model or key, and for settings that the model does not read; DataError for weights that cannot be used.
    """
    given = merge(*layers)
    for section in ("data", "model"):
        if not isinstance(given.get(section, {}), dict):
            raise UsageError(f"{section}: expected keys below it, such as {section}.size, given {given[section]!r}")
    if source:
        given = merge(given, {"data": {"source": source}})
    if not given.get("data", {}).get("source"):
        raise UsageError("no data given; accepted: a name such as digits, a folder of class folders, or a manifest")
    name = model or given.get("model", {}).get("name")
    if not name:
        raise UsageError(f"no model given; accepted: {', '.join(LADDER)}")
    row = rung(name)
    section, other = ("recipe", "svm") if row.is_network else ("svm", "recipe")
    if other in given:
        raise UsageError(f"{other}: {name} does not read these settings; it reads those of {section!r}")
    given = merge(given, {"model": {"name": name}})
    wanted = from_dict(Model, given["model"], "model")
    below: dict[str, Any] = {section: to_dict(recipe_for(wanted) if row.is_network else Svm())}
    if wanted.weights is not None:
        if not row.is_network:
            raise UsageError(f"{name} begins with no weights: given {wanted.weights!r}, accepted: with a network")
        known = check_weights(wanted)  # now, and not after the images are read
        below = merge(below, {"recipe": FINE_TUNING, "data": {"size": known.size}})
    run = validate(from_dict(Run, merge(below, given)))
    path = Path(run.data.source)
    if path.exists():  # so that the run can be resumed from any folder
        run = replace(run, data=replace(run.data, source=str(path.resolve())))
    if wanted.weights is not None and (path := Path(wanted.weights).expanduser()).is_file():
        run = replace(run, model=replace(run.model, weights=str(path.absolute())))
    return run


def published_shape(name: str) -> dict[str, int]:
    """Classes, channels and size (pixels) that the figures of rung `name` are published at."""
    if not rung(name).is_network:
        return {"classes": 10, "channels": 1, "size": 28}  # Fashion-MNIST
    row = variant(name)
    return {"classes": row.classes, "channels": row.channels, "size": row.size}


def cost(
    model: str | nn.Module,
    *,
    classes: int | None = None,
    channels: int | None = None,
    size: int | None = None,
    **options: Any,
) -> Count:
    """What `model` costs for one image, counted without building it in memory: ``lenext.cost("resnet50").macs``.

    `model` is the name of a rung, taken as published but for what is given (`options` as for `lenext.build`); or any
    network on images float32 [N, channels, size, size], by default of 3 channels and 224 px. Of a classical rung only
    parameters and multiply-adds are known. Raises UsageError for what cannot be built, and for a network that refuses
    such images or whose shapes depend on their values.
    """
    given = {"classes": classes, "channels": channels, "size": size}
    for key, value in given.items():
        if value is not None and value < 1:
            raise UsageError(f"{key}: given {value}, accepted: 1 or more")
    if isinstance(model, nn.Module):
        if classes is not None or options:
            words = ", ".join([*(["classes"] if classes is not None else []), *options])
            raise UsageError(f"{type(model).__name__}: given {words} for a network that is built already; "
                             "accepted: channels, size")  # fmt: skip
        channels, size = 3 if channels is None else channels, 224 if size is None else size
        return count(model, channels=channels, size=size, training=True)
    shape = published_shape(model) | {key: value for key, value in given.items() if value is not None}
    if rung(model).is_network:
        return _count(from_dict(Model, {"name": model, **options}, "model"), shape, training=True)
    if options:
        raise UsageError(f"{model}: given {', '.join(options)}; accepted: classes, channels, size")
    params, macs = RUNGS[model].cost(**shape)
    return Count(params, macs, training_params=params)


def overview() -> list[dict[str, Any]]:
    """A row per rung: name, family, year; params, macs and flops at its published shape; what is published; the paper.

    `published` has params, gmacs (10⁹ multiply-adds), accuracy and source, as far as they are published, or is None.
    """
    rows = []
    for name, row in LADDER.items():
        shape = published_shape(name)
        if row.is_network:
            counted, published = _count(Model(name), shape, training=False), VARIANTS[name].published
            params, macs, figures = counted.params, counted.macs, to_dict(published) if published else None
        else:
            params, macs = RUNGS[name].cost(**shape)
            figures = {"accuracy": RUNGS[name].accuracy, "source": RUNGS[name].source}
        if figures is not None:
            figures = {key: figures.get(key) for key in ("params", "gmacs", "accuracy", "source")}
        rows.append(
            {"model": name, "family": row.family, "year": row.year, "shape": shape, "params": params, "macs": macs,
             "flops": 2 * macs, "published": figures, "paper": row.paper}
        )  # fmt: skip
    return rows


def _count(model: Model, shape: Mapping[str, int], *, training: bool) -> Count:
    with without_memory():
        network = build_model(without_weights(validate(model, "model")), **shape)
    return count(network, channels=shape["channels"], size=shape["size"], training=training)
