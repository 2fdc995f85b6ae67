"""`lenext lecture`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lenext.cli.console import Output, console, print_json, table
from lenext.errors import UsageError

if TYPE_CHECKING:
    from lenext.lecture import Status


def lecture(
    claim: str | None = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all")] = False,
    quick: bool = False,
    out: Path | None = None,
    output: Output = Output(),
) -> None:
    """Put what the lecture's slides claim to the test; without a claim, list them all.

    Example: lenext lecture C12 --quick

    Parameters
    ----------
    claim
        C0 to C18.
    every
        Every claim, one after the other. What has finished is not tried again, what was stopped goes on.
    quick
        A reduced form of each, of a minute at most, with three seeds instead of five.
    out
        Folder of the results; otherwise runs/lecture, or runs/lecture-quick.
    """
    from lenext.cli.progress import Shown
    from lenext.lecture import CLAIMS, put_to_the_test, status

    if claim and every:
        raise UsageError(f"given both {claim} and --all, accepted: one of them")
    if not claim and not every:
        _list([status(key, quick=quick, out=out) for key in CLAIMS], quick=quick, as_json=output.json)
        return
    tried = []
    for key in CLAIMS if every else [str(claim)]:
        with Shown() as observer:
            tried.append(put_to_the_test(key, quick=quick, out=out, observer=observer))
        if not output.json:
            _show(tried[-1])
    if output.json:
        print_json({"claims": [_document(one) for one in tried]} if every else _document(tried[0]))


def _document(status: "Status") -> dict[str, object]:
    claim = status.claim
    known = {"claim": claim.key, "slide": claim.slide, "experiment": claim.experiment, "rule": claim.rule}
    return {**known, "verdict": None, **(status.finding or {}), "folder": status.folder}


def _list(statuses: "list[Status]", *, quick: bool, as_json: bool) -> None:
    from lenext.report.text import seconds

    if as_json:
        print_json({"claims": [_document(one) for one in statuses]})
        return
    rows = table("", "the slides say", "time", "verdict", right=("time",))
    rows.padding, rows.show_edge = (0, 2, 0, 0), False
    for one in statuses:
        took = one.finding["seconds"] if one.finding else 60 * one.claim.minutes if not quick else None
        time = seconds(took) if took else "up to 1 min" if one.claim.minutes else "seconds"
        rows.add_row(one.claim.key, one.claim.slide, time, one.verdict or "")
    shown = console()
    shown.print(rows)
    shown.print("`lenext lecture C12` tries one, --all all; --quick in a minute at most each")


def _show(status: "Status") -> None:
    from lenext.lecture.figures import said_of

    claim, finding, shown = status.claim, status.finding, console()
    assert finding is not None
    shown.print(f"\n{claim.key}  {claim.slide}\n")
    for label, words in (("tried", finding["experiment"]), ("rule", finding["rule"])):
        shown.print(f"{label:8}{words}")
    for one in finding["tables"]:
        rows = table(*one["columns"])
        rows.title, rows.title_justify, rows.title_style = one["title"], "left", "italic"
        for row in one["rows"]:
            rows.add_row(*row)
        shown.print(rows)
    for measure in finding["measures"]:
        shown.print(f"{measure['name']}: {said_of(measure)}")
    shown.print(f"\n{finding['verdict']}: {finding['words']}")
    for figure in finding["figures"]:
        shown.print(f"figure  {status.folder / figure['file']}")
    shown.print(f"all     {status.folder / 'finding.json'}")
