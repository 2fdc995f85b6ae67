"""Convolution and pooling, number by number: what the layers of torch compute, as the lecture's slides define it.

Slow, and to be read: images are float64 [C, H, W] (batches of them are the same thing again), and every loop is one
of the formula's sums. Tests compare the layers with these.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Maps = NDArray[np.float64]


def convolve(
    image: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: int = 1, padding: int = 0
) -> Maps:
    """Image [c_in, H, W] and filters [c_out, c_in, k_h, k_w] to maps [c_out, m_h, m_w]; `bias` [c_out].

    A number of the output is the sum over the window below a filter, of products; `padding` zeros are put around the
    image. m = floor((H + 2 · padding - k) / stride) + 1; multiply-adds are c_out · m_h · m_w · c_in · k_h · k_w.
    """
    x, w = _padded(image, padding), np.asarray(weight, np.float64)
    c_out, c_in, k_h, k_w = w.shape
    b = np.zeros(c_out) if bias is None else np.asarray(bias, np.float64)
    _, m_h, m_w = _output(x.shape, (k_h, k_w), stride)
    y = np.empty((c_out, m_h, m_w))
    for o in range(c_out):
        for i in range(m_h):
            for j in range(m_w):
                total = b[o]
                for c in range(c_in):
                    for p in range(k_h):
                        for q in range(k_w):
                            total += w[o, c, p, q] * x[c, i * stride + p, j * stride + q]
                y[o, i, j] = total
    return y


def max_pool(image: ArrayLike, kernel: int, *, stride: int) -> Maps:
    """Image [C, H, W] to [C, m_h, m_w]: the largest number of each window."""
    return _pool(image, kernel, stride, max)


def average_pool(image: ArrayLike, kernel: int, *, stride: int) -> Maps:
    """Image [C, H, W] to [C, m_h, m_w]: the mean of each window."""
    return _pool(image, kernel, stride, lambda numbers: sum(numbers) / len(numbers))


def _pool(image: ArrayLike, kernel: int, stride: int, of_window: Callable[[list[float]], float]) -> Maps:
    x = np.asarray(image, np.float64)
    channels, m_h, m_w = _output(x.shape, (kernel, kernel), stride)
    y = np.empty((channels, m_h, m_w))
    for c in range(channels):
        for i in range(m_h):
            for j in range(m_w):
                window = [
                    float(x[c, i * stride + p, j * stride + q]) for p in range(kernel) for q in range(kernel)
                ]  # fmt: skip
                y[c, i, j] = of_window(window)
    return y


def _padded(image: ArrayLike, padding: int) -> Maps:
    x = np.asarray(image, np.float64)
    channels, height, width = x.shape
    framed = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                framed[c, i + padding, j + padding] = x[c, i, j]
    return framed


def _output(shape: tuple[int, ...], kernel: tuple[int, int], stride: int) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
