"""`lenext report`."""

from pathlib import Path

from lenext.cli.console import Output, print_json


def report(run: Path, /, *, output: Output = Output()) -> None:
    """Write the HTML page and the pictures of a run or a comparison again.

    Example: lenext report runs/compare-digits

    Parameters
    ----------
    run
        The folder of the run or of the comparison.
    """
    from lenext.report import report as write

    path = write(run)
    if output.json:
        print_json({"report": path})
    else:
        print(path)
