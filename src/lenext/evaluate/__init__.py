"""The judge: scores and labels in, plain numbers out. Knows nothing of models, images or files."""

from lenext.evaluate.calibration import fit_temperature
from lenext.evaluate.label_errors import LabelErrors, label_errors
from lenext.evaluate.metrics import evaluate, predictions, worst
from lenext.evaluate.outliers import NEIGHBOURS, distances, own_distances, share_below
from lenext.evaluate.selective import least_confidence
from lenext.evaluate.statistics import Difference, accuracy_interval, holm, mcnemar, paired, wilson

__all__ = [
    "NEIGHBOURS",
    "Difference",
    "LabelErrors",
    "accuracy_interval",
    "distances",
    "evaluate",
    "fit_temperature",
    "holm",
    "label_errors",
    "least_confidence",
    "mcnemar",
    "own_distances",
    "paired",
    "predictions",
    "share_below",
    "wilson",
    "worst",
]
