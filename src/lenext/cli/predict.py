"""`lenext predict`."""

from pathlib import Path
from typing import TYPE_CHECKING

from lenext.cli.console import Output, console, print_json

if TYPE_CHECKING:
    from lenext.ship.predict import Prediction


def predict(bundle: Path, /, *paths: str, csv: Path | None = None, output: Output = Output()) -> None:
    """Say what is on pictures: the class, and how sure the model is.

    Example: lenext predict best.lenext holiday.jpg "inbox/*.png" --csv answers.csv

    Parameters
    ----------
    bundle
        A .lenext file.
    paths
        Pictures, folders of pictures, or patterns.
    csv
        A file to write instead: path, label, probability, error, and a column per class.
    """
    from lenext.errors import DataError, UsageError
    from lenext.ship.bundle import load

    if not paths:
        raise UsageError("no pictures given; accepted: files, folders, or patterns such as 'in/*.jpg'")
    model = load(bundle)
    predictions = list(model.predict(paths))
    if csv:
        _write_csv(csv, predictions, model.classes)
    if output.json:
        print_json({"classes": model.classes, "predictions": predictions})
    elif not csv:
        shown = console()
        for p in predictions:
            if p.probability is not None:
                shown.print(f"{p.path}\t{p.label}\t{p.probability:.1%}", markup=False, soft_wrap=True)
    bad = [p for p in predictions if p.error]
    for p in bad:
        console(stderr=True).print(f"{p.path}: {p.error}", markup=False, soft_wrap=True)
    if bad:
        raise DataError(f"{len(bad)} of {len(predictions)} pictures could not be read; the rest are predicted")


def _write_csv(path: Path, predictions: "list[Prediction]", classes: tuple[str, ...]) -> None:
    from lenext.record import Record

    Record(path.parent).write_csv(
        path.name,
        ("path", "label", "probability", "error", *classes),
        ((p.path, p.label, p.probability, p.error, *(p.probabilities or [None] * len(classes))) for p in predictions),
    )
