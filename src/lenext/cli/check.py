"""`lenext check`."""

from pathlib import Path
from typing import TYPE_CHECKING

from lenext.cli.console import Output, complain, console, print_json, table

if TYPE_CHECKING:
    from lenext.data import CheckReport
    from lenext.doubts import Doubts

EXAMPLES = 3  # of each oddity, of the groups of duplicates; --json has them all
MOST_CLASSES = 40  # in the table
SUSPECTS = 10  # in the table; the page has their pictures


def check(data: str, /, *, labels: Path | None = None, max_bad: float = 0.1, output: Output = Output()) -> int:
    """Look at the images before anything else: what cannot be used, what is odd, what would leak.

    Example: lenext check pictures/

    Parameters
    ----------
    data
        A name (digits, fashion-mnist), a folder of class folders, a CSV or Parquet manifest, a pack, or
        tar shards.
    labels
        The folder of a finished run: find labels that are likely wrong, by models trained in the same way without the
        images that they judge.
    max_bad
        Share of files that cannot be used beyond which the exit code is 3.
    """
    from lenext.cli.progress import Shown
    from lenext.data import check as look
    from lenext.errors import DataError

    doubts = None
    with Shown() as observer:
        if labels is None:
            report = look(data, progress=observer.reading)
        else:
            from lenext.doubts import check_labels, finished_run

            finished_run(labels)  # or none: before the images are read
            report = look(data, progress=observer.reading)
            doubts = check_labels(data, labels, observer=observer)
    if output.json:
        print_json(report.to_dict() | ({"labels": {"root": doubts.root, **doubts.summary}} if doubts else {}))
    else:
        _print(report)
        if doubts is not None:
            _print_doubts(doubts)
    bad = len(report.problems)
    if bad > max_bad * (bad + report.images):
        return complain(
            DataError(f"{bad} of {bad + report.images} files cannot be used; accepted: a share of {max_bad:g}")
        )
    return 0


def _print(report: "CheckReport") -> None:
    from lenext.report.text import count, plural

    shown = console()
    classes = table("class", "images", right=("images",))
    for name, images in list(report.classes.items())[:MOST_CLASSES]:
        classes.add_row(name, count(images))
    shown.print(classes)
    if len(report.classes) > MOST_CLASSES:
        shown.print(f"and {len(report.classes) - MOST_CLASSES} more classes\n")
    lines = [
        f"{report.name}: {plural(report.images, 'usable image')} in {plural(len(report.classes), 'class', 'classes')}"
    ]
    if report.splits:
        lines.append("splits: " + ", ".join(f"{name} {count(images)}" for name, images in report.splits.items()))
    if report.sizes:
        lines += [
            f"{side}: {spread['min']:g} px"
            if spread["min"] == spread["max"]
            else f"{side}: {spread['min']:g} to {spread['max']:g} px, median {spread['median']:g}"
            for side, spread in report.sizes.items()
        ]
    lines += [f"cannot be used: {problem.path}: {problem.kind}: {problem.detail}" for problem in report.problems]
    for kind in sorted({oddity.kind for oddity in report.oddities}):
        paths = [oddity.path for oddity in report.oddities if oddity.kind == kind]
        lines.append(f"{kind}: {plural(len(paths), 'image')}, {_some(paths)}")
    if report.duplicates:
        groups = [" = ".join(paths) for paths in report.duplicates]
        lines.append(f"the same file more than once: {plural(len(groups), 'group')}, {_some(groups)}")
    if report.near_duplicates:
        pairs = [" ~ ".join(pair.paths) for pair in report.near_duplicates]
        lines.append(f"look the same: {plural(len(pairs), 'pair')}, {_some(pairs)}")
    if report.leaks:
        lines.append(f"leaks: {plural(report.leaks, 'image')} to judge on whose equal is among those to learn from")
    lines += [f"note: {warning}" for warning in report.warnings]
    shown.print("\n".join(lines), soft_wrap=True)


def _print_doubts(doubts: "Doubts") -> None:
    from lenext.report.text import percent, plural

    shown, found = console(), doubts.summary
    rows = table("likely wrong", "label", "looks like", "probability", right=("probability",))
    for row in found["listed"][:SUSPECTS]:
        rows.add_row(row["path"], row["label"], row["suggested"], percent(row["suggested_probability"]))
    if found["listed"]:
        shown.print(rows)
    shown.print(
        f"{plural(found['suspects'], 'label')} of {plural(found['images'], 'image')} likely wrong; estimated share of "
        f"wrong labels {percent(found['estimated_share'])}\nThe models that judge agree with "
        f"{percent(found['accuracy'])} of all labels: the less, the more of these doubts are their own mistakes\n\n"
        f"pictures  {doubts.report}\nall       {doubts.root / 'labels.csv'}",
        soft_wrap=True,
    )


def _some(items: list[str]) -> str:
    more = len(items) - EXAMPLES
    return "such as " + "; ".join(items[:EXAMPLES]) if more > 0 else "; ".join(items)
