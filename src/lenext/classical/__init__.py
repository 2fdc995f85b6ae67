"""Image classification before convolutional networks: features of an image, and a machine on them."""

from lenext.classical.arithmetic import Step, steps
from lenext.classical.gallery import Words
from lenext.classical.pipeline import Classical, Fitted, fit
from lenext.classical.recipes import RUNGS, check
from lenext.classical.rung import Rung

__all__ = ["RUNGS", "Classical", "Fitted", "Rung", "Step", "Words", "check", "fit", "steps"]
