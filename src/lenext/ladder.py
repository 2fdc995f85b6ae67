"""The ladder: every rung, networks and classical methods alike, from the cheapest up."""

import datetime
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lenext import classical
from lenext.classical import RUNGS
from lenext.costing import Count, Layer, count, without_memory
from lenext.errors import UsageError
from lenext.models import (
    LAYER_OPTIONS,
    VARIANTS,
    Shape,
    Variant,
    build_model,
    check_weights,
    variant,
    without_weights,
)
from lenext.nn import Layers
from lenext.spec import Model, Recipe, Run, from_dict, merge, suggestion, to_dict, validate
from lenext.training import recipe_for
from lenext.training.recipes import FINE_TUNING, RECIPES

# The sections of a run that only some rungs read
SECTIONS = ("recipe", "descriptors", "codebook", "encoding", "svm")


@dataclass(frozen=True)
class Rung:
    """A model that can be trained, by name; `sections` are those of `SECTIONS` that it reads."""

    name: str
    family: str
    year: int
    paper: str
    is_network: bool
    sections: tuple[str, ...]


def _rung(name: str, row: Variant | classical.Rung) -> Rung:
    network = isinstance(row, Variant)
    sections = ("recipe",) if isinstance(row, Variant) else tuple(row.recipe)
    return Rung(name, row.family, row.year, row.paper, network, sections)


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


def add_rung(
    name: str,
    build: Callable[[Shape, Layers], nn.Module],
    *,
    recipe: Recipe | None = None,
    layers: Layers = Layers(),
    options: Sequence[str] = (),
    min_size: int = 8,
    family: str = "own",
    year: int | None = None,
    paper: str = "",
) -> None:
    """Adds a network of one's own to the ladder, for this process: it trains, is compared and bundled like any other.

    `build` makes it for images float [N, shape.channels, shape.size, shape.size] to logits [N, shape.classes]; `layers`
    are those that settings below ``model.`` change, of which it honours `options` (``"width"``, ``"norm"``, …);
    `recipe` is how it is trained (default: as networks of its norm are), `min_size` its least side in pixels, `year`
    this one. A bundle of it is loaded where the rung has been added, too. Raises UsageError for a name that is taken,
    or that could not be told from a width or mirrored images on a command line, and for an unknown option.
    """
    if name in LADDER or not re.fullmatch(r"[a-z0-9_]+", name):
        raise UsageError(f"{name!r}: accepted: a name of a-z, 0-9 and _ that the ladder does not have yet")
    if unknown := [option for option in options if option not in LAYER_OPTIONS]:
        raise UsageError(f"{name}: given option {unknown[0]!r}, accepted: {', '.join(LAYER_OPTIONS)}")
    VARIANTS[name] = Variant(
        family, year or datetime.date.today().year, paper, build,
        classes=10, channels=1, size=28, layers=layers, options=tuple(options), min_size=min_size,
    )  # fmt: skip
    if recipe is not None:
        RECIPES[name] = recipe
    LADDER[name] = _rung(name, VARIANTS[name])


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
    for section in SECTIONS:
        if section in given and section not in row.sections:
            raise UsageError(f"{section}: {name} does not read these settings; it reads those of "
                             f"{', '.join(map(repr, row.sections))}")  # fmt: skip
    given = merge(given, {"model": {"name": name}})
    wanted = from_dict(Model, given["model"], "model")
    if row.is_network:
        below: dict[str, Any] = {"recipe": to_dict(recipe_for(wanted))}
        if wanted.weights is not None:
            known = check_weights(wanted)  # now, and not after the images are read
            below = merge(below, {"recipe": FINE_TUNING, "data": {"size": known.size}})
    else:
        _refuse_options(wanted)
        below = _recipe(name)
    run = validate(from_dict(Run, merge(below, given)))
    if not row.is_network:
        classical.check(run)
    path = Path(run.data.source)
    if path.exists():  # so that the run can be resumed from any folder
        run = replace(run, data=replace(run.data, source=str(path.resolve())))
    if wanted.weights is not None and (path := Path(wanted.weights).expanduser()).is_file():
        run = replace(run, model=replace(run.model, weights=str(path.absolute())))
    return run


def _recipe(name: str) -> dict[str, Any]:
    return {section: to_dict(part) for section, part in RUNGS[name].recipe.items()}


def _refuse_options(model: Model) -> None:
    """Raises UsageError where options of a network are set for a classical rung."""
    if model.weights is not None:
        raise UsageError(f"{model.name} begins with no weights: given {model.weights!r}, accepted: with a network")
    plain = Model(model.name)
    if given := [key for key, value in vars(model).items() if value != getattr(plain, key)]:
        raise UsageError(f"model.{given[0]}: {model.name} does not read it; "
                         f"it reads the settings of {', '.join(map(repr, RUNGS[model.name].recipe))}")  # fmt: skip


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

    `model` is the name of a rung, taken as published but for what is given (`options` as for `lenext.build`; of a
    classical rung its sections, ``codebook={"words": 1024}``); or any network on images float32
    [N, channels, size, size], by default of 3 channels and 224 px. Of a classical rung no memory is told, and its
    layers are its steps. Raises UsageError for what cannot be built, and for a network that refuses
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
    return _classical_cost(model, options, **shape)


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
            counted = _classical_cost(name, {}, **shape)
            params, macs = counted.params, counted.macs
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
    counted = count(network, channels=shape["channels"], size=shape["size"], training=training)
    return counted.times(model.views)


def _classical_cost(name: str, sections: Mapping[str, Any], classes: int, channels: int, size: int) -> Count:
    if unread := [key for key in sections if key not in RUNGS[name].recipe]:
        accepted = ", ".join(["classes", "channels", "size", *RUNGS[name].recipe])
        raise UsageError(f"{name}: given {', '.join(unread)}; accepted: {accepted}")
    given = merge(_recipe(name), sections, {"data": {"source": "-"}, "model": {"name": name}})
    run = validate(from_dict(Run, given))
    steps = classical.steps(run, classes=classes, channels=channels, size=size)
    layers = tuple(Layer(step.step, step.what, step.shape, step.params, step.macs, 4 * math.prod(step.shape), None)
                   for step in steps)  # fmt: skip
    params, macs = sum(step.params for step in steps), sum(step.macs for step in steps)
    return Count(params, macs, training_params=params, layers=layers)
