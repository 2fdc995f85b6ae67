"""Writes docs/lecture.md anew: the text of page.md.j2 with what the claims' full runs found.

    lenext lecture --all --out docs/lecture      # hours; makes finding.json and figures for each claim
    python docs/lecture/page.py

Results lie beside this file, a folder per claim.
"""

import sys
from pathlib import Path
from typing import Any

import jinja2

from lenext.lecture import Status, status
from lenext.lecture.figures import said_of
from lenext.report import text

HERE = Path(__file__).parent
PAGE = HERE.parent / "lecture.md"


def page() -> str:
    """The text of docs/lecture.md."""
    surroundings = jinja2.Environment(  # noqa: S701 - Markdown, whose reader escapes it
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return surroundings.get_template("page.md.j2").render(claim=claim, verdict=verdict).rstrip() + "\n"


def claim(key: str) -> str:
    """What became of a claim: the slides' words, the experiment, the rule, what was found, and how to repeat it."""
    known = status(key, out=HERE)
    one, found = known.claim, known.finding
    asked = [f"> **{key}**, the slides: {one.slide}", f"*Experiment.* {one.experiment}", f"*Rule.* {one.rule}"]
    if found is None:
        return "\n\n".join([*asked, f"The full run, `lenext lecture {key}`, has not been made yet."])
    if (found["experiment"], found["rule"]) != (one.experiment, one.rule):
        raise SystemExit(f"{known.folder}: was tried by another experiment or rule than {key} has now; try it again")
    figures = [
        f"![{key}: {row['caption']}](lecture/{key}/{row['file']})\n*{row['caption']}*" for row in found["figures"]
    ]
    tables = [_table(row) for row in found["tables"]]
    measures = "\n".join(f"- {_capital(measure['name'])}: {said_of(measure)}" for measure in found["measures"])
    answer = f"**{_capital(found['verdict'])}.** {found['words']}"
    return "\n\n".join([*asked, *figures, *tables, measures, answer, _how(known)])


def verdict(key: str) -> str:
    """One word, for the overview."""
    return status(key, out=HERE).verdict or "not tried yet"


def _table(table: dict[str, Any]) -> str:
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    return f"*{table['title']}*\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _how(known: Status) -> str:
    assert known.finding is not None
    found, made = known.finding, known.finding["environment"]
    machine = made["machine"]
    where = f"{text.plural(machine['cores'], 'core')} of {machine['processor']}"
    file = f"[finding.json](lecture/{found['claim']}/finding.json)"
    when = f"{text.moment(made['date'])}, {text.seconds(found['seconds'])}"
    return f"<sub>`{found['command']}`, {when} on {where}; {file}</sub>"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
