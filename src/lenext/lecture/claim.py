"""A claim of the lecture, and what comes out when it is put to the test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from altair import TopLevelMixin

    from lenext.lecture.lab import Lab

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Measure:
    """A figure that the verdict hangs on, with its 95 % interval; counted ones have none."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""  # "": a number; "points": a difference of two shares of 1; "share"


@dataclass(frozen=True)
class Table:
    """Rows as a reader sees them."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """What came out: the verdict by the claim's rule, in a sentence or two, and what it rests on."""

    verdict: Verdict
    words: str
    measures: Sequence[Measure]
    tables: Sequence[Table] = ()
    figures: Mapping[str, "TopLevelMixin"] = field(default_factory=dict)  # by their captions

    def document(self) -> dict[str, Any]:
        """As in finding.json; the figures are pictures beside it."""
        return {
            "verdict": self.verdict,
            "words": self.words,
            "measures": [vars(measure) for measure in self.measures],
            "tables": [vars(table) for table in self.tables],
        }


@dataclass(frozen=True)
class Claim:
    """What the slides say, the experiment, the rule by which it is judged, written before it was tried, and the trial.

    `experiment` says what is trained on what, and what is held equal; `rule` when the claim holds and when it fails.
    """

    key: str  # C9
    slide: str  # the claim, as the slides have it
    experiment: str
    rule: str
    study: Callable[["Lab"], Finding]
    minutes: float = 0.0  # that the full form takes on two cores; 0: seconds
