"""Charts and the HTML page of a run or of a comparison. Reads records only; knows no model and no data set."""

from pathlib import Path


def report(root: Path) -> Path:
    """Writes ``report.html`` and its PNG charts into the folder `root`, and returns the page's path.

    The page is one file that opens offline. Beside it a run gets ``results.png`` and ``confusion_matrix.png``, a
    comparison ``comparison.png``, each where there is something to draw, and a finished run its ``MODEL_CARD.md``. An
    interrupted run gives a page of what it has. Raises UsageError where `root` is neither a run nor a comparison, or
    where nothing has been measured yet.
    """
    from lenext.report.page import write  # altair takes a second to import; lenext.report.text must not wait for it

    return write(root)


__all__ = ["report"]
