"""The tuned numbers: which parts each classical rung is made of, and what the images' size makes of its settings."""

from dataclasses import replace

from lenext.classical import descriptors
from lenext.classical.rung import Rung
from lenext.errors import UsageError
from lenext.spec import Codebook, Descriptors, Encoding, Run, Svm

# Pixels a side: from here on images are described as they are; and patches of a few pixels do not tell much any more
_LARGE, _PHOTOGRAPH = 48, 128

# Kernels that compare numbers of 0 or more
HISTOGRAMS = ("chi2", "exp_chi2", "intersection")

# Of many features the last steps to the minimum change no answer
_LOOSE = 0.02

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
        recipe={
            "descriptors": Descriptors(),
            "codebook": Codebook(),
            "encoding": Encoding(),
            "svm": Svm(tolerance=_LOOSE),
        },
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
        recipe={
            "descriptors": Descriptors(kind="surf"),
            "codebook": Codebook(),
            "encoding": Encoding(),
            "svm": Svm(tolerance=_LOOSE),
        },
    ),
    "vlad_sift": Rung(
        family="VLAD",
        year=2010,
        paper="Jégou et al., Aggregating Local Descriptors into a Compact Image Representation, 2010",
        recipe={
            "descriptors": Descriptors(),
            "codebook": Codebook(words=64, pca=62),
            "encoding": Encoding(kind="vlad", pyramid=(1,), positions=True),
            "svm": Svm(tolerance=_LOOSE),
        },
    ),
    "fisher_sift": Rung(
        family="Fisher vector",
        year=2010,
        paper="Perronnin, Sánchez and Mensink, Improving the Fisher Kernel for Large-Scale Image Classification, 2010",
        recipe={
            "descriptors": Descriptors(),
            "codebook": Codebook(words=128, pca=62),
            "encoding": Encoding(kind="fisher", pyramid=(1,), positions=True),
            "svm": Svm(tolerance=_LOOSE),
        },
        accuracy="ILSVRC-2010 top-1 error 45.7 %",
        source="Krizhevsky et al. 2012, SIFT + FVs",
    ),
}


def check(run: Run) -> Run:
    """`run` itself. Raises UsageError where its parts do not go together, or ask for a library that is missing."""
    given = run.descriptors
    if given is not None:
        if (given.kind == "hog") != (run.codebook is None):
            accepted = "hog" if run.codebook is None else "dense_sift, sift, surf"
            raise UsageError(f"descriptors.kind: given {given.kind!r}, accepted for {run.model.name}: {accepted}")
        descriptors.check(given)
    if run.svm is not None and run.encoding is not None:
        kernel, encoding = run.svm.kernel, run.encoding.kind
        if kernel in HISTOGRAMS and encoding in ("vlad", "fisher"):
            raise UsageError(
                f"svm.kernel: given {kernel!r}, which compares numbers of 0 or more, accepted with {encoding}: "
                "linear, rbf"
            )
    return run


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
