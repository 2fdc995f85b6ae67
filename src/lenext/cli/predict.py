"""`lenext predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lenext.cli.console import Output, complain, print_json

if TYPE_CHECKING:
    from lenext.ship.predict import Prediction


def predict(
    bundle: Path, /, *paths: str, csv: Path | None = None, abstain: float | None = None, output: Output = Output()
) -> int:
    """Say what is on pictures: the class, and how sure the model is.

    Example: lenext predict best.lenext holiday.jpg "inbox/*.png" --csv answers.csv

    Parameters
    ----------
    bundle
        A .lenext file.
    paths
        Pictures, folders of pictures, or patterns.
    csv
        A file to write instead: path, label, probability, outlier, abstained, error, and a column per class.
    abstain
        The share of answers that shall be right, such as 0.99: what the model is not sure enough of gets none.
    """
    from lenext.errors import DataError, UsageError
    from lenext.report.text import percent, plural
    from lenext.ship.bundle import load

    if not paths:
        raise UsageError("no pictures given; accepted: files, folders, or patterns such as 'in/*.jpg'")
    if csv and not csv.parent.is_dir():
        raise UsageError(f"cannot write {csv}: there is no folder {csv.parent}")
    model = load(bundle)
    predictions = list(model.predict(paths, abstain=abstain))
    if csv:
        _write_csv(csv, predictions, model.classes)
    if output.json:
        print_json({"classes": model.classes, "predictions": predictions})
    elif not csv:
        for p in predictions:
            if not p.error:
                print(p.path, p.label or "?", percent(p.probability), sep="\t")
    bad = [p for p in predictions if p.error]
    for p in bad:
        print(f"{p.path}: {p.error}", file=sys.stderr)
    if not bad:
        return 0
    rest = "; the rest are predicted" if len(bad) < len(predictions) else ""
    return complain(DataError(f"{len(bad)} of {plural(len(predictions), 'picture')} cannot be read{rest}"))


def _write_csv(path: Path, predictions: "list[Prediction]", classes: tuple[str, ...]) -> None:
    from lenext.record import Record

    Record(path.parent).write_csv(
        path.name,
        ("path", "label", "probability", "outlier", "abstained", "error", *classes),
        (
            (
                p.path,
                p.label,
                p.probability,
                p.outlier,
                p.abstained,
                p.error,
                *(p.probabilities or [None] * len(classes)),
            )
            for p in predictions
        ),
    )
