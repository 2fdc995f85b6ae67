"""What a run is: frozen dataclasses, read from YAML strictly and written back in full.

A section of the YAML file is a dataclass here, a key is a field. Precedence, lowest first: the model's own recipe, the
file given with ``--config``, the command line (``--set recipe.lr=0.1``).
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from lenext.errors import UsageError

T = TypeVar("T")

Fit = Literal["pad", "crop", "squash"]
Loss = Literal["cross_entropy", "focal"]


@dataclass(frozen=True)
class Data:
    """Which images, and how they become training, validation and test data."""

    source: str
    size: int | None = None  # side in pixels; None: chosen from the images
    channels: Literal[1, 3] | None = None  # None: 1 where every image is gray, else 3
    fit: Fit = "pad"  # how a picture that is not square becomes square
    background: int = 255  # gray value, 0-255, behind transparent pixels and in the padding
    val: float = 0.1  # share of the images held out to choose the model
    test: float = 0.2  # share held out to judge it; unused where the data come with a test split
    split_seed: int = 0
    max_bad: float = 0.1  # share of unreadable files beyond which a run does not start
    max_pixels: int = 100_000_000  # a picture with more is refused before it is decoded


@dataclass(frozen=True)
class Model:
    """Which rung of the ladder, and how its layers differ from the published ones. None: as published."""

    name: str
    width: float = 1.0  # times the channels of every hidden layer
    norm: Literal["batch", "group", "none"] | None = None  # after each convolution
    activation: Literal["relu", "sigmoid"] | None = None
    pooling: Literal["max", "avg"] | None = None
    dropout: float | None = None  # probability that a number before a dense layer is dropped
    sliced: bool | None = None  # k×k convolutions as 1×k, then k×1
    groups: int | None = None  # of the k×k convolutions but the first
    group_width: int | None = None  # ResNeXt: channels of a group in the first stage
    layout: Literal["large", "small"] | None = None  # for photographs or for small images; None: by their size
    members: int = 1  # so many networks of the kind, trained side by side, whose logits' mean counts
    mirror: bool = False  # an image's scores are the mean of its own and its mirror image's
    shift: int = 0  # they are the mean, too, of those of the image moved up and down by so many pixels; 0 is off
    weights: str | None = None  # to begin with: a .pth or .safetensors file, or the name of published ones

    @property
    def views(self) -> int:
        """How often an image is looked at to score it."""
        return views(mirror=self.mirror, shift=self.shift)


OF_CLASSIFIERS = ("mirror", "shift")  # fields of Model that are of the classifier: how often it looks at an image
OF_ALL_NETWORKS = ("members", *OF_CLASSIFIERS)  # those that are not of its layers, which every network honours


def views(*, mirror: bool, shift: int) -> int:
    """How often a classifier looks at an image: twice with `mirror`, three times with a `shift`, six with both."""
    return (2 if mirror else 1) * (3 if shift else 1)


@dataclass(frozen=True)
class Augment:
    """Training images made from existing ones. Every default means: off."""

    shift: int = 0  # pad by so many pixels and crop at random
    flip: bool = False  # mirror left-right, one image in two
    crop_area: float = 1.0  # random resized crop: the least share of the area that is kept
    erase: float = 0.0  # probability of blanking a random square
    brightness: float = 0.0  # largest relative change
    contrast: float = 0.0  # largest relative change
    mixup: float = 0.0  # Beta(a, a) of mixup; 0 is off
    cutmix: float = 0.0  # Beta(a, a) of CutMix; 0 is off


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"  # muon: SGD that turns convolutions, see lenext.training.muon
    lr: float = 0.1  # peak learning rate, for the batch size given here
    momentum: float = 0.9  # Nesterov momentum of SGD and Muon; first beta of AdamW
    weight_decay: float = 5e-4  # not applied to biases and normalisation, nor to what Muon turns
    batch_size: int = 128  # at most an eighth of the training images
    per_worker: bool = False  # batch_size and lr are those of one worker, and grow with their number
    sync_batch_norm: bool = False  # over all workers' images; else each worker normalises its own
    epochs: float = 20.0  # unless --epochs or --budget is given
    schedule: Literal["cosine", "one_cycle", "constant"] = "one_cycle"
    warmup: float = 0.15  # share of training over which the learning rate rises
    loss: Loss = "cross_entropy"
    focal_gamma: float = 2.0  # of the focal loss: the higher, the less images weigh that are classified well
    class_weights: bool = False  # images weigh inversely to how many of their class there are; 1 on average
    balanced: bool = False  # an epoch takes every class equally often, and images of the rare ones again and again
    label_smoothing: float = 0.0
    ema: float = 0.0  # share of training that the moving average of the weights looks back on; 0 is off
    clip_norm: float = 0.0  # largest gradient norm; 0 is off
    at_once: int | None = None  # images of a batch that are computed at a time; None: as many as fit into memory
    auxiliary: float = 0.3  # weight of the loss of each auxiliary head, where a network has them
    freeze: float = 0.0  # share of training in which only the head learns; for weights that are given
    earlier_lr: float = 1.0  # the first layer's share of the learning rate; the layers between follow geometrically
    augment: Augment = field(default_factory=Augment)


@dataclass(frozen=True)
class Descriptors:
    """What a classical rung looks at in an image. None: by the images' size, see `lenext.classical.recipes`."""

    kind: Literal["hog", "dense_sift", "sift", "surf"] = "dense_sift"  # sift and surf: at keypoints
    side: int | None = None  # pixels a side that images are resized to first
    bins: tuple[int, ...] | None = None  # pixels a side of a spatial bin, one scale each; hog, dense_sift
    step: int | None = None  # pixels between two patches; dense_sift
    colour: Literal["luminance", "opponent"] = "luminance"  # opponent: three channels described, one after the other
    root: bool = True  # square roots of SIFT's numbers, which compares them as histograms; dense_sift, sift
    keypoints: int = 300  # per image at most, the strongest; sift, surf


@dataclass(frozen=True)
class Codebook:
    """The visual vocabulary."""

    words: int = 256  # centres of k-means, or Gaussians of the mixture
    pca: int | None = None  # principal components that descriptors are reduced to; None: none
    sample: int = 200_000  # descriptors at most that it is learnt from
    iterations: int = 30


@dataclass(frozen=True)
class Encoding:
    """How the patches of an image become one vector."""

    kind: Literal["hard", "soft", "vlad", "fisher"] = "soft"
    softness: float = 40.0  # the higher, the more the nearest word counts; soft
    pyramid: tuple[int, ...] = (1, 2, 4)  # cells a side that are encoded apart, level by level
    positions: bool = False  # the place of a patch is part of its descriptor
    power: float = 0.5  # of every number, its sign kept; 1 is off


@dataclass(frozen=True)
class Svm:
    """How a support vector machine is fitted. None: chosen by cross-validation on the training images."""

    kernel: Literal["linear", "rbf", "chi2", "exp_chi2", "intersection"] = "linear"
    loss: Literal["hinge", "squared_hinge", "softmax"] = "squared_hinge"
    c: float | None = None  # weight of the margin violations against the norm
    gamma: float | None = None  # of rbf and exp_chi2, in units of 1 / mean squared distance (chi2 distance)
    folds: int = 3
    sample: int = 6_000  # images at most that cross-validation looks at
    exact: int = 8_000  # images up to which a kernel is computed in full; beyond, it is approximated
    landmarks: int = 2_000  # images that stand for all in the approximation of rbf and exp_chi2
    tolerance: float = 1e-3  # stop where ten steps lower the objective by less, as a share; hinge: as LIBLINEAR's tol
    max_iterations: int = 200  # steps of BFGS; hinge: of LIBLINEAR


@dataclass(frozen=True)
class Run:
    """One run, complete: this and the same images give the same model."""

    data: Data
    model: Model
    recipe: Recipe | None = None  # networks
    descriptors: Descriptors | None = None  # classical rungs, but for those on pixels
    codebook: Codebook | None = None  # classical rungs with words
    encoding: Encoding | None = None  # classical rungs with words
    svm: Svm | None = None  # classical rungs
    epochs: float | None = None  # passes over the training images
    budget: float | None = None  # seconds for everything, evaluation included
    seed: int = 0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    license: str | None = None  # of the model, for its card; None: not known


_TINY, _HUGE = 1e-9, 1e9
_RANGES = {
    "epochs": (_TINY, _HUGE),
    "budget": (1.0, _HUGE),
    "seed": (0, 2**31 - 1),
    "data.size": (1, 4096),
    "data.background": (0, 255),
    "data.val": (0.001, 0.9),
    "data.test": (0.0, 0.9),
    "data.max_bad": (0.0, 1.0),
    "data.max_pixels": (1, _HUGE),
    "model.width": (0.01, 100.0),
    "model.members": (1, 100),
    "model.shift": (0, 8),
    "model.dropout": (0.0, 0.99),
    "model.groups": (1, 4096),
    "model.group_width": (1, 4096),
    "recipe.lr": (_TINY, _HUGE),
    "recipe.momentum": (0.0, 0.9999),
    "recipe.weight_decay": (0.0, _HUGE),
    "recipe.batch_size": (1, _HUGE),
    "recipe.epochs": (_TINY, _HUGE),
    "recipe.warmup": (0.0, 1.0),
    "recipe.focal_gamma": (0.0, 100.0),
    "recipe.label_smoothing": (0.0, 0.99),
    "recipe.ema": (0.0, 1.0),
    "recipe.clip_norm": (0.0, _HUGE),
    "recipe.at_once": (1, _HUGE),
    "recipe.auxiliary": (0.0, 10.0),
    "recipe.freeze": (0.0, 1.0),
    "recipe.earlier_lr": (_TINY, 1.0),
    "recipe.augment.shift": (0, 4096),
    "recipe.augment.crop_area": (0.01, 1.0),
    "recipe.augment.erase": (0.0, 1.0),
    "recipe.augment.brightness": (0.0, 1.0),
    "recipe.augment.contrast": (0.0, 1.0),
    "recipe.augment.mixup": (0.0, 100.0),
    "recipe.augment.cutmix": (0.0, 100.0),
    "descriptors.side": (8, 4096),
    "descriptors.bins": (1, 512),
    "descriptors.step": (1, 512),
    "descriptors.keypoints": (1, 100_000),
    "codebook.words": (1, 100_000),
    "codebook.pca": (1, 4096),
    "codebook.sample": (1, _HUGE),
    "codebook.iterations": (1, _HUGE),
    "encoding.softness": (_TINY, _HUGE),
    "encoding.pyramid": (1, 16),
    "encoding.power": (0.01, 1.0),
    "svm.c": (_TINY, _HUGE),
    "svm.gamma": (_TINY, _HUGE),
    "svm.folds": (2, 100),
    "svm.sample": (2, _HUGE),
    "svm.exact": (0, 100_000),
    "svm.landmarks": (1, 100_000),
    "svm.tolerance": (_TINY, 1.0),
    "svm.max_iterations": (1, _HUGE),
}


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """The dataclass `cls` from plain values, strictly.

    `where` is the dotted path of the section, for messages. Raises UsageError for an unknown key (with the nearest
    known one), a missing key or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or 'the file'}: expected a mapping of keys to values, given {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            unknown, accepted = _dotted(where, str(key)), [_dotted(where, name) for name in fields]
            raise UsageError(f"unknown key {unknown!r}; {suggestion(unknown, accepted)}")
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in values]:
        raise UsageError(f"missing key {_dotted(where, missing[0])!r}")
    return cls(**{key: _convert(hints[key], value, _dotted(where, key)) for key, value in values.items()})


def validate(part: T, where: str = "") -> T:
    """`part` itself, a run or one of its sections (then `where` is the section's dotted path).

    Raises UsageError where a value is out of its range, naming it and the range, or two exclude each other.
    """
    if isinstance(part, Run) and part.epochs is not None and part.budget is not None:
        raise UsageError("given both epochs and budget, accepted: one of them")
    if isinstance(part, Run) and part.recipe is not None and part.recipe.class_weights and part.recipe.balanced:
        raise UsageError("given both recipe.class_weights and recipe.balanced, accepted: one of them, as either makes "
                         "classes count equally")  # fmt: skip
    for path, (low, high) in _RANGES.items():
        if not path.startswith(where):
            continue
        value: Any = part
        for key in path.removeprefix(where).strip(".").split("."):
            value = getattr(value, key, None)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            if not low <= number <= high:
                raise UsageError(f"{path}: given {number:g}, accepted: {_range(low, high)}")
    return part


def to_dict(spec: Any) -> dict[str, Any]:
    """Plain values of a dataclass, nested, ready for YAML or JSON; sections that are None are left out."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for f in dataclasses.fields(spec)
        if (value := getattr(spec, f.name)) is not None
    }


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UsageError where the file is missing or is not a mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).replace(' in "<unicode string>",', "").split())
        raise UsageError(f"{path} is not YAML: {text}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a mapping such as 'recipe: {{lr: 0.1}}', given {type(values).__name__}")
    return values


def to_yaml(spec: Any) -> str:
    return yaml.safe_dump(to_dict(spec), sort_keys=False, allow_unicode=True)


def parse_sets(assignments: Iterable[str]) -> dict[str, Any]:
    """``["recipe.lr=0.1", "data.fit=crop"]`` as nested mappings; values are read as YAML."""
    tree: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not all(path.split(".")):
            raise UsageError(f"--set {assignment!r}: expected KEY=VALUE, for example recipe.lr=0.1")
        *sections, key = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UsageError(f"--set {assignment!r}: {section!r} was given a value before")
        try:
            node[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {assignment!r}: cannot read the value {value!r}") from error
    return tree


def parse_seconds(duration: float | str | None) -> float | None:
    """Seconds from a number or from text such as ``90``, ``90s``, ``2m``, ``1h30m``; None stays None."""
    if duration is None or isinstance(duration, int | float):
        return None if duration is None else float(duration)
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", duration.strip().lower())
    try:
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match and match[0] else (0.0,) * 3
    except ValueError:
        hours = minutes = seconds = 0.0
    if not hours and not minutes and not seconds:
        raise UsageError(f"given {duration!r} as a duration, accepted: 90, 90s, 2m, 1h30m")
    return 3600 * hours + 60 * minutes + seconds


def parse_amount(amount: float | str | None, *, unit: str = "") -> float | None:
    """A number as it is, or from text such as ``100M``, ``1.5G``, with a unit ``5MB``; None stays None.

    The letters are of the decimal system: k, M, G, T.
    """
    if amount is None or isinstance(amount, int | float):
        return None if amount is None else float(amount)
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+)\s*([kKMGT]?)(?:{unit})?", amount.strip())
    if not match:
        raise UsageError(f"given {amount!r} as an amount, accepted: 5000{unit}, 800k{unit}, 5M{unit}, 1.5G{unit}")
    return float(match[1]) * 1000.0 ** " kMGT".index(match[2].replace("K", "k") or " ")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over one another, the last one on top."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def suggestion(given: str, accepted: Iterable[str]) -> str:
    """``did you mean 'lr'?``, or the accepted names where none is near."""
    names = list(accepted)
    if near := difflib.get_close_matches(given, names, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    return f"accepted: {', '.join(names)}"


def _range(low: float, high: float) -> str:
    if high < _HUGE:
        return f"{low:g} to {high:g}"
    return "more than 0" if low == _TINY else f"{low:g} or more"


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`; raises UsageError naming the value and what would be accepted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise UsageError(f"{where}: given {value!r}, accepted: {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        numbers = value if isinstance(value, list | tuple) else [value]
        if not numbers:
            raise UsageError(f"{where}: given an empty list, accepted: one number or more")
        return tuple(_convert(arguments[0], number, where) for number in numbers)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    if hint is float:
        # YAML 1.1 reads 1e-3 as a string, for want of a dot
        if isinstance(value, str | int) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                pass
        accepted = isinstance(value, float)
    else:
        accepted = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    if not accepted:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UsageError(f"{where}: given {value!r}, accepted: {names.get(hint, hint)}")
    return value
