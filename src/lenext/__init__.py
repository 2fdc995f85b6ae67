"""lenext: image classification from LeNet to ResNeXt, checked, compared and shipped.

import lenext

result = lenext.train("digits", model="lenet_relu", budget="1m")
model = lenext.load(result.bundle)
for prediction in model.predict("pictures/"):
    print(prediction.path, prediction.label, prediction.probability)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenext.comparison import compare
    from lenext.data.check import check
    from lenext.data.pack import pack
    from lenext.doubts import check_labels
    from lenext.ladder import add_rung, cost
    from lenext.models import build
    from lenext.run import resume, train
    from lenext.ship.bundle import load
    from lenext.ship.explain import explain
    from lenext.ship.pretrained import pretrained

__all__ = [
    "add_rung",
    "build",
    "check",
    "check_labels",
    "compare",
    "cost",
    "explain",
    "load",
    "pack",
    "pretrained",
    "resume",
    "train",
]

_HOMES = {
    "add_rung": "lenext.ladder",
    "build": "lenext.models",
    "check": "lenext.data.check",
    "check_labels": "lenext.doubts",
    "compare": "lenext.comparison",
    "cost": "lenext.ladder",
    "explain": "lenext.ship.explain",
    "load": "lenext.ship.bundle",
    "pack": "lenext.data.pack",
    "pretrained": "lenext.ship.pretrained",
    "resume": "lenext.run",
    "train": "lenext.run",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: `import lenext` itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lenext' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
