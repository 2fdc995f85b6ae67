import base64
import io

import numpy as np
import pytest
from PIL import Image

from lenext.report.pictures import data_uri, tile


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_back_from_its_uri_pixel_for_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, channels), dtype=np.uint8)
    kind, content = data_uri(image).split(",")
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(decoded.reshape(image.shape), image)


def test_a_filter_is_gray_at_zero_and_full_at_its_largest_weight() -> None:
    weights = np.array([[[-0.5], [0.0], [0.25]]], dtype=np.float32)
    assert tile(weights)[:, :, 0].tolist() == [[0, 128, 191]]


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (3, 3), (4, 1)])
def test_any_number_of_channels_gives_a_picture(channels: int, shown: int) -> None:
    assert tile(np.ones((5, 5, channels), dtype=np.float32)).shape == (5, 5, shown)


def test_a_dead_or_broken_filter_is_gray() -> None:
    assert set(tile(np.zeros((2, 2, 1), dtype=np.float32)).flat) == {128}
    assert set(tile(np.full((2, 2, 1), np.nan, dtype=np.float32)).flat) == {128}
