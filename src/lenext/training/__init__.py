"""The training engine: recipes, the loop, and what makes a run end in time and continue after a stop."""

from lenext.training.fit import fit
from lenext.training.loop import Progress
from lenext.training.recipes import RECIPES

__all__ = ["RECIPES", "Progress", "fit"]
