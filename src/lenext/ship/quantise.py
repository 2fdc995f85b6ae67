"""A graph whose convolutions and matrix products are of 8-bit integers, chosen after training."""

import contextlib
import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORES = "scores"  # the graph's output from which on nothing is quantised: what follows only orders and compares


def quantise(proto: Any, images: NDArray[np.uint8]) -> Any:
    """The ONNX model `proto` with quantised weights and activations, whose ranges `images` uint8 [M, H, W, C] show.

    Symmetric weights a channel, activations a tensor, biases corrected: NNCF's method (Kozlov et al., Neural Network
    Compression Framework for Fast Model Inference, 2020), after Jacob et al., Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference, 2018.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says on import that there is no GPU
    import nncf

    nncf.set_log_level(logging.ERROR)
    after, made = [], {SCORES}
    for node in proto.graph.node:  # in the order in which they are computed
        if made.intersection(node.input):
            after.append(node.name)
            made.update(node.output)
    samples = nncf.Dataset([{"images": images[i : i + 1]} for i in range(len(images))])
    with contextlib.redirect_stdout(io.StringIO()):  # of progress
        return nncf.quantize(proto, samples, subset_size=len(images), ignored_scope=nncf.IgnoredScope(names=after))
