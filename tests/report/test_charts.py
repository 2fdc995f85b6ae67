import io

import numpy as np
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
