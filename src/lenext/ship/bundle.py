"""The bundle: a trained classifier in one safetensors file, able to prove that it predicts as it did when it was made.

Tensors: the classifier's arrays, and a few golden images (their file bytes) with the scores that they must get.
Metadata: one JSON document with the format's version, model, preprocessing, classes, recipe, metrics and a fingerprint
of the data. Nothing is pickled.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lenext.classical import RUNGS, Classical
from lenext.classifier import Classifier, ConvNet
from lenext.data import Preprocess, prepare_with, preprocess
from lenext.errors import DataError, LenextError, ParityError, UsageError
from lenext.evaluate import evaluate
from lenext.models import build_model, variant, without_weights
from lenext.nn import without_auxiliary
from lenext.record import replacing
from lenext.ship.predict import Prediction, predict
from lenext.spec import Model, Run, from_dict, to_dict

FORMAT = 1
GOLDEN_TOLERANCE = 1e-3  # of scores, absolute and relative: other processors and libraries round differently


@dataclass(frozen=True)
class Bundle:
    """A classifier with its papers. `goldens` are file bytes, `golden_scores` float32 [goldens, K]."""

    classifier: Classifier
    metadata: dict[str, Any]
    goldens: tuple[bytes, ...]
    golden_scores: NDArray[np.float32]

    @classmethod
    def create(
        cls,
        classifier: Classifier,
        run: Run,
        *,
        metrics: dict[str, Any],
        fingerprint: str,
        golden_files: Sequence[bytes],
    ) -> "Bundle":
        """Bundles what `run` trained; `golden_files` are pictures whose scores every copy must reproduce."""
        # A bundle travels: it says what the data were called, not where they lay, and needs no other file
        source = Path(run.data.source).name
        data, model = dataclasses.replace(run.data, source=source), without_weights(run.model)
        run = dataclasses.replace(run, data=data, model=model)
        metadata = {
            "format": FORMAT,
            "model": to_dict(run.model),
            "preprocess": to_dict(classifier.preprocess),
            "classes": list(classifier.classes),
            "run": to_dict(run),
            "metrics": metrics,
            "fingerprint": fingerprint,
        }
        goldens = tuple(golden_files)
        return cls(classifier, metadata, goldens, _scores_of_files(classifier, goldens))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.classifier.classes

    @property
    def preprocess(self) -> Preprocess:
        return self.classifier.preprocess

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 [N, H, W, C] at the model's size to scores float32 [N, K]; their softmax is probabilities."""
        expected = (self.preprocess.size, self.preprocess.size, self.preprocess.channels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise DataError(f"images: given {images.dtype} {list(images.shape)}, accepted: uint8 [N, "
                            f"{', '.join(map(str, expected))}]")  # fmt: skip
        return self.classifier.scores(images)

    def predict(self, paths: str | Path | Iterable[str | Path]) -> Iterator[Prediction]:
        """A prediction per picture, in order; `paths` are files, folders or glob patterns. See `Prediction`."""
        return predict(self.classifier, [paths] if isinstance(paths, str | Path) else list(paths))

    def evaluate(self, data: str, *, split: Literal["train", "val", "test", "all"] | None = None) -> dict[str, Any]:
        """Metrics on `data` (a name or path): see `lenext.evaluate.evaluate`, and which `split` was judged.

        ``seen_in_training`` says that the model was trained on these very images, which flatters it.
        Without `split`: the test part, where the data have one or are those that the model was trained on; else all.
        Raises DataError where classes do not fit.
        """
        trained_with = from_dict(Run, self.metadata["run"]).data
        judged = prepare_with(
            dataclasses.replace(trained_with, source=data),
            self.preprocess,
            self.classes,
            fingerprint=self.metadata["fingerprint"],
            part=split,
        )
        metrics = evaluate(self.scores(judged.subset.images), judged.subset.labels, self.classes)
        seen = judged.same_data and judged.part in (None, "train")
        return {"split": judged.part or "all", "seen_in_training": seen, **metrics}

    def verify(self) -> int:
        """Predicts the golden images from their file bytes; the number of them.

        Raises ParityError where scores differ from those at the time of saving by more than `GOLDEN_TOLERANCE`, or a
        class differs.
        """
        found = _scores_of_files(self.classifier, self.goldens)
        close = np.allclose(found, self.golden_scores, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
        if not close or (found.argmax(axis=1) != self.golden_scores.argmax(axis=1)).any():
            raise ParityError(
                f"the golden images get other scores than when the bundle was made: they differ by up to "
                f"{np.abs(found - self.golden_scores).max():.3g}, allowed: {GOLDEN_TOLERANCE:g}"
            )
        return len(self.goldens)

    def save(self, path: Path | str) -> Path:
        """Writes the bundle to `path`, whole or not at all."""
        tensors = {f"weights.{name}": array for name, array in _arrays(self.classifier).items()}
        for number, content in enumerate(self.goldens):
            tensors[f"golden.{number}"] = np.frombuffer(content, np.uint8)
        tensors["golden_scores"] = self.golden_scores
        tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        path = Path(path)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"lenext": json.dumps(self.metadata)})
        return path


def load(path: Path | str, *, verify: bool = False) -> Bundle:
    """The bundle in the file `path`; with `verify`, its golden images are predicted and compared first.

    Raises DataError where the file is missing, damaged or no bundle; ParityError where a golden image differs.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; accepted: a .lenext bundle, such as {path / 'best.lenext'}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get("lenext", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; accepted: a .lenext bundle, such as a run's best.lenext") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} is not a lenext bundle or is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path} is a safetensors file but not a lenext bundle: it has no 'lenext' metadata")
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: bundle format {metadata.get('format')!r}; this lenext reads format {FORMAT}")
    weights = {k.removeprefix("weights."): array for k, array in arrays.items() if k.startswith("weights.")}
    _must_be_of_the_ladder(path, metadata)
    try:
        bundle = Bundle(
            _classifier(metadata, weights),
            metadata,
            tuple(arrays[f"golden.{n}"].tobytes() for n in range(len(arrays["golden_scores"]))),
            arrays["golden_scores"],
        )
    except KeyError as error:
        raise DataError(f"{path} is damaged: it lacks {error}") from error
    except (TypeError, ValueError, RuntimeError, LenextError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if bundle.golden_scores.shape != (len(bundle.goldens), len(bundle.classes)):
        raise DataError(f"{path} is damaged: golden scores {list(bundle.golden_scores.shape)} for "
                        f"{len(bundle.classes)} classes")  # fmt: skip
    if verify:
        bundle.verify()
    return bundle


def _arrays(classifier: Classifier) -> dict[str, NDArray[Any]]:
    if isinstance(classifier, ConvNet):
        return {name: tensor.detach().cpu().numpy() for name, tensor in classifier.state_dict().items()}
    assert isinstance(classifier, Classical)
    return classifier.arrays()


def _must_be_of_the_ladder(path: Path, metadata: dict[str, Any]) -> None:
    name = (metadata.get("model") or {}).get("name")
    if not isinstance(name, str) or name in RUNGS:
        return
    try:
        variant(name)
    except UsageError as error:
        raise DataError(f"{path} is of a network {name!r}, which is not of the ladder; accepted: after "
                        f"lenext.add_rung({name!r}, …), where it is one of your own") from error  # fmt: skip


def _classifier(metadata: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Classifier:
    model_spec, classes = without_weights(from_dict(Model, metadata["model"])), tuple(metadata["classes"])
    settings = from_dict(Preprocess, metadata["preprocess"])
    if model_spec.name in RUNGS:
        return Classical.from_arrays(arrays, from_dict(Run, metadata["run"]), classes, settings)
    network = build_model(model_spec, classes=len(classes), channels=settings.channels, size=settings.size)
    network = without_auxiliary(network)
    model = ConvNet(
        network,
        classes,
        settings,
        mean=arrays["mean"],
        std=arrays["std"],
        mirror=model_spec.mirror,
        shift=model_spec.shift,
    )
    model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return model.eval()


def _scores_of_files(classifier: Classifier, files: Sequence[bytes]) -> NDArray[np.float32]:
    if not files:
        return np.empty((0, len(classifier.classes)), np.float32)
    return classifier.scores(np.stack([preprocess(content, classifier.preprocess) for content in files]))
