"""A network with weights that others trained, as a bundle: it predicts at once, as they did and in their words."""

import os

import numpy as np
from torch import nn

from lenext.classifier import ConvNet
from lenext.data import Preprocess, encode_png
from lenext.models import build_model, check_weights, heads
from lenext.nn import without_auxiliary
from lenext.ship.bundle import Bundle
from lenext.spec import Data, Model, Run, from_dict


def pretrained(name: str, *, weights: str | os.PathLike[str] = "imagenet") -> Bundle:
    """The network `name` as others trained it: ``lenext.pretrained("resnet50").save("resnet50.lenext")``.

    `weights` is a file (.pth or .safetensors, of torchvision or timm) or the name of published weights, which are
    fetched if they are not on this machine; ``imagenet`` is the best there are. Classes that nobody has named are "0",
    "1", … Raises UsageError for an unknown network or name, DataError for weights that cannot be read, cannot be
    fetched or are of another network.
    """
    model = from_dict(Model, {"name": name, "weights": os.fspath(weights)}, "model")
    known = check_weights(model)
    settings = Preprocess(
        size=known.size, channels=3, fit="crop", resize=known.resize, interpolation=known.interpolation
    )
    network = build_model(model, channels=settings.channels, size=settings.size)
    output = heads(network)[0]
    assert isinstance(output, nn.Linear)
    classes = known.classes
    if classes is None or len(classes) != output.out_features:
        classes = tuple(map(str, range(output.out_features)))
    mean, std = (np.array(values, np.float32) for values in known.normalisation(settings.channels))
    return Bundle.create(
        ConvNet(without_auxiliary(network), classes, settings, mean=mean, std=std).eval(),
        Run(Data(known.name, size=settings.size, channels=settings.channels, fit="crop"), model),
        metrics={} if known.accuracy is None else {"accuracy": known.accuracy, "source": known.source},
        fingerprint="",  # of images that are not here
        golden_files=[_picture()],
    )


def _picture() -> bytes:
    """A file with all sorts of colours, to prove later that the copy of a bundle predicts as the bundle did."""
    y, x = np.mgrid[:240, :320]
    return encode_png(np.stack([x * 255 // 319, y * 255 // 239, (3 * x + 5 * y) % 256], axis=2).astype(np.uint8))
