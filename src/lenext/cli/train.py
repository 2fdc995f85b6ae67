"""`lenext train`."""

from pathlib import Path
from typing import Literal

from lenext.cli.console import STARTED, Output, Settings
from lenext.errors import UsageError


def train(
    data: str = "",
    /,
    *,
    model: str | None = None,
    weights: str | None = None,
    loss: Literal["cross_entropy", "focal"] | None = None,
    budget: str | None = None,
    epochs: float | None = None,
    seed: int | None = None,
    out: Path | None = None,
    ray: bool = False,
    workers: int | None = None,
    storage: str | None = None,
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
    loss
        What training minimises: cross_entropy, or focal, which minds images that are classified well little.
    budget
        Time for everything, such as 90s, 2m or 1h30m.
    epochs
        Passes over the training images, instead of a budget.
    seed
        Another seed gives another start, order and augmentation.
    out
        The run's folder; otherwise a new one below runs/.
    ray
        Train with several workers on a Ray cluster: that at RAY_ADDRESS, else one on this machine.
    workers
        How many, with --ray.
    storage
        Where workers without a common disk keep the run, with --ray: a path or URL that all of them reach.
    """
    from lenext.cli.progress import Shown
    from lenext.cli.resume import print_result
    from lenext.run import asked
    from lenext.run import run as start

    spec = asked(
        data,
        model=model,
        weights=weights,
        loss=loss,
        epochs=epochs,
        budget=budget,
        seed=seed,
        settings=settings.read(),
    )
    for option, value in (("workers", workers), ("storage", storage)):
        if value is not None and not ray:
            raise UsageError(f"--{option}: given {value} without --ray, accepted: with it; without Ray workers are "
                             "started by torchrun --nproc-per-node N -m lenext.cli train …")  # fmt: skip
    with Shown() as observer:
        if ray:
            from lenext import cluster

            result = cluster.train(
                spec, workers=1 if workers is None else workers, storage=storage, out=out, observer=observer
            )
        else:
            result = start(spec, out=out, observer=observer, started=STARTED)
    print_result(result, as_json=output.json)
