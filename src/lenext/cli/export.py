"""`lenext export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lenext.cli.console import Output, console, print_json

if TYPE_CHECKING:
    from lenext.ship.export import Exported


def export(
    bundle: Path,
    /,
    *,
    to: Literal["onnx", "openvino", "torch"] = "onnx",
    out: Path | None = None,
    data: str | None = None,
    int8: bool = False,
    max_drop: float = 0.5,
    abstain: float | None = None,
    output: Output = Output(),
) -> None:
    """Write a bundle's model for other programs, and prove from the files' bytes that it predicts the same.

    Example: lenext export best.lenext --to onnx

    Parameters
    ----------
    bundle
        A .lenext file.
    to
        onnx, openvino or torch (torch.export).
    out
        A new folder for the model, model.json and predict.py; otherwise beside the bundle.
    data
        The images it was trained on, whose validation part is compared; otherwise looked for where they were.
    int8
        Make it of 8-bit integers, whose ranges training images show.
    max_drop
        Points of accuracy on the validation images that this may cost.
    abstain
        The share of answers that shall be right, such as 0.99: predict.py says "?" where the model is not sure enough.
    """
    from lenext.errors import DataError, UsageError
    from lenext.ship import export as exporting
    from lenext.ship.bundle import load

    exporting.check_libraries(to)
    model, validation, calibration = load(bundle), None, None
    source = data or exporting.trained_on(bundle, model)
    try:
        validation = exporting.images_of(model, source, "val")
        if int8:
            calibration = exporting.to_calibrate_on(exporting.images_of(model, source, "train").subset.images)
    except (DataError, UsageError):
        if data or int8:
            raise
    made = exporting.export(
        model,
        to,
        out or bundle.with_name(f"{bundle.stem}-{to}{'-int8' if int8 else ''}"),
        validation=validation,
        abstain=abstain,
        calibration=calibration,
        max_drop=max_drop / 100,
    )
    if output.json:
        print_json(made)
    else:
        _print(made, source)


def _print(made: "Exported", source: str) -> None:
    from lenext.report.text import chance, plural, points, size

    shown = console()
    shown.print(f"{made.folder}  {made.to}, {size(made.bytes)}")
    if made.change is not None:
        shown.print(
            f"8-bit integers change the accuracy on {plural(made.validation_images, 'validation image')} by "
            f"{points(made.change.value, 2)} points (95 % interval {points(made.change.low, 2)} to "
            f"{points(made.change.high, 2)}, p = {chance(made.change.p)})"
        )
        return
    shown.print(
        f"from their files' bytes it predicts {plural(made.goldens, 'golden image')} and "
        f"{plural(made.validation_images, 'validation image')} as the bundle does; "
        f"probabilities differ by {made.difference:.1g} at most"
    )
    if not made.validation_images:
        shown.print(f"{source} was not found, so no validation image was compared; --data says where it is")
