"""Image classification before convolutional networks."""

from lenext.classical.rung import Rung
from lenext.classical.svm import LinearSvm, fit

__all__ = ["RUNGS", "LinearSvm", "Rung", "fit"]

RUNGS = {
    "svm_linear": Rung(
        family="SVM",
        year=1995,
        paper="Cortes and Vapnik, Support-Vector Networks, 1995",
        accuracy="Fashion-MNIST 0.836",
        source="its README, linear SVM",
    ),
}
