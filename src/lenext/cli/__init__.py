"""The command line: `lenext VERB`. One file per verb; what the verb needs is imported when it runs."""

import sys
from collections.abc import Sequence

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from lenext.errors import DataError, Interrupted, LenextError, OutOfMemoryError, UsageError

app = App(
    name="lenext",
    help="Image classification from LeNet to ResNeXt: checked, compared and shipped as one file.",
    help_epilogue="Example: lenext compare digits",
    version_flags=["--version"],
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
)
app.command("lenext.cli.check:check", name="check", help="Look at the images before anything else.")
app.command("lenext.cli.train:train", name="train", help="Train one model, judge it and bundle it.")
app.command("lenext.cli.resume:resume", name="resume", help="Continue a run that was stopped.")
app.command("lenext.cli.compare:compare", name="compare", help="Train the ladder and see which rung is worth it.")
app.command("lenext.cli.eval:evaluate", name="eval", help="Judge a bundle on labelled images.")
app.command("lenext.cli.predict:predict", name="predict", help="Say what is on pictures.")
app.command("lenext.cli.report:report", name="report", help="Write a run's HTML page again.")
app.command("lenext.cli.models:models", name="models", help="List the ladder.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the verb and exits: 0 fine, 1 internal, 2 usage, 3 data, 4 out of memory, 5 parity, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words)
    except (LenextError, CycloptsError, KeyboardInterrupt, BrokenPipeError, MemoryError, OSError) as error:
        if "--debug" in words:
            raise
        sys.exit(_explain(_as_ours(error), as_json="--json" in words))
    except Exception as error:
        if "--debug" in words:
            raise
        internal = LenextError(
            f"internal error, please report it: {type(error).__name__}: {error} (--debug shows the traceback)"
        )
        sys.exit(_explain(internal, as_json="--json" in words))


def _as_ours(error: BaseException) -> LenextError:
    if isinstance(error, LenextError):
        return error
    if isinstance(error, CycloptsError):
        text = " ".join(str(error).split()) or type(error).__name__
        return UsageError(f"{text}; `lenext --help` and `lenext VERB --help` show what is accepted")
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted")
    if isinstance(error, MemoryError):
        return OutOfMemoryError("out of memory; try smaller images (--size) or --set recipe.batch_size=32")
    return DataError(" ".join(str(error).split()))


def _explain(error: LenextError, *, as_json: bool) -> int:
    """One line on stderr; with `as_json` the same as a JSON document on stdout. The exit code."""
    from lenext.cli.console import print_json

    print(f"lenext: {error}", file=sys.stderr)
    if as_json:
        print_json({"error": str(error), "exit_code": error.exit_code})
    return error.exit_code
