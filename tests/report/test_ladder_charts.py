"""The charts of a comparison, by what their specifications hold."""

import itertools
import json
from typing import Any

import numpy as np
import pytest

from lenext.report import charts, foretold, labels, ladder_charts, text

COSTS = {cost.key: cost for cost in ladder_charts.COSTS}


def rung(model: str, accuracy: float | None, **costs: Any) -> dict[str, Any]:
    return {"model": model, "accuracy": accuracy, "accuracy_interval": None, **costs}


def rows_of(spec: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Those of the chart's data sets whose rows have `key`, joined, each row once."""
    found = {json.dumps(row): row for rows in spec["datasets"].values() for row in rows if key in row}
    return list(found.values())


@pytest.mark.parametrize(("low", "high"), [(0.2, 40.0), (2.0, 3.0), (1e-6, 1e5), (50.0, 7200.0)])
def test_every_time_axis_has_readable_ticks(low: float, high: float) -> None:
    rungs = [
        {"model": name, "accuracy": 0.9, "accuracy_interval": None, "train_seconds": seconds}
        for name, seconds in (("quick", low), ("slow", high))
    ]
    spec = ladder_charts.accuracy_against(COSTS["train_seconds"], rungs, "quick", charts.PAPER).to_dict()
    ticks = spec["layer"][0]["encoding"]["x"]["axis"]["values"]
    assert 2 <= len(ticks) <= 14
    assert all(low / 2 <= tick <= high * 2 for tick in ticks)


def test_rungs_without_a_cost_or_an_accuracy_are_not_put_on_its_axis() -> None:
    rungs = [
        {"model": "svm", "accuracy": 0.9, "macs": None},
        {"model": "none", "accuracy": 0.9, "macs": 0},
        {"model": "failed", "accuracy": None, "macs": 10},
        {"model": "lenet", "accuracy": 0.9, "macs": 10},
    ]
    assert [rung["model"] for rung in ladder_charts.against(COSTS["macs"], rungs)] == ["lenet"]


def test_names_of_points_that_nearly_coincide_do_not_cover_one_another() -> None:
    rungs = [
        {"model": name, "accuracy": accuracy, "accuracy_interval": [0.88, 0.93], "params": 61_706}
        for name, accuracy in (("lenet", 0.905), ("lenet_relu", 0.906), ("lenet_wide", 0.907))
    ]
    spec = ladder_charts.accuracy_against(COSTS["params"], rungs, None, charts.PAPER).to_dict()
    points = next(rows for rows in spec["datasets"].values())
    assert len({(point["align"], point["dy"]) for point in points}) == 3


def test_the_frontier_has_what_no_cheaper_model_beats() -> None:
    rungs = [
        rung("dear", 0.95, macs=100),
        rung("cheap", 0.80, macs=1),
        rung("beaten", 0.79, macs=2),
        rung("equal", 0.80, macs=5),
        rung("middle", 0.90, macs=10),
        rung("same cost", 0.85, macs=10),
        rung("unknown", 0.99, macs=None),
        rung("failed", None, macs=3),
    ]
    assert ladder_charts.frontier(COSTS["macs"], rungs) == ["cheap", "middle", "dear"]
    assert ladder_charts.frontier(COSTS["macs"], []) == []


def test_the_frontier_is_drawn_as_steps_through_the_models_on_it() -> None:
    rungs = [rung("a", 0.8, macs=1), rung("b", 0.7, macs=2), rung("c", 0.9, macs=3)]
    spec = ladder_charts.accuracy_against(COSTS["macs"], rungs, "c", charts.PAPER, best=["a", "c"]).to_dict()
    line = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "line")
    assert line["mark"]["interpolate"] == "step-after"
    assert line["transform"] == [{"filter": "datum.best"}]
    assert {row["model"]: row["best"] for row in rows_of(spec, "best")} == {"a": True, "b": False, "c": True}
    axis = line["encoding"]["x"]
    assert axis["scale"]["type"] == "log"


@pytest.mark.parametrize(("limit", "drawn"), [(0.5, 1), (1000.0, 0), (None, 0)])
def test_a_limit_is_drawn_where_the_axis_reaches_it(limit, drawn) -> None:
    rungs = [rung("a", 0.8, predict_ms_per_image=0.2), rung("b", 0.9, predict_ms_per_image=1.0)]
    cost = COSTS["predict_ms_per_image"]
    spec = ladder_charts.accuracy_against(cost, rungs, None, charts.PAPER, limit=limit).to_dict()
    rules = [layer for layer in spec["layer"] if layer["mark"].get("strokeDash") == [6, 4]]
    assert len(rules) == drawn
    if drawn:
        assert {"cost": 0.0005} in itertools.chain(*spec["datasets"].values())  # seconds


def test_a_time_axis_from_nought_has_round_ticks_that_say_what_they_are() -> None:
    axis = ladder_charts.Span(0, 90, log=False).axis(text.seconds).to_dict()
    assert axis["values"] == [0, 30, 60, 90]
    for said in ("'0 s'", "'30 s'", "'1 min'", "'1.5 min'"):
        assert said in axis["labelExpr"]


def test_times_far_apart_have_a_logarithmic_axis() -> None:
    def axis_of(*ends: float) -> str:
        histories = {
            f"m{end}": [{"epoch": i, "seconds": end * i / 4, "val_accuracy": 0.5 + 0.1 * i} for i in (1, 2, 3, 4)]
            for end in ends
        }
        spec = ladder_charts.accuracy_over_time(histories, {}, list(histories), charts.PAPER).to_dict()
        return spec["layer"][0]["encoding"]["x"]["scale"]["type"]

    assert axis_of(10.0, 40.0) == "linear"
    assert axis_of(2.0, 40.0) == "log"


def test_the_first_epochs_do_not_flatten_the_last_ones() -> None:
    histories = {
        model: [{"epoch": i, "seconds": 5.0 * i, "val_accuracy": value} for i, value in enumerate(values, start=1)]
        for model, values in {"a": (0.1, 0.8, 0.92), "b": (0.1, 0.85, 0.95)}.items()
    }
    spec = ladder_charts.accuracy_over_time(histories, {"svm": (7.0, 0.9)}, ["a", "svm", "b"], charts.PAPER).to_dict()
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert 0.7 < low < 0.9  # the least end, with as much room below it as the ends lie apart and more
    assert 0.95 < high <= 1
    classical = [row for row in rows_of(spec, "kind") if row["kind"] == "classical"]
    assert {(row["model"], row["seconds"], row["accuracy"]) for row in classical} == {("svm", 7.0, 0.9)}


def test_what_missed_its_interval_is_a_hollow_point() -> None:
    told = {
        "met": foretold.Foretold(10.0, 8.0, 12.0, 11.0),
        "missed": foretold.Foretold(10.0, 8.0, 12.0, 15.0),
        "no interval": foretold.Foretold(10.0, 10.0, 10.0, 15.0),
    }
    spec = ladder_charts.actual_against_predicted(foretold.KINDS[0], told, list(told), charts.PAPER).to_dict()
    inside = {row["model"]: row["inside"] for row in rows_of(spec, "inside")}
    assert inside == {"met": True, "missed": False, "no interval": True}
    across, up = (spec["layer"][0]["encoding"][axis]["scale"]["domain"] for axis in "xy")
    assert across == up
    assert across[0] < 8 < 15 < across[1]


def overlaps(boxes: list[tuple[float, float, float, float]]) -> int:
    return sum(
        min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
        for a, b in itertools.combinations(boxes, 2)
    )


def name_boxes(
    names: list[str], points: list[tuple[float, float]], width: float
) -> list[tuple[float, float, float, float]]:
    boxes = []
    for name, (x, y), place in zip(names, points, labels.place(names, points, 380), strict=True):
        long = labels.LETTER * len(name)
        left = x * width + place.dx - {"left": 0, "center": 0.5, "right": 1}[place.align] * long
        boxes.append((left, 380 * y + place.dy - 7, left + long, 380 * y + place.dy + 7))
    return boxes


@pytest.mark.parametrize("width", labels.WIDTHS)
@pytest.mark.parametrize("seed", range(8))
def test_names_of_twelve_crowded_points_keep_clear_of_one_another(seed: int, width: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"resnext{number}_32" for number in range(12)]
    points = [(float(x), float(y)) for x, y in random.uniform((0.45, 0.2), (0.85, 0.5), (12, 2))]
    boxes = name_boxes(names, points, width)
    assert overlaps(boxes) == 0
    assert all(left >= 0 and top >= 0 and right <= width and bottom <= 380 for left, top, right, bottom in boxes)


def test_a_name_keeps_off_a_line_that_runs_beside_its_point() -> None:
    level = [(0.5, 0.5), (0.9, 0.5)]
    assert labels.place(["name"], [(0.5, 0.5)], 380)[0] == labels.Place("left", 11, 0)
    assert labels.place(["name"], [(0.5, 0.5)], 380, [level])[0] == labels.Place("right", -11, 0)


def test_only_a_name_far_from_its_point_needs_a_leader() -> None:
    assert not labels.Place("left", 9, -14).far
    assert labels.Place("left", 9, 28).far
