"""`lenext compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

from lenext.cli.console import STARTED, Output, Settings, console, left_out, print_json, print_paths, table
from lenext.errors import UsageError

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
    seeds: int = 1,
    max_latency: float | None = None,
    max_size: str | None = None,
    max_macs: str | None = None,
    out: Path | None = None,
    ray: bool = False,
    workers: int | None = None,
    settings: Settings = Settings(),
    output: Output = Output(),
) -> None:
    """Train the ladder on the same images inside one budget, and say which rung to ship.

    Example: lenext compare digits --budget 1m

    Parameters
    ----------
    data
        A name (digits, fashion-mnist), a folder of class folders, or a CSV or Parquet manifest.
    models
        Names with commas between, with a width, how many vote, or mirrored images:
        softmax,hog_svm,resnet9@0.5,resnet9@0.5x3,resnet9+flip.
        Otherwise six rungs, with a budget ten and more.
    budget
        Time for all together, such as 90s, 10m or 1h30m; shared out before it begins.
    epochs
        Passes over the training images for each network, instead of a budget.
    seed
        Another seed gives another start, order and augmentation.
    seeds
        So many seeds of each rung, as far as the budget allows.
    max_latency
        Milliseconds that the rung to ship may take for an image.
    max_size
        Bytes that its bundle may have, such as 5MB.
    max_macs
        Multiply-adds that it may take for an image, such as 100M.
    out
        The comparison's folder; otherwise a new one below runs/. One that was stopped is continued.
    ray
        Train several rungs at a time on a Ray cluster: that at RAY_ADDRESS, else one on this machine.
    workers
        How many, with --ray; otherwise one a machine, and two at least.
    """
    from lenext import cluster
    from lenext.cli.progress import Shown
    from lenext.comparison import compare as start

    if workers is not None and not ray:
        raise UsageError(f"--workers: given {workers} without --ray, accepted: with it")
    names = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    with Shown() as observer:
        comparison = start(
            data,
            models=names,
            epochs=epochs,
            budget=budget,
            seed=seed,
            seeds=seeds,
            max_latency=max_latency,
            max_size=max_size,
            max_macs=max_macs,
            settings=settings.read(),
            out=out,
            lanes=cluster.Lanes(workers) if ray else None,
            observer=observer,
            started=STARTED,
        )
    print_comparison(comparison, as_json=output.json)


def print_comparison(comparison: "Comparison", *, as_json: bool) -> None:
    from lenext.report.text import compact, percent, seconds, size

    if as_json:
        print_json(comparison)
        return
    numbers = ("accuracy", "95 %", "training", "MACs", "ms/image", "bundle")
    rows = table("model", *numbers, right=numbers)
    rows.padding = (0, 1, 0, 0)  # so that it fits into 80 columns
    for row in comparison.rungs:
        if row["error"]:
            rows.add_row(row["model"], "failed", *[""] * (len(numbers) - 1))
            continue
        low, high = row["accuracy_interval"]
        rows.add_row(
            row["model"],
            percent(row["accuracy"]),
            f"{100 * low:.1f}–{100 * high:.1f}",
            seconds(row["train_seconds"]),
            compact(row["macs"]),
            f"{row['predict_ms_per_image']:.2f}",
            size(row["bundle_bytes"]),
            style="bold" if row["model"] == comparison.winner else "",
        )
    shown = console()
    shown.print(rows)
    for row in comparison.rungs:
        if row["error"]:
            shown.print(f"{row['model']} failed: {row['error']}")
    for line in left_out(comparison.plan):
        shown.print(line)
    shown.print(comparison.verdict)
    print_paths(comparison.report, comparison.bundle)
