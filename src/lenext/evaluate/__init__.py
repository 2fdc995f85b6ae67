"""The judge: scores and labels in, plain numbers out. Knows nothing of models, images or files."""

from lenext.evaluate.calibration import fit_temperature
from lenext.evaluate.metrics import evaluate, predictions, worst
from lenext.evaluate.statistics import Difference, accuracy_interval, holm, mcnemar, paired, wilson

__all__ = [
    "Difference",
    "accuracy_interval",
    "evaluate",
    "fit_temperature",
    "holm",
    "mcnemar",
    "paired",
    "predictions",
    "wilson",
    "worst",
]
