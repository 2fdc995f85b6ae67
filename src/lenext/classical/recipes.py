"""The tuned numbers: which parts each classical rung is made of, and what the images' size makes of its settings."""

from dataclasses import replace
from typing import Any

from lenext.classical import descriptors, machines
from lenext.classical.rung import Rung
from lenext.errors import UsageError
from lenext.spec import Codebook, Descriptors, Encoding, Run, Svm

# Pixels a side: from here on images are described as they are; and patches of a few pixels do not tell much any more
_LARGE, _PHOTOGRAPH = 48, 128

# Of many features the last steps to the minimum change no answer
_LOOSE = 0.02


def _words(descriptors: Descriptors, codebook: Codebook, encoding: Encoding) -> dict[str, Any]:
    return {
        "descriptors": descriptors,
        "codebook": codebook,
        "encoding": encoding,
        "svm": Svm(tolerance=_LOOSE),
    }


RUNGS: dict[str, Rung] = {
    "svm_linear": Rung(
        family="SVM",
        year=1995,
        paper="Cortes and Vapnik, Support-Vector Networks, 1995",
        recipe={"svm": Svm(sample=20_000)},
        accuracy="Fashion-MNIST 0.836",
        source="its README, linear SVM",
    ),
    "svm_rbf": Rung(
        family="SVM",
        year=1992,
        paper="Boser, Guyon and Vapnik, A Training Algorithm for Optimal Margin Classifiers, 1992",
        recipe={"svm": Svm(kernel="rbf", landmarks=8_000, sample=30_000, tolerance=_LOOSE)},
        accuracy="Fashion-MNIST 0.897",
        source="its README, RBF SVM",
    ),
    "bow_sift": Rung(
        family="bag of visual words",
        year=2004,
        paper="Csurka et al., Visual Categorization with Bags of Keypoints, 2004; Lowe 2004; Lazebnik et al. 2006",
        recipe=_words(Descriptors(), Codebook(), Encoding()),
    ),
    "hog_svm": Rung(
        family="HOG",
        year=2005,
        paper="Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005",
        recipe={"descriptors": Descriptors(kind="hog"), "svm": Svm(tolerance=_LOOSE)},
        accuracy="Fashion-MNIST 0.926",
        source="its README, HOG + SVM",
    ),
    "bow_surf": Rung(
        family="bag of visual words",
        year=2006,
        paper="Bay, Tuytelaars and Van Gool, SURF: Speeded Up Robust Features, 2006; Csurka et al. 2004",
        recipe=_words(Descriptors(kind="surf"), Codebook(), Encoding()),
    ),
    "vlad_sift": Rung(
        family="VLAD",
        year=2010,
        paper="Jégou et al., Aggregating Local Descriptors into a Compact Image Representation, 2010",
        recipe=_words(Descriptors(), Codebook(words=64, pca=62), Encoding(kind="vlad", pyramid=(1,), positions=True)),
    ),
    "fisher_sift": Rung(
        family="Fisher vector",
        year=2010,
        paper="Perronnin, Sánchez and Mensink, Improving the Fisher Kernel for Large-Scale Image Classification, 2010",
        recipe=_words(
            Descriptors(), Codebook(words=128, pca=62), Encoding(kind="fisher", pyramid=(1,), positions=True)
        ),
        accuracy="ILSVRC-2010 top-1 error 45.7 %",
        source="Krizhevsky et al. 2012, SIFT + FVs",
    ),
}


# Settings that only some choices of another one read
_READ_BY = {
    "descriptors.bins": ("kind", ("hog", "dense_sift")),
    "descriptors.step": ("kind", ("dense_sift",)),
    "descriptors.colour": ("kind", ("dense_sift", "sift")),
    "descriptors.root": ("kind", ("dense_sift", "sift")),
    "descriptors.keypoints": ("kind", ("sift", "surf")),
    "encoding.softness": ("kind", ("soft",)),
    "svm.gamma": ("kernel", machines.WITH_GAMMA),
    "svm.landmarks": ("kernel", machines.WITH_GAMMA),
    "svm.exact": ("kernel", ("rbf", *machines.OF_HISTOGRAMS)),
}


def check(run: Run) -> None:
    """Raises UsageError where parts of `run` do not go together, are not read, or need a library that is missing."""
    given, encoding, svm = run.descriptors, run.encoding, run.svm
    if given is not None:
        if (given.kind == "hog") != (run.codebook is None):
            accepted = "hog" if run.codebook is None else "dense_sift, sift, surf"
            raise UsageError(f"descriptors.kind: given {given.kind!r}, accepted for {run.model.name}: {accepted}")
        descriptors.check(given)
    signed = encoding is not None and encoding.kind in ("vlad", "fisher")
    if signed and svm is not None and svm.kernel in machines.OF_HISTOGRAMS:
        raise UsageError(
            f"svm.kernel: given {svm.kernel!r}, which compares numbers of 0 or more, accepted for {run.model.name}: "
            "linear, rbf"
        )
    recipe = RUNGS[run.model.name].recipe
    for path, (choice, readers) in _READ_BY.items():
        section, key = path.split(".")
        part = getattr(run, section)
        if part is None or getattr(part, choice) in readers:
            continue
        if getattr(part, key) != getattr(recipe[section], key):
            raise UsageError(
                f"{path}: {getattr(part, choice)} does not read it; accepted with {section}.{choice}: "
                f"{', '.join(readers)}"
            )


def settle(run: Run, size: int) -> Run:
    """`run` with what depends on the images' size, in pixels a side, filled in."""
    given = run.descriptors
    if given is None:
        return run
    # Small pictures hold more than their pixels' grid shows: gradients between them are worth describing
    side = given.side or (size if size >= _LARGE else 2 * size)
    if given.kind in ("sift", "surf"):  # detectors want room: SURF's finds nothing within 15 pixels of the edge
        side = given.side or max(size, min(4 * size, 256))
        bins, step = None, None
    elif given.kind == "hog":
        bins, step = given.bins or ((4, 8) if side < _PHOTOGRAPH else (8, 16)), None
    else:
        small = side < _PHOTOGRAPH
        bins = given.bins or ((4, 6) if small else (4, 6, 8, 10))
        step = given.step or (4 if small else 8)
    return replace(run, descriptors=replace(given, side=side, bins=bins, step=step))
