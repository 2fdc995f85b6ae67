"""Weights that others trained: what is known of them, and how they get onto this machine.

Of torchvision's networks the table is torchvision's own metadata, read when it is asked for; inception_v4, which it has
not, is here. A file is recognised by its name or its SHA-256, or by the config.json that timm's files come with.
"""

import hashlib
import http.client
import json
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from lenext.errors import DataError, UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = 0.875  # of the resized picture's shorter side, as in most evaluations on ImageNet: 224 of 256
BEST = "imagenet"  # the name of a network's best published weights

_TIMEOUT = 30.0  # seconds without a byte from the server
_CHUNK = 2**20  # bytes
_BROKEN = (ConnectionError, TimeoutError, http.client.IncompleteRead)  # connections, while something comes


@dataclass(frozen=True)
class Pretrained:
    """What is known of weights: what their network was shown, and what it answers."""

    name: str
    source: str  # who says so
    classes: tuple[str, ...] | None = None  # by index; None: unknown
    mean: tuple[float, ...] = IMAGENET_MEAN  # of red, green and blue, as shares of the largest value
    std: tuple[float, ...] = IMAGENET_STD
    size: int = 224  # pixels a side
    resize: int = 256  # pixels of the shorter side, before the centre is cropped
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    accuracy: float | None = None  # top-1, on ImageNet's validation images
    url: str = ""
    sha256: str = ""  # its first digits

    def normalisation(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of `channels` channels, in units of the pixel values 0-255.

        Gray gets the averages, as `lenext.models.weights` sums the filters over the colours; other channels the
        colours' in turn.
        """

        def spread(values: tuple[float, ...]) -> tuple[float, ...]:
            if channels == 1:
                return (255 * sum(values) / len(values),)
            return tuple(255 * values[channel % len(values)] for channel in range(channels))

        return spread(self.mean), spread(self.std)


def describe(network: str, weights: str, *, size: int) -> Pretrained:
    """What is known of `weights`, a file or the name of published ones, for `network`, published at `size` pixels.

    Of a file that is not recognised: that its network saw ImageNet's usual mean and standard deviation. Raises
    UsageError for a name that is not known, DataError for a config.json beside the file that cannot be understood.
    """
    table = known(network)
    if row := _named(network, weights, table):
        return row
    path = Path(weights).expanduser()
    if row := _recognised(path, table):
        return replace(row, source=f"{row.source}, recognised in {path.name}")
    if row := _from_timm(path):
        return row
    return Pretrained(path.name, "an unknown file", size=size, resize=round(size / CROP))


def file_of(network: str, weights: str) -> Path:
    """The file of `weights`, a file or the name of published ones, which are fetched if need be.

    They are looked for, and put, where LENEXT_CACHE says, by default in ~/.cache/lenext, in the folder weights; those
    that torch.hub has fetched are found too. Raises UsageError for a name that is not known, DataError where published
    weights are neither here nor to be had, or have changed.
    """
    row = _named(network, weights, known(network))
    if row is None:
        return Path(weights).expanduser()
    name = row.url.rpartition("/")[2]
    cache = Path(os.environ.get("LENEXT_CACHE") or "~/.cache/lenext").expanduser() / "weights"
    for path in (cache / name, Path(torch.hub.get_dir(), "checkpoints", name)):
        if path.is_file():
            if not (found := _sha256(path)).startswith(row.sha256):
                raise DataError(f"{path} is not what it should be: its SHA-256 begins with {found[:8]}, that of "
                                f"{row.url} with {row.sha256}; remove it to have it fetched again")  # fmt: skip
            return path
    download(row.url, cache / name, sha256=row.sha256)
    return cache / name


def _named(network: str, weights: str, table: dict[str, Pretrained]) -> Pretrained | None:
    """The row of published weights; None for a file. Raises UsageError where `weights` is neither."""
    if weights in table:
        return table[weights]
    if weights == BEST and table:
        return next(iter(table.values()))
    if Path(weights).expanduser().is_file():
        return None
    names = f", or the name of published ones: {', '.join((BEST, *table))}" if table else ""
    raise UsageError(f"{network}: no such weights: {weights!r}; accepted: a .pth or .safetensors file{names}")


# ---- what is known ----

_TORCHVISION_NAMES = {"alexnet": "", "alexnet_owt": "alexnet"}  # where they differ; "": not the same network


def known(network: str) -> dict[str, Pretrained]:
    """The published weights of `network` that can be fetched, by name, the best first."""
    if network == "inception_v4":
        return {"tf_in1k": _inception_v4()}
    import torchvision.models

    theirs = _TORCHVISION_NAMES.get(network, network)
    if theirs not in torchvision.models.list_models(module=torchvision.models):
        return {}
    table = torchvision.models.get_model_weights(theirs)
    rows = [_from_torchvision(network, entry) for entry in (table.DEFAULT, *table)]
    return {row.name: row for row in rows if row.classes}  # those without classes are features alone


def _from_torchvision(network: str, entry: Any) -> Pretrained:
    """A row of `torchvision.models`: an entry of its enumeration of a network's weights."""
    transforms, accuracy = entry.transforms(), entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
    prefix = re.search(r"-([0-9a-f]{8,})\.pth$", entry.url)
    assert prefix, entry.url
    # Its GoogLeNet, ported from TensorFlow, brings the images that it is given to ±1 by itself (transform_input)
    halves = (0.5, 0.5, 0.5) if network == "googlenet" else None
    return Pretrained(
        name=entry.name.lower(),
        source=f"torchvision, weights {entry.name}",
        classes=tuple(entry.meta["categories"] or ()),
        mean=halves or tuple(transforms.mean),
        std=halves or tuple(transforms.std),
        size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        accuracy=accuracy if isfinite(accuracy) else None,
        url=entry.url,
        sha256=prefix[1],
    )


def _inception_v4() -> Pretrained:
    """As timm 1.0 describes the weights that Google published for TensorFlow; accuracy: its results-imagenet.csv."""
    return Pretrained(
        name="tf_in1k",
        source="timm, inception_v4.tf_in1k",
        classes=imagenet_classes(),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        size=299,
        resize=341,
        interpolation="bicubic",
        accuracy=0.80156,
        url="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/inceptionv4-8e4777a0.pth",
        sha256="8e4777a0",
    )


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in their usual order, as torchvision writes them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def _recognised(path: Path, table: dict[str, Pretrained]) -> Pretrained | None:
    if not table:
        return None
    found = _sha256(path)
    return next((row for row in table.values() if found.startswith(row.sha256) or f"-{row.sha256}." in path.name), None)


def _from_timm(path: Path) -> Pretrained | None:
    """What the config.json beside a file of timm's says; None where there is none."""
    config = path.with_name("config.json")
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        about = values["pretrained_cfg"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or that of another program
    try:
        size = int(about["input_size"][-1])
        names = values.get("label_names")
        if names is None and about.get("num_classes") == 1000 and str(about.get("tag", "")).endswith("in1k"):
            names = imagenet_classes()
        return Pretrained(
            name=str(about.get("tag") or path.name),
            source=f"timm, {values.get('architecture', '')}.{about.get('tag', '')}",
            classes=tuple(map(str, names)) if names else None,
            mean=tuple(map(float, about["mean"])),
            std=tuple(map(float, about["std"])),
            size=size,
            resize=int(size / about["crop_pct"]),
            interpolation="bicubic" if about["interpolation"] == "bicubic" else "bilinear",
        )
    except (ValueError, KeyError, TypeError, LookupError, ArithmeticError) as error:
        raise DataError(f"{config} is not understood as timm's: {type(error).__name__}: {error}") from error


# ---- fetching ----


def download(url: str, path: Path, *, sha256: str) -> None:
    """Fetches `url` into the file `path`, whole and checked, or not at all.

    What has come is kept beside it until then, and not fetched again. Raises DataError where the file cannot be had
    or does not begin its SHA-256 with `sha256`, saying what to put where by hand.
    """
    partial = path.with_name(f"{path.name}.part")
    by_hand = f"offline, put {path.name} from {url} (its SHA-256 begins with {sha256}) into {path.parent}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        continued = partial.exists()
        sys.stderr.write(f"fetching {url}\n")
        _fetch(url, partial)
        if continued and not _sha256(partial).startswith(sha256):  # perhaps its beginning was of something else
            partial.unlink()
            _fetch(url, partial)
        found = _sha256(partial)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise DataError(f"{path.name} is not on this machine and cannot be fetched ({reason}); {by_hand}") from error
    if not found.startswith(sha256):
        partial.unlink()
        raise DataError(
            f"what came from {url} has a SHA-256 that begins with {found[:8]}, expected {sha256}; {by_hand}"
        )
    partial.replace(path)


def _fetch(url: str, partial: Path) -> None:
    """Appends to `partial` what it lacks of `url`, and goes on for as long as connections that break brought something.

    Raises OSError where nothing comes any more.
    """
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        request = Request(url, headers={"Range": f"bytes={before}-"} if before else {})  # noqa: S310 - from the table
        try:
            answer = urlopen(request, timeout=_TIMEOUT)  # noqa: S310
        except HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # it lacks nothing
            raise
        with answer:
            resumed = answer.status == http.client.PARTIAL_CONTENT
            length = answer.headers["Content-Length"]
            whole = None if length is None else int(length) + (before if resumed else 0)
            with partial.open("ab" if resumed else "wb") as file, suppress(*_BROKEN):
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
        after = partial.stat().st_size
        if whole is None or after == whole:
            return
        if after <= before:
            raise OSError(f"the connection broke after {after:,} of {whole:,} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
