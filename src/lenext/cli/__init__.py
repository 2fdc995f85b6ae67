"""The command line: `lenext VERB`. One file per verb; what the verb needs is imported when it runs."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError, UnusedCliTokensError

from lenext.cli import (
    bench,
    check,
    compare,
    cost,
    explain,
    export,
    lecture,
    models,
    pack,
    predict,
    report,
    resume,
    serve,
    train,
)
from lenext.cli import eval as judge
from lenext.cli.console import complain, print_json
from lenext.errors import DataError, Interrupted, LenextError, OutOfMemoryError, UsageError

VERBS: dict[str, Callable[..., Any]] = {
    "check": check.check,
    "pack": pack.pack,
    "train": train.train,
    "resume": resume.resume,
    "compare": compare.compare,
    "eval": judge.evaluate,
    "predict": predict.predict,
    "explain": explain.explain,
    "export": export.export,
    "serve": serve.serve,
    "report": report.report,
    "models": models.models,
    "cost": cost.cost,
    "lecture": lecture.lecture,
    "bench": bench.bench,
}


def _shown_default(value: Any) -> str | None:
    """The default in the help: what is off or empty needs no saying."""
    return str(value) if value else None


app = App(
    name="lenext",
    help="Image classification from LeNet to ResNeXt: checked, compared and shipped as one file.\n\n"
    "Example: lenext compare digits",
    version_flags=["--version"],
    default_parameter=Parameter(negative=(), show_default=_shown_default),
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for _place, (_name, _verb) in enumerate(VERBS.items()):
    app.command(_verb, name=_name, sort_key=_place)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the verb and exits: 0 fine, 1 internal, 2 usage, 3 data, 4 out of memory, 5 parity, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words:
            traceback.print_exc()
        ours = _as_ours(error)
        code = complain(ours)
        if "--json" in words:
            print_json({"error": str(ours), "exit_code": code})
    sys.exit(code)


def _as_ours(error: BaseException) -> LenextError:
    text = " ".join(str(error).split())
    match error:
        case LenextError():
            return error
        case CycloptsError():
            if isinstance(error, UnusedCliTokensError):
                text = f"one argument too many: {' '.join(error.unused_tokens or ())}."
            return UsageError(f"{text} `lenext --help` and `lenext VERB --help` show what is accepted")
        case KeyboardInterrupt():
            return Interrupted("interrupted")
        case _ if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
            return OutOfMemoryError("out of memory; try --set data.size=28 or --set recipe.batch_size=32")
        case OSError():
            return DataError(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else text)
    return LenextError(
        f"internal error, please report it: {type(error).__name__}: {text} (--debug shows the traceback)"
    )
