"""The training engine: recipes, the loop, and what makes a run end in time and continue after a stop."""

from lenext.training.fit import fit
from lenext.training.loop import Progress
from lenext.training.recipes import recipe_for

__all__ = ["Progress", "fit", "recipe_for"]
