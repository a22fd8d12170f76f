"""Arrays and pixels on a scale that suits a neural net, estimated on the training part."""

from dataclasses import dataclass, field

import numpy as np

from finfluence.errors import DataError, explain


@dataclass(eq=False)
class ArrayScaler:
    """Columns standardised and cut at ±3; constant columns are left out."""

    _keep: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _mean: np.ndarray = field(default_factory=lambda: np.empty(0))
    _scale: np.ndarray = field(default_factory=lambda: np.empty(0))
    dropped: dict[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()

    def fit(self, x: np.ndarray) -> "ArrayScaler":
        """Estimate from training rows `[n, features]`."""
        varies = (x != x[:1]).any(axis=0)
        self._keep = np.flatnonzero(varies)
        if len(self._keep) == 0:
            raise DataError(
                explain(
                    "features that differ between rows",
                    f"{x.shape[1]} constant columns",
                    "an array filled with one value",
                    "save the features of the samples in 'x'",
                )
            )
        largest = np.abs(x[:, self._keep]).max(axis=0)
        scaled = x[:, self._keep] / largest
        self._mean, self._scale = scaled.mean(axis=0) * largest, scaled.std(axis=0) * largest
        self.features = tuple(f"x{i}" for i in self._keep)
        self.dropped = {f"x{i}": "constant" for i in np.flatnonzero(~varies)}
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Return float32 `[n, features]`."""
        return np.clip((x[:, self._keep] - self._mean) / self._scale, -3, 3).astype(np.float32)


@dataclass(eq=False)
class PixelScaler:
    """Images with mean 0 and variance 1 in each channel over the training part."""

    _mean: np.ndarray = field(default_factory=lambda: np.empty(0))
    _scale: np.ndarray = field(default_factory=lambda: np.empty(0))

    def fit(self, pixels: np.ndarray) -> "PixelScaler":
        """Estimate from training images `[n, height, width, channels]`."""
        self._mean = pixels.mean(axis=(0, 1, 2), dtype=np.float64)
        self._scale = pixels.std(axis=(0, 1, 2), dtype=np.float64)
        self._scale[self._scale == 0] = 1.0
        return self

    def transform(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, channels, height, width]`."""
        result = np.moveaxis(pixels, -1, 1).astype(np.float32, order="C")
        result -= self._mean.astype(np.float32)[:, None, None]
        result /= self._scale.astype(np.float32)[:, None, None]
        return result


def to_pictures(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return images as uint8 to look at, `low` black and `high` white; four channels lose the last."""
    shown = pixels[..., :3] if pixels.shape[-1] == 4 else pixels
    if shown.dtype == np.uint8:
        return shown
    return np.round(np.clip((shown - low) / max(high - low, 1e-30), 0, 1) * 255).astype(np.uint8)
