"""The tuned numbers: how each network is trained unless the user says otherwise."""

from lenext.spec import Augment, Recipe

_SHIFT = Augment(shift=1)  # no flip: a mirrored digit or letter is another one

RECIPES: dict[str, Recipe] = {
    "softmax": Recipe(lr=0.02, epochs=20, weight_decay=1e-4, clip_norm=1.0, ema=0.1),
    # Sigmoids pass on small gradients of very different sizes; AdamW evens them out where SGD sits on a plateau
    "lenet": Recipe(optimizer="adamw", lr=0.01, epochs=30, weight_decay=0.0, ema=0.05, augment=_SHIFT),
    # Unclipped, the first steps on few or large images can push ReLUs below zero for good
    "lenet_relu": Recipe(lr=0.05, epochs=30, clip_norm=1.0, ema=0.05, augment=_SHIFT),
}
