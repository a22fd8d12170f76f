import io

import numpy as np
import pytest

from finfluence.errors import ConfigError
from finfluence.report import thumbnail


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_pixels_come_back(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the PNG back; it is in the extra `data`")
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    read = np.asarray(image.open(io.BytesIO(thumbnail(pixels))))
    assert np.array_equal(read, pixels.reshape(read.shape))


def test_shrinking_averages_whole_blocks() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the PNG back; it is in the extra `data`")
    pixels = np.repeat(np.repeat(np.array([[0, 200], [100, 60]], np.uint8), 50, axis=0), 50, axis=1)
    read = np.asarray(image.open(io.BytesIO(thumbnail(pixels, max_side=2))))
    assert read.tolist() == [[0, 200], [100, 60]]
    assert np.asarray(image.open(io.BytesIO(thumbnail(pixels[:, :7], max_side=64)))).shape == (50, 4)


def test_same_pixels_same_bytes() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert thumbnail(pixels) == thumbnail(pixels.copy())


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4)), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"expected uint8 pixels of shape \(height, width\)") as caught:
        thumbnail(pixels)
    assert f"got: {pixels.dtype} of shape {pixels.shape}" in str(caught.value)
