"""The tuned numbers: how each network is trained unless the user says otherwise."""

from lenext.spec import Augment, Recipe

_SHIFT_FLIP = Augment(shift=2, flip=False)

RECIPES: dict[str, Recipe] = {
    "softmax": Recipe(lr=0.02, batch_size=128, epochs=20, weight_decay=1e-4, ema=0.1),
    "lenet": Recipe(lr=0.2, batch_size=128, epochs=40, weight_decay=0.0, ema=0.05, augment=_SHIFT_FLIP),
    "lenet_relu": Recipe(lr=0.05, batch_size=128, epochs=40, weight_decay=5e-4, ema=0.05, augment=_SHIFT_FLIP),
}
