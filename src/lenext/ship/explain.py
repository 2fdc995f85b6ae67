"""Where a classifier looked: which places of an image speak for a class.

Of a network it is Grad-CAM, of a classical rung with a linear machine what each pixel, block or patch voted for; of any
other classifier (a kernel machine, an engine that gives scores and no more) what its score loses where it is covered.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lenext.classical import Classical
from lenext.classifier import Classifier, ConvNet, seen
from lenext.data import preprocess, read_file
from lenext.data.storage import show
from lenext.errors import DataError, UsageError
from lenext.models import members
from lenext.nn import threads_for
from lenext.ship.predict import Prediction, pictures
from lenext.spec import suggestion

if TYPE_CHECKING:
    from lenext.ship.bundle import Bundle

Method = Literal["Grad-CAM", "gradient × pixels", "votes", "occlusion"]

LEAST_SIDE = 3  # of a map that tells where something is: one of 2 × 2 has no middle
SQUARES = 7  # a side of the image, that are covered one after the other, and again half a square on
SHOWN = 224  # pixels a side of an overlay, at least

# From what speaks a little for the class to what speaks most: red, green and blue
_COLOURS = ((106, 0, 168), (225, 22, 70), (255, 140, 0), (255, 236, 60))
_VEIL = 0.85  # of the colour, where the heat is 1
_MAX_POOLING = {torch.max_pool2d, F.max_pool2d}
_POOLING = {*_MAX_POOLING, F.avg_pool2d, F.lp_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d}
_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


@dataclass(frozen=True, eq=False)
class Explanation:
    """What in `image` uint8 [H, W, C], as the model sees it, speaks for class `label`, and by which method it is told.

    `evidence` float32 [H, W] is below zero where something speaks against it, which Grad-CAM does not tell. Its unit
    depends on the method; of votes and of softmax regression the sum is the class's score without its bias.
    """

    image: NDArray[np.uint8]
    label: str
    method: Method
    evidence: NDArray[np.float32]

    @property
    def heat(self) -> NDArray[np.float32]:
        """What speaks for the class, float32 [H, W], from 0 to 1 where most does; 0 everywhere where nothing does."""
        positive: NDArray[np.float32] = self.evidence.clip(min=0)
        highest = np.float32(positive.max())
        return positive / highest if highest > 0 else positive

    @property
    def overlay(self) -> NDArray[np.uint8]:
        """The picture in gray under its heat in colours, uint8 [H', W', 3]: enlarged a whole number of times."""
        times = math.ceil(SHOWN / min(self.image.shape[:2]))
        gray = self.image @ np.array((0.299, 0.587, 0.114)) if self.image.shape[2] == 3 else self.image[..., 0]
        ground = np.kron(gray, np.ones((times, times)))[..., None]
        heat = torch.from_numpy(self.heat)[None, None]
        smooth = F.interpolate(heat, scale_factor=times, mode="bilinear")[0, 0].double().numpy()
        places = np.linspace(0, 1, len(_COLOURS))
        colours = np.stack([np.interp(smooth, places, channel) for channel in zip(*_COLOURS, strict=True)], axis=2)
        veil = _VEIL * smooth[..., None]
        blended: NDArray[np.uint8] = np.rint((1 - veil) * ground + veil * colours).astype(np.uint8)
        return blended


def explain(bundle: "Bundle", image: NDArray[np.uint8], label: str | None = None) -> Explanation:
    """Where in `image` uint8 [H, W, C], at the model's size, `bundle` sees class `label` (default: the likeliest).

    Raises DataError for an image of another shape or type, UsageError for a class that the model does not know.
    """
    scores = bundle.scores(image[None])
    if label is not None and label not in bundle.classes:
        raise UsageError(f"class {label!r}: the model does not know it; {suggestion(label, bundle.classes)}")
    number = int(scores.argmax()) if label is None else bundle.classes.index(label)
    return Explanation(image, bundle.classes[number], *_evidence(bundle.classifier, image, number))


def explain_files(
    bundle: "Bundle", paths: Sequence[str | Path], label: str | None = None
) -> Iterator[tuple[Prediction, Explanation | None]]:
    """What every picture among `paths` (files, folders, patterns) is taken for, and what speaks for it or for `label`.

    In order, as they come; one that cannot be read has an error and no explanation. Raises DataError where a path does
    not exist or a pattern or folder holds no picture, UsageError for a class that the model does not know.
    """
    for file in pictures(paths):
        try:
            image = preprocess(read_file(file), bundle.preprocess)
        except DataError as error:
            yield Prediction(show(file), error=str(error)), None
            continue
        (prediction,) = bundle.answer([show(file)], image[None])
        yield prediction, explain(bundle, image, label or prediction.label)


def _evidence(classifier: Classifier, image: NDArray[np.uint8], label: int) -> tuple[Method, NDArray[np.float32]]:
    if isinstance(classifier, ConvNet):
        return _of_network(classifier, image, label)
    if isinstance(classifier, Classical) and (found := classifier.evidence(image, label)) is not None:
        return "votes", found
    return "occlusion", _occlusion(classifier.scores, image, label)


def _of_network(model: ConvNet, image: NDArray[np.uint8], label: int) -> tuple[Method, NDArray[np.float32]]:
    """Grad-CAM (Selvaraju et al., Visual Explanations from Deep Networks via Gradient-Based Localization, 2017).

    Of the last map, each channel counts by the mean gradient of the class's score over it (equations 1 and 2). Where
    images have several views it is of the mean of their scores, each map put back to where it is in the image, and of
    an ensemble it is the mean of its members'. A network without convolutions has no map: there it is the gradient
    times the pixels, which of softmax regression is what each pixel adds to the score.
    """
    model.eval()
    with torch.enable_grad(), threads_for(model.macs):
        normal = model.normalised(torch.from_numpy(image[None]).to(model.mean.device))
        views = torch.cat([seen(normal, *look) for look in model.looks]).requires_grad_()
        of_members = [_of_views(member, views, label) for member in members(model.network)]
    of_views = model.scale * torch.stack([evidence for _, evidence in of_members]).mean(0)
    looks = zip(of_views, model.looks, strict=True)
    in_place = [seen(part[None], mirrored, -down) for part, (mirrored, down) in looks]
    return of_members[0][0], torch.cat(in_place).sum(0)[0].cpu().numpy()


def _of_views(network: nn.Module, views: Tensor, label: int) -> tuple[Method, Tensor]:
    """Evidence float [V, 1, H, W] in the `views` float [V, C, H, W] for the mean of their scores."""
    with _Watch() as watch:
        score = network(views)[:, label].mean()
    if watch.last_map is None:
        (gradient,) = torch.autograd.grad(score, views)
        return "gradient × pixels", (gradient * views.detach()).sum(1, keepdim=True)
    (gradient,) = torch.autograd.grad(score, watch.last_map)
    evidence = (gradient.mean((2, 3), keepdim=True) * watch.last_map.detach()).sum(1, keepdim=True)
    return "Grad-CAM", F.interpolate(evidence.relu(), views.shape[2:], mode="bilinear")


class _Watch(TorchFunctionMode):
    """Sees what a network computes, whatever its modules are called: its last map before pooling, if it has any.

    A map is float [N, C, H, W], of at least 3 × 3 pixels, after a convolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last_map: Tensor | None = None
        self._convolved = False
        # What was pooled a moment ago, the map that it was pooled from, and how
        self._pooled: tuple[Tensor, Tensor, Callable[[Tensor], Tensor]] | None = None

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options, before, self._pooled = kwargs or {}, self._pooled, None
        if function in _RELU and before is not None and args and args[0] is before[0]:
            # Max pooling and ReLU give the same in either order, and networks here pool first, for speed; the map that
            # is meant is the activation's
            _, map_, pool = before
            self._see(activated := torch.relu(map_))
            return pool(activated)
        made = function(*args, **options)
        if function in _MAX_POOLING and args:
            self._pooled = made, args[0], lambda x: function(x, *args[1:], **options)
        self._convolved |= function is torch.conv2d
        if function not in _POOLING:
            self._see(made)
        return made

    def _see(self, made: Any) -> None:
        is_map = isinstance(made, Tensor) and made.ndim == 4 and min(made.shape[2:]) >= LEAST_SIDE
        if self._convolved and is_map and made.requires_grad:
            self.last_map = made


def _occlusion(
    scores: Callable[[NDArray[np.uint8]], NDArray[np.float32]], image: NDArray[np.uint8], label: int
) -> NDArray[np.float32]:
    """How much the odds of the class fall, as a logarithm, where a square of the image is covered: float32 [H, W].

    Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, section 4.2. The squares are of the
    image's mean colour, and overlap by half; a pixel has the mean over those that cover it.
    """
    side = len(image)
    square = max(1, round(side / SQUARES))
    starts = np.unique(np.linspace(0, side - square, 2 * SQUARES - 1).round().astype(int)).tolist()
    places = [(slice(top, top + square), slice(left, left + square)) for top in starts for left in starts]
    covered = np.repeat(image[None], 1 + len(places), axis=0)
    for one, place in zip(covered[1:], places, strict=True):
        one[place] = image.mean(axis=(0, 1)).round()
    found = scores(covered).astype(np.float64)
    odds = found[:, label] - np.logaddexp.reduce(np.delete(found, label, axis=1), axis=1)
    evidence, times = np.zeros((2, side, side))
    for place, after in zip(places, odds[1:], strict=True):
        evidence[place] += odds[0] - after
        times[place] += 1
    return (evidence / times).astype(np.float32)
