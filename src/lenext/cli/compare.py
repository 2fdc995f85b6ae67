"""`lenext compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

from lenext.cli.console import STARTED, Output, Settings, console, print_json, print_paths, table

if TYPE_CHECKING:
    from lenext.comparison import Comparison


def compare(
    data: str = "",
    /,
    *,
    models: str | None = None,
    budget: str | None = None,
    epochs: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    settings: Settings = Settings(),
    output: Output = Output(),
) -> None:
    """Train the ladder on the same images, judge every rung, and bundle the best.

    Example: lenext compare digits --models softmax,svm_linear,lenet_relu

    Parameters
    ----------
    data
        A name (digits, fashion-mnist), a folder of class folders, or a CSV or Parquet manifest.
    models
        Names with commas between; otherwise softmax, svm_linear, bow_sift, lenet, lenet_relu, resnet20.
    budget
        Time for all together, such as 90s, 10m or 1h30m.
    epochs
        Passes over the training images for each network, instead of a budget.
    seed
        Another seed gives another start, order and augmentation.
    out
        The comparison's folder; otherwise a new one below runs/.
    """
    from lenext.cli.progress import Shown
    from lenext.comparison import compare as start

    names = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    with Shown() as observer:
        comparison = start(
            data,
            models=names,
            epochs=epochs,
            budget=budget,
            seed=seed,
            settings=settings.read(),
            out=out,
            observer=observer,
            started=STARTED,
        )
    if output.json:
        print_json(comparison)
    else:
        _print(comparison)


def _print(comparison: "Comparison") -> None:
    from lenext.report.text import compact, percent, seconds, size

    rows = table("model", "accuracy", "95 %", "training", "params", "ms/image", "bundle",
                 right=("accuracy", "95 %", "training", "params", "ms/image", "bundle"))  # fmt: skip
    for row in comparison.rungs:
        if row["error"]:
            rows.add_row(row["model"], "failed", "", "", "", "", "")
            continue
        low, high = row["accuracy_interval"]
        rows.add_row(
            row["model"],
            percent(row["accuracy"]),
            f"{100 * low:.1f}–{100 * high:.1f}",
            seconds(row["train_seconds"]),
            compact(row["params"]),
            f"{row['predict_ms_per_image']:.2f}",
            size(row["bundle_bytes"]),
            style="bold" if row["model"] == comparison.winner else "",
        )
    shown = console()
    shown.print(rows)
    for row in comparison.rungs:
        if row["error"]:
            shown.print(f"{row['model']} failed: {row['error']}")
    shown.print(comparison.verdict)
    print_paths(comparison.report, comparison.bundle)
