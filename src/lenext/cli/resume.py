"""`lenext resume`."""

from pathlib import Path
from typing import TYPE_CHECKING

from lenext.cli.console import Output, console, print_json, print_paths

if TYPE_CHECKING:
    from lenext.run import Result


def resume(run: Path, /, *, output: Output = Output()) -> None:
    """Continue a run that was stopped, to the model it would have become without the stop; or a comparison.

    Example: lenext resume runs/lenet_relu-digits

    Parameters
    ----------
    run
        The folder of the run or of the comparison.
    """
    from lenext.cli.progress import Shown
    from lenext.run import resume as start

    if (run / "compare.yaml").is_file():
        from lenext import comparison
        from lenext.cli.compare import print_comparison

        with Shown() as observer:
            compared = comparison.resume(run, observer=observer)
        print_comparison(compared, as_json=output.json)
        return
    with Shown() as observer:
        result = start(run, observer=observer)
    print_result(result, as_json=output.json)


def print_result(result: "Result", *, as_json: bool) -> None:
    from lenext.report.text import percent

    if as_json:
        paths = {"run": result.root, "bundle": result.bundle, "report": result.report}
        print_json(result.summary | paths)
        return
    low, high = result.accuracy_interval
    text = f"{result.model}: {percent(result.accuracy)} right (95 % interval {percent(low)} to {percent(high)})"
    console().print(text)
    print_paths(result.report, result.bundle)
