"""`lenext predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lenext.cli.console import Output, check_given, complain, print_json

if TYPE_CHECKING:
    from lenext.ship.predict import Prediction
    from lenext.ship.stream import Workers


def predict(
    bundle: Path,
    /,
    *paths: str,
    out: Annotated[Path | None, Parameter(name=("--out", "--csv"))] = None,
    abstain: float | None = None,
    engine: str = "auto",
    workers: int | None = None,
    ray: bool = False,
    output: Output = Output(),
) -> int:
    """Say what is on pictures: the class, and how sure the model is.

    Example: lenext predict best.lenext holiday.jpg "inbox/*.png" --out answers.csv

    Parameters
    ----------
    bundle
        A .lenext file.
    paths
        Pictures, folders of pictures, or patterns.
    out
        A .csv or .parquet file to write instead: path, label, probability, outlier, abstained, error, and a column per
        class. It may be of millions of pictures; what was stopped is continued by the same command.
    abstain
        The share of answers that shall be right, such as 0.99: what the model is not sure enough of gets none.
    engine
        What computes the scores: torch, torch_bf16, onnxruntime, openvino, openvino_bf16, openvino_mixed; or the
        fastest of those that agree with the bundle, which is measured once where there are a thousand pictures or more.
    workers
        Predict in so many processes, with --out.
    ray
        The workers are those of a Ray cluster: that at RAY_ADDRESS, else one on this machine.
    """
    from lenext.errors import UsageError
    from lenext.report.text import percent
    from lenext.ship.bundle import load
    from lenext.ship.engines import choose, with_engine

    check_given(paths)
    if out:
        return _write(out, bundle, paths, abstain, engine, _workers(workers, ray=ray), output)
    if workers is not None or ray:
        raise UsageError(f"{'--ray' if ray else '--workers'}: given without --out, accepted: with it")
    model = load(bundle)
    model = with_engine(model, choose(model, engine, measured=False))
    found: list[Prediction] = []  # those to print as one document
    total = bad = 0
    for p in model.predict(paths, abstain=abstain):
        total += 1
        bad += p.error is not None
        if output.json:
            found.append(p)
        elif not p.error:
            print(p.path, p.label or "?", percent(p.probability), sep="\t")
        if p.error:
            print(f"{p.path}: {p.error}", file=sys.stderr)
    if output.json:
        print_json({"classes": model.classes, "predictions": found})
    return _complain_of(bad, total)


def _workers(number: int | None, *, ray: bool) -> "Workers | None":
    from lenext.ship.stream import processes

    if ray:
        from lenext.cluster import predictors

        return predictors(number)
    return None if number is None else processes(number)


def _write(
    out: Path,
    bundle: Path,
    paths: tuple[str, ...],
    abstain: float | None,
    engine: str,
    workers: "Workers | None",
    output: Output,
) -> int:
    from lenext.cli.progress import Shown
    from lenext.report.text import plural
    from lenext.ship.stream import write_predictions

    with Shown() as observer:
        written = write_predictions(
            out, bundle, paths, abstain=abstain, engine=engine, workers=workers, progress=observer.predicting
        )
    if output.json:
        print_json(written)
    else:
        left = f", {written.abstained:,} of them left open" if written.abstained else ""
        print(f"answers  {out}, {plural(written.pictures, 'picture')}{left}")
    return _complain_of(written.unreadable, written.pictures, f"; {out} says why")


def _complain_of(bad: int, total: int, where: str = "") -> int:
    from lenext.errors import DataError
    from lenext.report.text import plural

    if not bad:
        return 0
    rest = "; the rest are predicted" if bad < total else ""
    return complain(DataError(f"{bad:,} of {plural(total, 'picture')} cannot be read{rest}{where}"))
