"""`lenext bench`."""

from typing import TYPE_CHECKING, Any, Literal

from lenext.cli.console import Output, Settings, console, print_json, table

if TYPE_CHECKING:
    from lenext.bench import Measured


def bench(
    what: Literal["train", "infer", "data"],
    subject: str,
    /,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    batch: int | None = None,
    engine: str | None = None,
    repeats: int = 5,
    seconds: float = 3.0,
    settings: Settings = Settings(),
    output: Output = Output(),
) -> None:
    """Measure images per second: of training or predicting with a network, or of reading data.

    Example: lenext bench train resnet50 --batch 32

    Parameters
    ----------
    what
        train, infer or data.
    subject
        A network for train and infer, or a .lenext file for infer; images for data.
    size
        Side of the images in pixels; otherwise as published, and of data as a run would choose it.
    channels
        1 for gray images, 3 for colour; otherwise as published.
    classes
        Classes to tell apart; otherwise as published.
    batch
        Images a step; otherwise as in the recipe, and 32 for predicting.
    engine
        What computes a bundle's scores: torch, torch_bf16, onnxruntime, openvino, openvino_bf16, openvino_mixed; or
        auto, the fastest of those that agree with it.
    repeats
        Measurements, of which the median counts.
    seconds
        How long each takes.
    """
    from lenext import bench as measure
    from lenext.errors import UsageError

    if repeats < 1 or seconds <= 0 or (batch is not None and batch < 1):
        raise UsageError(
            f"bench: given {repeats} repeats of {seconds:g} s with {batch} images, accepted: 1 or more of each"
        )
    given: dict[str, Any] = {
        "size": size,
        "batch_size": batch,
        "settings": settings.read(),
        "repeats": repeats,
        "seconds": seconds,
    }
    of_bundle = what == "infer" and subject.endswith(".lenext")
    if engine is not None and not of_bundle:
        raise UsageError("bench: given --engine, accepted: with infer and a .lenext file")
    if of_bundle:
        if any(value is not None for value in (size, channels, classes)) or given["settings"]:
            raise UsageError("bench: given --size, --channels, --classes or --set, accepted: without a .lenext file")
        measured = measure.bench_bundle(
            subject, engine=engine or "auto", batch_size=batch, repeats=repeats, seconds=seconds
        )
    elif what == "data":
        if channels is not None or classes is not None:
            raise UsageError("bench data: given --channels or --classes, accepted: with train and infer")
        measured = measure.bench_data(subject, **given)
    else:
        made = measure.bench_train if what == "train" else measure.bench_infer
        measured = made(subject, channels=channels, classes=classes, **given)
    if output.json:
        print_json(measured)
    else:
        _print(measured)


def _print(measured: "Measured") -> None:
    from lenext.report.text import compact, count, percent

    rows = table("", "", right=("",))
    rows.show_header = False
    low, high = min(measured.repeats), max(measured.repeats)
    rows.add_row("images a second", count(measured.images_per_second))
    rows.add_row("from, to", f"{count(low)}, {count(high)}")
    rows.add_row("images", f"{measured.batch_size} of {measured.size} × {measured.size} × {measured.channels}")
    if measured.macs_per_second and measured.peak_macs_per_second and measured.share_of_peak and measured.macs:
        rows.add_row("multiply-adds an image", compact(measured.macs))
        rows.add_row("multiply-adds a second", compact(measured.macs_per_second))
        rows.add_row(
            "of a matrix product's", f"{percent(measured.share_of_peak)} of {compact(measured.peak_macs_per_second)}"
        )
        rows.add_row("precision", str(measured.precision))
    if measured.at_once and measured.at_once < measured.batch_size:
        rows.add_row("images at a time", count(measured.at_once))
    if measured.engine is not None:
        rows.add_row("engine", measured.engine)
    if measured.float32_share:
        rows.add_row("in float32 as well", f"{percent(measured.float32_share)} of the images")
    for name, rate in sorted((measured.engines or {}).items(), key=lambda pair: -pair[1]):
        rows.add_row(f"  {name}", count(rate))
    for name, reason in (measured.left_out or {}).items():
        rows.add_row(f"  {name}", reason)
    if measured.fused_batch_norm is not None:
        rows.add_row("batch norm", "fused" if measured.fused_batch_norm else "torch's own")
    console().print(rows)
