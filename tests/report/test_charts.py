import io

import numpy as np
import pytest
from PIL import Image

from lenext.report import charts


def test_a_mistake_is_painted_by_its_share_of_the_row() -> None:
    cells = charts.confusion_cells(["a", "b"], [[60, 40], [10, 90]])
    strength = {(cell["true"], cell["predicted"]): cell["strength"] for cell in cells}
    assert strength == {("a", "a"): 0.6, ("a", "b"): 1.0, ("b", "a"): 0.5, ("b", "b"): 0.9}


def test_empty_cells_and_empty_rows_are_not_drawn() -> None:
    assert [cell["true"] for cell in charts.confusion_cells(["a", "b"], [[3, 0], [0, 0]])] == ["a"]


def test_of_too_many_cells_the_diagonal_and_the_most_frequent_mistakes_stay() -> None:
    matrix = np.random.default_rng(0).integers(1, 9, (100, 100))
    cells = charts.confusion_cells([str(k) for k in range(100)], matrix.tolist())
    assert len(cells) == charts.MOST_CELLS
    assert sum(cell["right"] for cell in cells) == 100
    wrong = np.sort(matrix[~np.eye(100, dtype=bool)])[::-1][: charts.MOST_CELLS - 100]
    assert sorted((cell["count"] for cell in cells if not cell["right"]), reverse=True) == wrong.tolist()


@pytest.mark.parametrize(("low", "high"), [(0.2, 40.0), (2.0, 3.0), (1e-6, 1e5), (50.0, 7200.0)])
def test_every_time_axis_has_readable_ticks(low: float, high: float) -> None:
    rungs = [
        {"model": name, "accuracy": 0.9, "accuracy_interval": None, "train_seconds": seconds}
        for name, seconds in (("quick", low), ("slow", high))
    ]
    spec = charts.accuracy_against(charts.COSTS[0], rungs, "quick", charts.PAPER).to_dict()
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
    assert [rung["model"] for rung in charts.against(charts.COSTS[1], rungs)] == ["lenet"]


def test_names_of_points_that_nearly_coincide_do_not_cover_one_another() -> None:
    rungs = [
        {"model": name, "accuracy": accuracy, "accuracy_interval": [0.88, 0.93], "params": 61_706}
        for name, accuracy in (("lenet", 0.905), ("lenet_relu", 0.906), ("lenet_wide", 0.907))
    ]
    spec = charts.accuracy_against(charts.COSTS[2], rungs, None, charts.PAPER).to_dict()
    points = next(rows for rows in spec["datasets"].values())
    assert len({(point["align"], point["dy"]) for point in points}) == 3


def test_png_is_a_picture_with_the_chart_on_white() -> None:
    rows = [{"epoch": epoch, "val_accuracy": 0.1 * epoch, "val_loss": 1 / epoch} for epoch in (1, 2, 3)]
    image = np.asarray(Image.open(io.BytesIO(charts.png(charts.learning_curves(rows, "a run")))).convert("RGB"))
    assert tuple(image[0, 0]) == (255, 255, 255)
    accent = np.array([int(charts.PAPER.accent[i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(image.astype(int) - accent).max(axis=2) < 8).sum() > 500


def test_the_script_that_is_inlined_cannot_end_its_own_element() -> None:
    script = charts.javascript()
    assert "vegaEmbed" in script
    assert "</script" not in script.lower()
    assert "<!--" not in script
