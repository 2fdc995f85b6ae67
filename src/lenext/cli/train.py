"""`lenext train`."""

from pathlib import Path

from lenext.cli.console import STARTED, Output, Settings


def train(
    data: str = "",
    /,
    *,
    model: str | None = None,
    weights: str | None = None,
    budget: str | None = None,
    epochs: float | None = None,
    seed: int | None = None,
    out: Path | None = None,
    settings: Settings = Settings(),
    output: Output = Output(),
) -> None:
    """Train one model, judge it on images it has not seen, and bundle it as one file.

    Example: lenext train pictures/ --model lenet_relu --budget 2m

    Parameters
    ----------
    data
        A name (digits, fashion-mnist), a folder of class folders, a CSV or Parquet manifest, a pack, or
        tar shards.
    model
        A rung of the ladder; `lenext models` lists them.
    weights
        Begin with these: a .pth or .safetensors file, or imagenet for published ones.
    budget
        Time for everything, such as 90s, 2m or 1h30m.
    epochs
        Passes over the training images, instead of a budget.
    seed
        Another seed gives another start, order and augmentation.
    out
        The run's folder; otherwise a new one below runs/.
    """
    from lenext.cli.progress import Shown
    from lenext.cli.resume import print_result
    from lenext.run import train as start

    with Shown() as observer:
        result = start(
            data,
            model=model,
            weights=weights,
            epochs=epochs,
            budget=budget,
            seed=seed,
            settings=settings.read(),
            out=out,
            observer=observer,
            started=STARTED,
        )
    print_result(result, as_json=output.json)
