"""Where the names of points go: beside them, and over neither one another nor points and lines.

Reckoned in pixels for a plot as narrow as a telephone's and at once for a wide one, since a chart of the page is as
wide as its box: names that keep clear of one another in the narrow one may meet in the other.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTHS = (270, 880)  # pixels
LETTER, LINE_HEIGHT = 6.6, 14  # of a name in 12 px type
DOT = 6  # a point's radius
SWEEPS = 4
PIECE = 0.02  # the longest stretch of a line that is reckoned as one box, as a share of the plot

_OUTSIDE = 60.0  # what a pixel beyond the plot's edge counts, in px² of covered names
_LINE = 0.15  # what a px² of a line counts, two pixels wide: a name is readable over it
_MEET = 100.0  # what it counts that two names meet, however little
_FAR = 0.8  # what a pixel of distance counts
_LEADER = 20  # pixels between a point and the line of its name from which on they are joined

Point = tuple[float, float]  # in shares of the plot's width and height, from the left and from the top
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """A name's anchor, `dx` to the right of its point and `dy` below it (pixels), and which end of it lies there."""

    align: str
    dx: float
    dy: float

    @property
    def far(self) -> bool:
        """Whether a line has to say whose name it is."""
        return abs(self.dy) > _LEADER


_PLACES = (
    *(Place(align, sign * 11, 0) for align, sign in (("left", 1), ("right", -1))),
    *(Place(align, sign * 9, dy) for dy in (-14, 14) for align, sign in (("left", 1), ("right", -1))),
    *(Place("center", 0, dy) for dy in (-17, 17)),
    *(
        Place(align, sign * dx, side * dy)
        for dy in range(21, 106, 7)
        for dx in (9, 30, 55)
        for side in (-1, 1)
        for align, sign in (("left", 1), ("right", -1))
    ),
)
_SHIFT = {"left": 0.0, "center": 0.5, "right": 1.0}


def place(
    names: Sequence[str], points: Sequence[Point], height: float, lines: Sequence[Sequence[Point]] = ()
) -> list[Place]:
    """The place of the name of each of `points` in a plot `height` pixels high, through which `lines` run.

    One name after the other takes the place where it hides the least, and again with all others in theirs.
    """
    lengths = LETTER * np.array([len(name) for name in names])[:, None]
    shift = np.array([_SHIFT[place.align] for place in _PLACES])
    dx, dy = (np.array([getattr(place, key) for place in _PLACES], float) for key in ("dx", "dy"))
    cost = np.zeros((len(points), len(_PLACES))) + _FAR * (np.abs(dy) + np.maximum(0, np.abs(dx) - 11))
    pieces = _pieces(lines)
    plots = []
    for width in WIDTHS:
        at = np.array(points) * [width, height]
        left, top = at[:, :1] + dx - shift * lengths, at[:, 1:] + dy - LINE_HEIGHT / 2
        boxes = np.stack([left, top, left + lengths, top + LINE_HEIGHT], axis=2)
        dots = np.hstack([at - DOT, at + DOT])
        thin = pieces * [width, height, width, height] + [-1, -1, 1, 1]
        cost += _OUTSIDE * (np.maximum(0, -boxes[:, :, :2]) + np.maximum(0, boxes[:, :, 2:] - [width, height])).sum(2)
        cost += _overlap(boxes, dots).sum(2) + _LINE * _overlap(boxes, thin).sum(2)
        plots.append(boxes)
    taken: dict[int, int] = {}
    for index in list(range(len(points))) * SWEEPS:
        others = [(other, number) for other, number in taken.items() if other != index]
        met = cost[index].copy()
        for boxes in plots if others else ():
            shared = _overlap(boxes[index], np.array([boxes[at] for at in others]))
            met += (shared + _MEET * (shared > 0)).sum(1)
        taken[index] = int(met.argmin())
    return [_PLACES[taken[index]] for index in range(len(points))]


def _pieces(lines: Sequence[Sequence[Point]]) -> _Array:
    """Boxes [M, 4] along `lines`, none of them longer than PIECE."""
    found = [np.empty((0, 4))]
    for start, end in (ends for line in lines for ends in itertools.pairwise(line)):
        number = 1 + int(max(abs(start[0] - end[0]), abs(start[1] - end[1])) / PIECE)
        steps = np.linspace(start, end, number + 1)
        found.append(np.hstack([np.minimum(steps[:-1], steps[1:]), np.maximum(steps[:-1], steps[1:])]))
    return np.concatenate(found)


def _overlap(boxes: _Array, others: _Array) -> _Array:
    """The areas that `boxes` [..., 4] (left, top, right, bottom) share with `others` [M, 4]: [..., M]."""
    some = boxes[..., None, :]
    sides = np.minimum(some[..., 2:], others[:, 2:]) - np.maximum(some[..., :2], others[:, :2])
    area: _Array = np.maximum(0, sides).prod(axis=-1)
    return area
