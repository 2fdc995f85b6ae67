"""A classical rung from images to a classifier: vocabulary, features, machine, one step after the other.

The images are gone through as a stream, in a random order of which every beginning holds the classes in their shares,
and their features go to a file that is mapped into memory: what has to be held at a time does not grow with their
number. Each step's outcome is kept in a folder, so that a fit that was stopped goes on at the step it was in (within
the features: at the image it was at).
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lenext.classical import descriptors, machines
from lenext.classical.codebook import Vocabulary, learn
from lenext.classical.evidence import evidence_of
from lenext.classical.features import (
    Features,
    HogFeatures,
    PixelFeatures,
    Pixels,
    WordFeatures,
    restore,
    stream,
)
from lenext.classical.gallery import Words, words_of
from lenext.classical.machines import Machine
from lenext.classical.recipes import settle
from lenext.data import Preprocess
from lenext.errors import DataError
from lenext.record import replacing, write_whole
from lenext.spec import Run, Svm

Labels = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

_SAMPLE_IMAGES = 5_000  # that a vocabulary is learnt from, at most
_LEAST_PER_WORD = 10  # patches
_LEARNING_MACS = 1e10  # per second, a low estimate of a processor's for k-means and Gaussian mixtures
_SAVE_SECONDS = 5.0  # between two notes of how far the features are
_VOCABULARY_SHARE, _FEATURES_SHARE = 0.25, 0.6  # of what is left of a budget when the step begins


@dataclass(frozen=True, eq=False)
class Classical:
    """A classifier: ``scores = scale * machine(features(images))``."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    features: Features
    machine: Machine
    scale: float = 1.0  # turns margins into scores whose softmax is probabilities

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], run: Run, classes: tuple[str, ...], preprocess: Preprocess
    ) -> "Classical":
        """The classifier that `run` made and whose `arrays` method gave these.

        Raises DataError where they do not fit.
        """
        if "scale" not in arrays or arrays["scale"].shape != (1,):
            raise DataError(f"expected the array scale [1] among {', '.join(arrays)}")
        parts: dict[str, dict[str, NDArray[Any]]] = {"features": {}, "machine": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = array
            elif name != "scale":
                raise DataError(f"expected arrays of features and of a machine, given {name}")
        features = restore(parts["features"], run, (preprocess.size, preprocess.size, preprocess.channels))
        assert run.svm is not None
        machine = machines.from_arrays(
            parts["machine"], kernel=run.svm.kernel, features=features.size, classes=len(classes)
        )
        return cls(classes, preprocess, features, machine, float(arrays["scale"][0]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has to be stored."""
        return {
            **{f"features.{name}": array for name, array in self.features.arrays().items()},
            **{f"machine.{name}": array for name, array in self.machine.arrays().items()},
            "scale": np.array([self.scale], np.float64),
        }

    def scores(self, images: Pixels) -> NDArray[np.float32]:
        """Images uint8 [N, H, W, C] to scores float32 [N, K]."""
        rows = np.arange(len(images))
        chunks = [np.float32(self.scale) * self.machine.scores(part) for part in stream(self.features, images, rows)]
        return np.concatenate(chunks) if chunks else np.empty((0, len(self.classes)), np.float32)

    def templates(self) -> NDArray[np.float32] | None:
        """What speaks for each class, float32 [K, H, W, C], where the machine is linear in the pixels."""
        machine = self.machine
        if not isinstance(self.features, PixelFeatures) or not isinstance(machine, machines.LinearMachine):
            return None
        return None if machine.feature_map else machine.weights.reshape(-1, *self.features.shape)

    def evidence(self, image: Pixels, label: int) -> NDArray[np.float32] | None:
        """How much of the score of class number `label` is from where in `image` uint8 [H, W, C]: float32 [H, W].

        The sum is the score but for the class's bias. None where the machine is not linear.
        """
        found = evidence_of(self.features, self.machine, image, label)
        return None if found is None else np.float32(self.scale) * found

    def words(self, images: Pixels, judged: Pixels, labels: Labels) -> Words | None:
        """Some visual words as they occur in `images`, and where they lie in some of the `judged`, of given `labels`.

        None where the features are not made of words.
        """
        return words_of(self.features, images, judged, labels) if isinstance(self.features, WordFeatures) else None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier, and what is to be known of its making."""

    classifier: Classical
    run: Run  # with every setting filled in
    trained_on: int  # images
    solver: str  # which way the machine was found, in words
    note: str  # what is worth knowing beside, in a sentence or none
    seconds: dict[str, float]  # of the steps: vocabulary, features, machine


def fit(
    run: Run,
    images: Pixels,
    labels: Labels,
    val_images: Pixels,
    val_labels: Labels,
    *,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    folder: Path,
    deadline: float | None = None,
    judged_after: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Fitted:
    """The classifier that `run` describes, of `images` uint8 [N, H, W, C] and `labels` int64 [N].

    The validation images serve to make its scores probabilities; without any, the training images do. `folder` takes
    what each step leaves: a second call with the same arguments goes on from there, and it may be deleted when the fit
    is done. With a `deadline`, of time.perf_counter(), from which the scoring of `judged_after` more images is taken
    off, every step makes do with as many images as it has time for, and `note` says so. Dense patches are described and
    encoded on `device`, all else on the CPU. `progress` is told what is
    going on, how much of it is done, and of how much. The same arguments give the same classifier, except that a
    deadline depends on the machine.

    Raises DataError where a class has no training images, where there are fewer than two classes, and where nothing
    can be described in any image; UsageError for settings that do not go together.
    """
    # Not at the top: neither the ladder's table nor a prediction needs it, and it is slow to import
    from lenext.evaluate.calibration import fit_temperature

    tell = progress or (lambda *_: None)
    counts = np.bincount(labels, minlength=len(classes))
    if len(classes) < 2:
        raise DataError(f"an SVM needs at least 2 classes; given {len(classes)}")
    if not counts.all():
        raise DataError(f"class {classes[int(counts.argmin())]!r} has no training images; an SVM needs one of each")
    run, svm = settle(run, preprocess.size), run.svm
    assert svm is not None
    order = machines.stratified_order(labels, run.seed)
    folder.mkdir(parents=True, exist_ok=True)

    times = [time.perf_counter()]
    features = _features(run, images, order, folder, _part(deadline, _VOCABULARY_SHARE), device, tell)
    times.append(time.perf_counter())
    vectors = _vectors(features, images, order, folder, deadline, judged_after, 2 * len(classes), tell)
    times.append(time.perf_counter())
    if deadline is not None:
        deadline -= (times[-1] - times[-2]) * judged_after / len(vectors)
    machine = machines.fit(
        vectors, labels[order[: len(vectors)]], len(classes), svm, seed=run.seed, deadline=deadline, progress=tell
    )
    times.append(time.perf_counter())

    notes = [machine.note] if machine.note else []
    if len(vectors) < len(images):
        notes.insert(0, f"described {len(vectors):,} of {len(images):,} images, as the budget allows no more")
    classifier = Classical(classes, preprocess, features, machine.machine)
    held_out, truth = (val_images, val_labels) if len(val_labels) else (images[order[:5000]], labels[order[:5000]])
    scale = fit_temperature(classifier.scores(held_out), truth)
    return Fitted(
        classifier=dataclasses.replace(classifier, scale=scale),
        run=dataclasses.replace(run, svm=machine.settings),
        trained_on=machine.trained_on,
        solver=f"{machine.solver}; {_chosen(machine.settings)}",
        note="; ".join(notes),
        seconds=dict(zip(("vocabulary", "features", "machine"), np.diff(times).tolist(), strict=True)),
    )


def _features(
    run: Run,
    images: Pixels,
    order: Labels,
    folder: Path,
    deadline: float | None,
    device: torch.device | str,
    progress: Progress,
) -> Features:
    """The features that `run` describes; where they have a vocabulary, it is learnt from some of the images."""
    shape = images.shape[1:]
    if run.descriptors is None:
        assert run.svm is not None
        return PixelFeatures.of(images, signed=run.svm.kernel not in machines.OF_HISTOGRAMS)
    if run.encoding is None or run.codebook is None:
        return HogFeatures(run.descriptors, shape)
    path = folder / "vocabulary.safetensors"
    if path.exists():
        vocabulary = Vocabulary.from_arrays(load_file(path))
    else:
        values, places = _sample(run, images, order, deadline, progress)
        vocabulary = learn(
            values,
            places,
            run.codebook,
            run.encoding,
            seed=run.seed,
            progress=lambda done, total: progress("learning the vocabulary", done, total),
        )
        with replacing(path) as temporary:
            save_file(vocabulary.arrays(), temporary)
    dense = run.descriptors.kind == "dense_sift"
    return WordFeatures(run.descriptors, run.encoding, vocabulary.to(device if dense else "cpu"), shape)


def _sample(
    run: Run, images: Pixels, order: Labels, deadline: float | None, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches to learn a vocabulary from, drawn from some images at random: values [n, D], places [n, 3].

    As many as it is learnt from in the time until the `deadline`, in which they have to be described, too.
    """
    assert run.descriptors is not None
    assert run.codebook is not None
    book, began = run.codebook, time.perf_counter()
    chosen = order[: min(len(order), _SAMPLE_IMAGES)]
    most = book.sample
    if deadline is not None:
        length = descriptors.layout(run.descriptors, images.shape[1], images.shape[3]).length
        affordable = 0.5 * max(0.0, deadline - began) * _LEARNING_MACS / (book.words * length * book.iterations)
        most = int(min(most, max(affordable, _LEAST_PER_WORD * book.words)))
    each = -(-most // len(chosen))
    generator = torch.Generator().manual_seed(run.seed)
    size = max(1, min(32, len(chosen)))
    values, places = [], []
    for start in range(0, len(chosen), size):
        patches = descriptors.extract(images[chosen[start : start + size]], run.descriptors)
        # The valid ones of each image in a random order, the first few
        rank = torch.rand(patches.valid.shape, generator=generator).masked_fill(~patches.valid, 2.0)
        drawn = rank.argsort(dim=1)[:, :each]
        rows = torch.arange(len(drawn))[:, None]
        kept = patches.valid[rows, drawn]
        values.append(patches.values[rows, drawn][kept])
        places.append(patches.places.expand(len(drawn), -1, -1)[rows, drawn][kept])
        progress("describing patches for the vocabulary", min(start + size, len(chosen)), len(chosen))
        if deadline is not None and time.perf_counter() > began + 0.5 * (deadline - began):
            break
    return torch.cat(values)[:most], torch.cat(places)[:most]


def _vectors(
    features: Features,
    images: Pixels,
    order: Labels,
    folder: Path,
    deadline: float | None,
    judged_after: int,
    least: int,
    progress: Progress,
) -> NDArray[Any]:
    """The features of ``images[order]``, or of as many as there is time for, but so many at `least`: float [n, D].

    They are in a file that is mapped into memory, of half precision but for pixels, whose machines are compared with
    other solvers to the last digits.
    """
    path, note = folder / "features.npy", folder / "features.json"
    dtype = np.dtype(np.float32 if isinstance(features, PixelFeatures) else np.float16)
    if note.exists() and path.exists():
        store = np.lib.format.open_memmap(path, mode="r+")
        done = int(json.loads(note.read_text(encoding="utf-8"))["images"])
    else:
        needed, free = len(order) * features.size * dtype.itemsize, shutil.disk_usage(folder).free
        if needed > free:
            raise DataError(
                f"the features of {len(order):,} images take {needed / 1e9:,.1f} GB, and {folder} has "
                f"{free / 1e9:,.1f} GB left; fewer words, a smaller descriptors.side or another --out would do"
            )
        store = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(order), features.size))
        done = 0
    began = saved = time.perf_counter()
    first = done
    for vectors in stream(features, images, order[done:]):
        store[done : done + len(vectors)] = vectors
        done += len(vectors)
        progress("describing images", done, len(order))
        now = time.perf_counter()
        if now > saved + _SAVE_SECONDS:
            store.flush()
            write_whole(note, json.dumps({"images": done}).encode())
            saved = now
        if deadline is not None and done >= least:
            # The images to be judged later take as long each
            later = (now - began) / (done - first) * judged_after
            if now > began + _FEATURES_SHARE * (deadline - later - began):
                break
    store.flush()
    write_whole(note, json.dumps({"images": done}).encode())
    return store[:done]


def _chosen(svm: Svm) -> str:
    return f"C = {svm.c:.3g}" + (f", γ = {svm.gamma:.3g} / mean squared distance" if svm.gamma else "")


def _part(deadline: float | None, share: float) -> float | None:
    """The time at which a `share` of what is left until the `deadline` is over."""
    if deadline is None:
        return None
    now = time.perf_counter()
    return now + share * (deadline - now)
