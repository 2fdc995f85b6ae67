"""Arrays as pictures in the page: PNG data URIs."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lenext.errors import UsageError

CRISP = 160  # pictures with a smaller side are enlarged with sharp pixels


def read(path: Path) -> NDArray[Any] | None:
    """The array in a .npy file, None where there is no such file. Raises UsageError for a damaged one."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is damaged ({error}); expected a NumPy array as lenext writes it") from error
    return array


def is_small(image: NDArray[np.uint8]) -> bool:
    """Whether `image`, uint8 [H, W, C], has so few pixels that each should be seen."""
    return bool(min(image.shape[:2]) < CRISP)


def data_uri(image: NDArray[np.uint8]) -> str:
    """`image`, uint8 [H, W, 1 or 3], as ``data:image/png;base64,…``."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def tile(weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """One filter, float [h, w, C], as uint8 [h, w, 1 or 3]: zero is mid-gray, its largest weight black or white.

    Each filter is scaled by its own largest weight: the shape is to be seen, not the strength. Weights over other
    than 1 or 3 channels are averaged to gray.
    """
    if weights.shape[2] not in (1, 3):
        weights = weights.mean(axis=2, keepdims=True)
    weights = np.nan_to_num(weights, posinf=0.0, neginf=0.0)
    largest = float(np.abs(weights).max(initial=0.0))
    return np.round(127.5 + 127.5 * weights / (largest or 1.0)).astype(np.uint8)
