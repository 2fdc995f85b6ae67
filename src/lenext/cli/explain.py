"""`lenext explain`."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lenext.cli.console import Output, check_given, complain, print_json


def explain(
    bundle: Path,
    /,
    *paths: str,
    label: Annotated[str | None, Parameter(name="--class")] = None,
    out: Path = Path("explained"),
    output: Output = Output(),
) -> int:
    """Show where on pictures the model sees its class: a picture for each, with what counts in colour.

    Example: lenext explain best.lenext holiday.jpg "inbox/*.png" --out explained

    Parameters
    ----------
    bundle
        A .lenext file.
    paths
        Pictures, folders of pictures, or patterns.
    label
        What speaks for this class, instead of the likeliest.
    out
        The folder to write to; nothing in it is overwritten.
    """
    from lenext.data import encode_png
    from lenext.errors import DataError
    from lenext.record import write_whole
    from lenext.report.text import percent, plural
    from lenext.ship.bundle import load
    from lenext.ship.explain import explain_files

    check_given(paths)
    model = load(bundle)
    rows: list[dict[str, Any]] = []
    for p, found in explain_files(model, paths, label):
        row = {"path": p.path, "label": p.label, "probability": p.probability, "error": p.error}
        rows.append(row)
        if found is None or p.probabilities is None:
            print(f"{p.path}: {p.error}", file=sys.stderr)
            continue
        out.mkdir(parents=True, exist_ok=True)
        overlay = write_whole(_free(out, Path(p.path).stem), encode_png(found.overlay))
        explained = p.probabilities[model.classes.index(found.label)]
        row |= {"class": found.label, "class_probability": explained, "method": found.method, "overlay": str(overlay)}
        if not output.json:
            print(p.path, found.label, percent(explained), overlay, sep="\t")
    if output.json:
        print_json({"classes": model.classes, "explanations": rows})
    bad = sum(row["error"] is not None for row in rows)
    if not bad:
        return 0
    rest = "; the rest are explained" if bad < len(rows) else ""
    return complain(DataError(f"{bad} of {plural(len(rows), 'picture')} cannot be read{rest}"))


def _free(folder: Path, stem: str) -> Path:
    """The first of ``<stem>.png``, ``<stem>-2.png``, … that is not in the folder."""
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    return path
