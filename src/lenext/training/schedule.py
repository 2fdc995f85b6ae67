"""The learning rate over training.

Everything is a function of progress, the share of training that is done (0 to 1), not of steps: a run that is
stretched or cut to fit a time budget keeps the shape of its schedule.
"""

import math

from lenext.spec import Recipe


def lr_factor(recipe: Recipe, progress: float) -> float:
    """The learning rate at `progress` as a share of `recipe.lr`: rises over `recipe.warmup`, then falls.

    ``cosine`` falls along half a cosine (Loshchilov & Hutter 2017), ``one_cycle`` in a straight line
    (Smith & Topin 2018), both to zero; ``constant`` stays.
    """
    if progress < recipe.warmup:
        return 0.04 + 0.96 * progress / recipe.warmup
    rest = (progress - recipe.warmup) / max(1.0 - recipe.warmup, 1e-9)
    if recipe.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(rest, 1.0)))
    if recipe.schedule == "one_cycle":
        return max(1.0 - rest, 0.0)
    return 1.0
