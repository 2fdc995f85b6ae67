"""The judge: scores and labels in, plain numbers out. Knows nothing of models, images or files."""

from lenext.evaluate.calibration import fit_temperature
from lenext.evaluate.metrics import evaluate, predictions, worst
from lenext.evaluate.statistics import mcnemar, wilson

__all__ = ["evaluate", "fit_temperature", "mcnemar", "predictions", "wilson", "worst"]
