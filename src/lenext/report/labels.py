"""Where the names of points go: beside them, and over neither one another nor the points and their bars.

Reckoned in pixels for a plot as narrow as a telephone's and at once for a wide one, since a chart of the page is as
wide as its box: names that keep clear of one another in the narrow one may meet in the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTHS = (270, 880)  # pixels
LETTER, LINE = 6.6, 14  # of a name in 12 px type
DOT = 6  # a point's radius
SWEEPS = 4

_OUTSIDE = 20.0  # what a pixel beyond the plot's edge counts, in px² of covered names
_BAR = 0.4  # what a px² of a bar counts: a thin line is readable through
_FAR = 0.5  # what a pixel of distance counts
_LEADER = 20  # pixels between a point and the line of its name from which on they are joined

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A point with its bars, in shares of the plot's width and height, from the left and from the top."""

    name: str
    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float


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
        for dy in (28, 42, 56, 70)
        for dx in (9, 26)
        for side in (-1, 1)
        for align, sign in (("left", 1), ("right", -1))
    ),
)
_SHIFT = {"left": 0.0, "center": 0.5, "right": 1.0}


def place(points: Sequence[Point], height: float) -> list[Place]:
    """The place of each point's name in a plot `height` pixels high.

    One name after the other takes the place where it hides the least, and again with all others in theirs.
    """
    lengths = LETTER * np.array([len(point.name) for point in points])[:, None]
    shift = np.array([_SHIFT[place.align] for place in _PLACES])
    dx, dy = (np.array([getattr(place, key) for place in _PLACES], float) for key in ("dx", "dy"))
    cost = np.zeros((len(points), len(_PLACES))) + _FAR * (np.abs(dy) + np.maximum(0, np.abs(dx) - 11))
    plots = []
    for width in WIDTHS:
        x, y = (np.array([[getattr(point, key)] for point in points]) for key in ("x", "y"))
        left, top = x * width + dx - shift * lengths, y * height + dy - LINE / 2
        boxes = np.stack([left, top, left + lengths, top + LINE], axis=2)
        dots = np.hstack([x * width - DOT, y * height - DOT, x * width + DOT, y * height + DOT])
        cost += _OUTSIDE * (np.maximum(0, -boxes[:, :, :2]) + np.maximum(0, boxes[:, :, 2:] - [width, height])).sum(2)
        cost += _overlap(boxes, dots).sum(2) + _BAR * _overlap(boxes, _bars(points, width, height)).sum(2)
        plots.append(boxes)
    taken: dict[int, int] = {}
    for index in list(range(len(points))) * SWEEPS:
        others = [(other, number) for other, number in taken.items() if other != index]
        met = sum(
            (_overlap(boxes[index], np.array([boxes[at] for at in others])).sum(1) for boxes in plots if others),
            np.zeros(len(_PLACES)),
        )
        taken[index] = int((cost[index] + met).argmin())
    return [_PLACES[taken[index]] for index in range(len(points))]


def _bars(points: Sequence[Point], width: float, height: float) -> _Array:
    """The points' bars, upright and level, as boxes [2N, 4] two pixels wide; of no length where a point has none."""
    upright = [(p.x * width - 1, p.top * height, p.x * width + 1, p.bottom * height) for p in points]
    level = [(p.left * width, p.y * height - 1, p.right * width, p.y * height + 1) for p in points]
    return np.array(upright + level)


def _overlap(boxes: _Array, others: _Array) -> _Array:
    """The areas that `boxes` [..., 4] (left, top, right, bottom) share with `others` [M, 4]: [..., M]."""
    some = boxes[..., None, :]
    sides = np.minimum(some[..., 2:], others[:, 2:]) - np.maximum(some[..., :2], others[:, :2])
    area: _Array = np.maximum(0, sides).prod(axis=-1)
    return area
