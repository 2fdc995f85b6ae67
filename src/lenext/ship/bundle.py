"""The bundle: a trained classifier in one safetensors file, able to prove that it predicts as it did when it was made.

Tensors: the classifier's arrays; a few golden images (their file bytes) with the scores that they must get; scores and
labels of validation images, by which it knows how far it can be trusted.
Metadata: one JSON document with the format's version, model, preprocessing, classes, recipe, metrics and a fingerprint
of the data. Nothing is pickled.
"""

import dataclasses
import functools
import hashlib
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
from lenext.evaluate import distances, evaluate, least_confidence, own_distances, share_below
from lenext.models import build_model, variant, without_weights
from lenext.nn import without_auxiliary
from lenext.record import replacing
from lenext.ship.predict import OUTLIER, Prediction, predict, probabilities
from lenext.spec import Model, Run, from_dict, to_dict

FORMAT = 1
VALIDATION_IMAGES = 4_000  # whose scores travel with the model, at most
GOLDEN_TOLERANCE = 1e-3  # of scores, absolute and relative: other processors and libraries round differently


@dataclass(frozen=True)
class Bundle:
    """A classifier with its papers. `goldens` are file bytes, `golden_scores` float32 [goldens, K].

    `val_scores` float32 [V, K] and `val_labels` int64 [V] are of validation images; of a network that others trained
    there are none.
    """

    classifier: Classifier
    metadata: dict[str, Any]
    goldens: tuple[bytes, ...]
    golden_scores: NDArray[np.float32]
    val_scores: NDArray[np.float32]
    val_labels: NDArray[np.int64]

    @classmethod
    def create(
        cls,
        classifier: Classifier,
        run: Run,
        *,
        metrics: dict[str, Any],
        fingerprint: str,
        golden_files: Sequence[bytes],
        val_scores: NDArray[np.float32] | None = None,
        val_labels: NDArray[np.int64] | None = None,
    ) -> "Bundle":
        """Bundles what `run` trained; `golden_files` are pictures whose scores every copy must reproduce.

        Of the scores [V, K] and labels [V] of validation images as many are kept as `VALIDATION_IMAGES` says.
        """
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
        if val_scores is None or val_labels is None:
            val_scores, val_labels = _no_validation(len(classifier.classes))
        kept = np.linspace(0, len(val_labels) - 1, min(VALIDATION_IMAGES, len(val_labels)), dtype=np.int64)
        golden_scores = _scores_of_files(classifier, goldens)
        return cls(classifier, metadata, goldens, golden_scores, val_scores[kept], val_labels[kept])

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

    def predict(
        self, paths: str | Path | Iterable[str | Path], *, abstain: float | None = None
    ) -> Iterator[Prediction]:
        """A prediction per picture, in order; `paths` are files, folders or glob patterns. See `answer`."""
        self.least_confidence(abstain)  # what cannot be promised is refused before anything is read
        answer = functools.partial(self.answer, abstain=abstain)
        return predict(answer, self.preprocess, [paths] if isinstance(paths, str | Path) else list(paths))

    def answer(
        self, names: Sequence[str], images: NDArray[np.uint8], *, abstain: float | None = None
    ) -> list[Prediction]:
        """What the images uint8 [N, H, W, C], called `names`, are taken for.

        `abstain` is the share of answers that shall be right, such as 0.99: an image gets no label where the model is
        less sure than `least_confidence` says, or where it looks more unusual than 99 % of the validation images.
        Raises UsageError where that cannot be promised.
        """
        least, scores = self.least_confidence(abstain), self.scores(images)
        unusual = self.outliers(scores)
        answers = []
        for row, (name, shares) in enumerate(zip(names, probabilities(scores), strict=True)):
            best, outlier = int(shares.argmax()), None if unusual is None else float(unusual[row])
            refused = bool(shares[best] < least) or (abstain is not None and outlier is not None and outlier > OUTLIER)
            label = None if refused else self.classes[best]
            answers.append(
                Prediction(name, label, float(shares[best]), tuple(map(float, shares)), outlier, abstained=refused)
            )
        return answers

    def least_confidence(self, abstain: float | None) -> float:
        """The probability from which on an answer is given, so that a share `abstain` of the answers is right.

        0 where it is None. Raises UsageError where the validation images cannot promise it, or there are none.
        """
        if abstain is None:
            return 0.0
        if not len(self.val_labels):
            raise UsageError(f"abstain: given {abstain:g}, but the bundle holds no validation images to promise it on; "
                             "accepted: with a model that lenext trained")  # fmt: skip
        if abstain not in self._least:
            shares = probabilities(self.val_scores)
            right = self.val_scores.argmax(axis=1) == self.val_labels
            self._least[abstain] = least_confidence(shares.max(axis=1), right, abstain)
        return self._least[abstain]

    def outliers(self, scores: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """How unusual images look to the model: the share of validation images that look less so, float32 [N].

        Of their `scores` [N, K], see `lenext.evaluate.distances`. None where the bundle holds no validation images.
        """
        if not len(self.val_labels):
            return None
        return share_below(distances(scores, self.val_scores), self._own_distances)

    @functools.cached_property
    def _least(self) -> dict[float, float]:
        return {}

    @functools.cached_property
    def _own_distances(self) -> NDArray[np.float32]:
        return own_distances(self.val_scores)

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

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that it consists of, in hexadecimal: what predicts otherwise has another one."""
        found = hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode())
        for name, tensor in self._tensors().items():
            found.update(name.encode() + tensor.tobytes())
        return found.hexdigest()

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
        path = Path(path)
        with replacing(path) as temporary:
            save_file(self._tensors(), temporary, metadata={"lenext": json.dumps(self.metadata)})
        return path

    def _tensors(self) -> dict[str, NDArray[Any]]:
        tensors = {f"weights.{name}": array for name, array in _arrays(self.classifier).items()}
        for number, content in enumerate(self.goldens):
            tensors[f"golden.{number}"] = np.frombuffer(content, np.uint8)
        tensors["golden_scores"] = self.golden_scores
        tensors["validation.scores"], tensors["validation.labels"] = self.val_scores, self.val_labels
        return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def load(path: Path | str, *, verify: bool = False) -> Bundle:
    """The bundle in the file `path`; with `verify`, its golden images are predicted and compared first.

    Raises DataError where the file is missing, damaged or no bundle; ParityError where a golden image differs.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; accepted: a .lenext bundle, such as {path / 'best.lenext'}")
    try:
        path.open("rb").close()  # of a file that may not be read safetensors says that there is none
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get("lenext", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; accepted: a .lenext bundle, such as a run's best.lenext") from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
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
            *_validation(arrays, len(metadata["classes"])),
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
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in classifier.state_dict().items()}
        return {**arrays, "scale": np.array([classifier.scale], np.float64)}
    assert isinstance(classifier, Classical)
    return classifier.arrays()


def _validation(arrays: dict[str, NDArray[Any]], classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and labels of validation images; none where the bundle was made before there were any in it."""
    if "validation.scores" not in arrays:
        return _no_validation(classes)
    scores, labels = arrays["validation.scores"], arrays["validation.labels"]
    if scores.shape != (len(labels), classes) or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
        raise ValueError(f"validation scores {list(scores.shape)} of {len(labels)} labels and {classes} classes")
    return scores, labels


def _no_validation(classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.empty((0, classes), np.float32), np.empty(0, np.int64)


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
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items() if key != "scale"}
    model = ConvNet(
        network,
        classes,
        settings,
        mean=arrays["mean"],
        std=arrays["std"],
        mirror=model_spec.mirror,
        shift=model_spec.shift,
        scale=float(arrays["scale"][0]) if "scale" in arrays else 1.0,  # older bundles have none
    )
    model.load_state_dict(tensors)
    return model.eval()


def _scores_of_files(classifier: Classifier, files: Sequence[bytes]) -> NDArray[np.float32]:
    if not files:
        return np.empty((0, len(classifier.classes)), np.float32)
    return classifier.scores(np.stack([preprocess(content, classifier.preprocess) for content in files]))
