"""The ladder: every rung, networks and classical methods alike, from the cheapest up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lenext.classical import RUNGS
from lenext.costing import count
from lenext.errors import UsageError
from lenext.models import VARIANTS, build
from lenext.spec import Run, Svm, from_dict, merge, suggestion, to_dict, validate
from lenext.training import RECIPES


@dataclass(frozen=True)
class Rung:
    """A model that can be trained, by name, with what is published of it."""

    name: str
    family: str
    year: int
    paper: str
    published: str
    is_network: bool


LADDER: dict[str, Rung] = {
    name: Rung(name, row.family, row.year, row.paper, row.published, name in VARIANTS)
    for name, row in sorted((VARIANTS | RUNGS).items(), key=lambda item: item[1].year)
}


def rung(name: str) -> Rung:
    """The rung `name`. Raises UsageError with the nearest name where there is none."""
    if name not in LADDER:
        raise UsageError(f"unknown model {name!r}; {suggestion(name, LADDER)}; `lenext models` lists them")
    return LADDER[name]


def resolve(source: str, model: str | None, *layers: Mapping[str, Any]) -> Run:
    """The run that trains `model` on `source`: the model's recipe, overlaid with `layers`, the last on top.

    `model` and `source` win over the layers where given. Raises UsageError for an unknown model or key, and for
    settings that the model does not read.
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
    recipe = to_dict(RECIPES[name]) if row.is_network else to_dict(Svm())
    run = validate(from_dict(Run, merge({section: recipe}, given, {"model": {"name": name}})))
    path = Path(run.data.source)
    if path.exists():  # so that the run can be resumed from any folder
        run = replace(run, data=replace(run.data, source=str(path.resolve())))
    return run


def overview(*, classes: int = 10, channels: int = 1, size: int = 28) -> list[dict[str, Any]]:
    """A row per rung: name, family, year, params and macs at the given shape, what is published, the paper."""
    rows = []
    for row in LADDER.values():
        if row.is_network:
            cost = count(build(row.name, classes=classes, channels=channels, size=size), channels=channels, size=size)
            params, macs = cost.params, cost.macs
        else:
            params, macs = RUNGS[row.name].cost(classes, channels, size)
        rows.append(
            {"model": row.name, "family": row.family, "year": row.year, "params": params, "macs": macs,
             "flops": 2 * macs, "published": row.published, "paper": row.paper}
        )  # fmt: skip
    return rows
