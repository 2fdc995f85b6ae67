"""`lenext eval`."""

from pathlib import Path
from typing import Any, Literal

from lenext.cli.console import Output, console, print_json, table


def evaluate(
    bundle: Path,
    data: str = "",
    /,
    *,
    split: Literal["train", "val", "test", "all"] | None = None,
    goldens: bool = False,
    output: Output = Output(),
) -> None:
    """Judge a bundle on labelled images: accuracy with its interval, per class, calibration.

    Example: lenext eval runs/lenet_relu-digits/best.lenext digits

    Parameters
    ----------
    bundle
        A .lenext file.
    data
        A name, a folder of class folders, or a manifest; classes are matched by name.
    split
        The part to judge on; otherwise test where there is one, else all.
    goldens
        First check that the bundle predicts its golden images as when it was made.
    """
    from lenext.errors import UsageError
    from lenext.ship.bundle import load

    if not data and not goldens:
        raise UsageError("nothing to judge on; accepted: DATA, --goldens, or both")
    model = load(bundle)
    document: dict[str, Any] = {"bundle": str(bundle), "model": model.metadata["model"]["name"]}
    if goldens:
        document["goldens_verified"] = model.verify()
    if data:
        document |= {"data": data, **model.evaluate(data, split=split)}
    if output.json:
        print_json(document)
    else:
        _print(document)


def _print(document: dict[str, Any]) -> None:
    from lenext.report.text import percent

    shown = console()
    if "goldens_verified" in document:
        shown.print(f"{document['goldens_verified']} golden images predicted as when the bundle was made")
    if "accuracy" not in document:
        return
    rows = table("class", "precision", "recall", "F1", "images", right=("precision", "recall", "F1", "images"))
    for row in document["classes"]:
        rows.add_row(
            row["class"], percent(row["precision"]), percent(row["recall"]), percent(row["f1"]),
            f"{row['support']:,}",
        )  # fmt: skip
    shown.print(rows)
    low, high = document["accuracy_interval"]
    shown.print(
        f"{document['model']} on {document['images']:,} images ({document['split']}): "
        f"{percent(document['accuracy'])} right (95 % interval {percent(low)} to {percent(high)})\n"
        f"balanced accuracy {percent(document['balanced_accuracy'])}, macro F1 {percent(document['macro_f1'])}\n"
        f"log-loss {document['log_loss']:.3f}, calibration error {percent(document['calibration_error'])}"
        + ("\nnote: the model was trained on these images; this flatters it" if document["seen_in_training"] else "")
    )
