"""The course of the lecture: which claims there are, and what has become of them in a folder."""

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lenext.errors import UsageError
from lenext.lecture.claim import Claim
from lenext.lecture.lab import Lab
from lenext.record import RUNS, Record, environment, write_whole
from lenext.report import charts
from lenext.run import Observer
from lenext.training.budget import Clock


def _claims() -> dict[str, Claim]:
    """Those of the files beside this one that are named after a claim, in the lecture's order."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("c[0-9][0-9]_*.py"))
    found: list[Claim] = [importlib.import_module(f"lenext.lecture.{name}").CLAIM for name in names]
    return {claim.key: claim for claim in found}


CLAIMS = _claims()
FOLDERS = {True: RUNS / "lecture-quick", False: RUNS / "lecture"}  # of the quick form, and of the full one
FINDING = "finding.json"
SPENT = "spent.json"  # seconds of trials that were stopped


@dataclass(frozen=True)
class Status:
    """What has become of a claim."""

    claim: Claim
    folder: Path
    finding: dict[str, Any] | None  # as in finding.json; None: not yet put to the test

    @property
    def verdict(self) -> str | None:
        return None if self.finding is None else str(self.finding["verdict"])


def claim(key: str) -> Claim:
    """The claim C0 to C18, in capitals or not. Raises UsageError."""
    if (found := CLAIMS.get(key.upper())) is None:
        raise UsageError(f"claim: given {key}, accepted: {', '.join(CLAIMS)}")
    return found


def status(key: str, *, quick: bool = False, out: Path | None = None) -> Status:
    """What is known of the claim so far, in its folder below `out`. Raises UsageError for an unknown claim."""
    found = claim(key)
    folder = (out or FOLDERS[quick]) / found.key
    return Status(found, folder, Record(folder).read_json(FINDING))


def put_to_the_test(
    key: str, *, quick: bool = False, out: Path | None = None, observer: Observer | None = None
) -> Status:
    """Tries the claim, in its reduced form where `quick`, and writes finding.json and its figures as pictures.

    Where it was stopped it goes on; where it has finished it is not tried again. Raises the errors of `lenext.errors`;
    UsageError where the folder holds the other form.
    """
    before = status(key, quick=quick, out=out)
    if before.finding is not None:
        if before.finding["quick"] != quick:
            held, asked = (("quick" if form else "full") for form in (not quick, quick))
            raise UsageError(f"{before.folder}: holds the {held} form of {before.claim.key}, asked for is the {asked} "
                             "one; accepted: another --out")  # fmt: skip
        return before
    found, clock = before.claim, Clock()
    record = Record(before.folder)
    record.root.mkdir(parents=True, exist_ok=True)
    observer = observer or Observer()
    observer.stage(f"{found.key}: {found.slide}")
    clock.add((record.read_json(SPENT) or {"seconds": 0.0})["seconds"])
    try:
        finding = found.study(Lab(record.root, quick=quick, observer=observer))
    except BaseException:
        record.write_json(SPENT, {"seconds": clock.seconds()})
        raise
    pictures = []
    for place, (caption, chart) in enumerate(finding.figures.items(), 1):
        name = f"figure-{place}.png"
        write_whole(record.path(name), charts.png(chart))
        pictures.append({"file": name, "caption": caption})
    document = {
        "claim": found.key,
        "slide": found.slide,
        "experiment": found.experiment,
        "rule": found.rule,
        "quick": quick,
        **finding.document(),
        "figures": pictures,
        "command": f"lenext lecture {found.key}{' --quick' if quick else ''}",
        "seconds": round(clock.seconds(), 1),
        "environment": environment(),
    }
    record.write_json(FINDING, document)
    record.path(SPENT).unlink(missing_ok=True)
    return replace(before, finding=record.read_json(FINDING))
