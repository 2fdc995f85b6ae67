"""The tuned numbers: how each network is trained unless the user says otherwise."""

from dataclasses import replace
from typing import Any

from lenext.models import layers_of, variant
from lenext.spec import Augment, Model, Recipe

_SHIFT = Augment(shift=1)  # no flip: a mirrored digit or letter is another one

RECIPES: dict[str, Recipe] = {
    "softmax": Recipe(lr=0.02, epochs=20, weight_decay=1e-4, clip_norm=1.0, ema=0.1),
    # Sigmoids pass on small gradients of very different sizes; AdamW evens them out where SGD sits on a plateau
    "lenet": Recipe(optimizer="adamw", lr=0.01, epochs=30, weight_decay=0.0, ema=0.05, augment=_SHIFT),
    # Unclipped, the first steps on few or large images can push ReLUs below zero for good
    "lenet_relu": Recipe(lr=0.05, epochs=30, clip_norm=1.0, ema=0.05, augment=_SHIFT),
    # Found with the network, see benchmarks/resnet9_search.py; with lr=0.1 it was 0.4 points worse
    "resnet9": Recipe(lr=0.2, batch_size=256, epochs=20, warmup=0.25, label_smoothing=0.1, ema=0.05),
    # By Muon 15 epochs come as far as 36 by SGD
    "resnet9_late": Recipe(
        optimizer="muon", lr=0.2, batch_size=256, epochs=20, warmup=0.25, label_smoothing=0.1, ema=0.05
    ),
}

_DEEP = Recipe(lr=0.1, batch_size=64, epochs=20, label_smoothing=0.05, ema=0.05, augment=_SHIFT)


def recipe_for(model: Model) -> Recipe:
    """The recipe of a rung of the ladder."""
    if model.name in RECIPES:
        return RECIPES[model.name]
    if layers_of(model).norm == "none":
        return replace(_DEEP, lr=0.05, clip_norm=1.0)
    if variant(model.name).large_from is not None:
        return replace(_DEEP, clip_norm=1.0)  # deep ones, and wide dense layers, can run away in their first steps
    return _DEEP


# Laid over a network's recipe where it begins with weights that others trained: the new head learns alone at first, so
# that its first, random answers spoil nothing; then all layers, in smaller steps than from scratch and the earlier ones
# in smaller steps still
FINE_TUNING: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.05,
    "momentum": 0.9,
    "epochs": 15.0,
    "clip_norm": 1.0,
    "freeze": 0.2,
    "earlier_lr": 0.1,
}
