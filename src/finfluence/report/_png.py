"""A small PNG from an array of pixels, written with zlib alone."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from finfluence.errors import ConfigError, explain

_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}


def thumbnail(pixels: NDArray[np.uint8], max_side: int = 64) -> bytes:
    r"""Return a PNG of `pixels`, shrunk by whole blocks until no side exceeds `max_side`.

    Parameters
    ----------
    pixels
        uint8 array of shape (height, width) or (height, width, channels), with 1 (grey), 2 (grey, alpha),
        3 (RGB) or 4 (RGBA) channels.
    max_side
        Longest side of the result in pixels.

    Returns
    -------
    bytes
        A PNG file; the same pixels give the same bytes.

    Raises
    ------
    ConfigError
        The array has another type or shape.

    Examples
    --------
    >>> thumbnail(np.zeros((128, 100), dtype=np.uint8))[:4]
    b'\x89PNG'
    """
    image = np.asarray(pixels)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in _COLOUR_TYPE or not image.size:
        raise ConfigError(
            explain(
                "uint8 pixels of shape (height, width) or (height, width, 1 to 4 channels)",
                f"{np.asarray(pixels).dtype} of shape {np.asarray(pixels).shape}",
                "pixels are still floats in [0, 1], or channels come first",
                "scale to 0..255 and cast to uint8; move channels last with numpy.moveaxis(x, 0, -1)",
            )
        )
    image = _shrink(image, max_side)
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _shrink(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    block = -(-max(image.shape[:2]) // max_side)
    if block <= 1:
        return image
    starts = [np.arange(0, side, block) for side in image.shape[:2]]
    total = np.add.reduceat(np.add.reduceat(image.astype(np.float64), starts[0], axis=0), starts[1], axis=1)
    sizes = [np.diff(np.append(s, side)) for s, side in zip(starts, image.shape[:2], strict=True)]
    return np.round(total / np.multiply.outer(*sizes)[:, :, None]).astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
