"""What the verbs print, and the options that they share."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from lenext.errors import Interrupted, LenextError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WORKER = int(os.environ.get("RANK", "0"))  # of several that torchrun started; all but the first keep silent
STARTED = time.perf_counter()  # a budget counts from here, before what is slow to import


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """Options of every verb."""

    json: bool = False
    "Print one JSON document and nothing else."
    debug: bool = False
    "Show the traceback of an error."


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """The rarer settings of a run, from a file and one by one."""

    config: Path | None = None
    "YAML file with sections such as data, recipe, svm."
    set: tuple[str, ...] = ()
    "One setting, as recipe.lr=0.1; may be given again."

    def read(self) -> dict[str, Any]:
        """The settings of the file, overlaid with those given one by one."""
        from lenext.spec import merge, parse_sets, read_yaml

        return merge(read_yaml(self.config) if self.config else {}, parse_sets(self.set))


def check_given(pictures: Sequence[str]) -> None:
    """Raises UsageError where a verb is given no pictures, before anything is loaded for them."""
    if not pictures:
        raise UsageError("no pictures given; accepted: files, folders, or patterns such as 'in/*.jpg'")


def print_json(document: Any) -> None:
    """Prints `document` on stdout; dataclasses become mappings, paths text."""
    if WORKER == 0:
        print(json.dumps(document, default=_plain, indent=2, ensure_ascii=False))


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    # Names of files and classes are printed as they are: neither [brackets] nor :colons: mean anything in them
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, quiet=WORKER > 0)


def complain(error: LenextError) -> int:
    """One line on stderr; the exit code. Being stopped is told by the first worker, what went wrong by each."""
    if WORKER == 0 or not isinstance(error, Interrupted):
        print(f"lenext: {f'worker {WORKER}: ' if WORKER else ''}{error}", file=sys.stderr)
    return error.exit_code


def table(*columns: str, right: tuple[str, ...] = ()) -> "Table":
    """A plain table; the columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_paths(report: Path, bundle: Path | None) -> None:
    """Where the results are, and the next command to type, where there is a bundle."""
    from lenext.run import next_command

    if WORKER == 0:
        print(f"\nreport  {report}" + (f"\nbundle  {bundle}\nnext    {next_command(bundle)}" if bundle else ""))


def left_out(plan: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every reason for which rungs are not compared; `plan` as in comparison.json."""
    names: dict[str, list[str]] = {}
    for row in plan:
        if not row["included"]:
            names.setdefault(row["reason"], []).append(row["model"])
    return [f"{', '.join(models)} left out: {reason}" for reason, models in names.items()]


def is_terminal() -> bool:
    return sys.stderr.isatty()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
