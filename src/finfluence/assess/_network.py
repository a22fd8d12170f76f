"""The posterior of many effects by a small network that was fitted to worlds of a wide prior."""

from functools import cache
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy.special import expit, softmax

from finfluence.assess._effect_laws import EffectLaws

NETWORK_PARTS = 5
_HEADS, _AT_ONCE, _FINEST = 4, 256, 0.02


def network_file() -> Path:
    """Return where the network's weights lie."""
    return Path(__file__).with_name("inclusion.safetensors")


def network_prior() -> str:
    """Return the worlds that the network was fitted to, in words.

    Returns
    -------
    str

    Examples
    --------
    >>> "uniform in (0, 1)" in network_prior()
    True
    """
    with safe_open(network_file(), "numpy") as file:
        return str(file.metadata()["prior"])


def network_laws(difference: np.ndarray, se: np.ndarray, predicted: np.ndarray | None) -> EffectLaws:
    r"""Return the posterior of each effect as the network says it, five normal laws a row.

    With z and p, difference and prediction over the standard error, the means are σ(c) z + d p + m, and c, d, m, the
    standard deviations and the chances are read off the rows together (three layers of attention). More than 256 rows
    are read in groups that are spread over all of them.

    Returns
    -------
    EffectLaws
    """
    weights, n = _weights(), len(se)
    largest = float(np.abs(difference).max())
    se = np.maximum(se, 1e-9 * largest) if largest else np.ones(n)
    share, mean, sd = (np.empty((NETWORK_PARTS, n)) for _ in range(3))
    groups = -(-n // _AT_ONCE)
    for start in range(groups):
        rows = slice(start, None, groups)
        z = difference[rows] / se[rows]
        p = np.zeros(len(z)) if predicted is None else predicted[rows] / se[rows]
        said = _said(weights, _tokens(z, p, predicted is not None))
        by_z, by_prediction, shift, spread, chance = np.split(said, 5, axis=1)
        share[:, rows] = softmax(chance, axis=1).T
        mean[:, rows] = ((expit(by_z) * z[:, None] + by_prediction * p[:, None] + shift) * se[rows, None]).T
        sd[:, rows] = ((np.logaddexp(0, spread) + _FINEST) * se[rows, None]).T
    return EffectLaws(np.zeros(n), share, mean, sd, float("nan"), False)


def _tokens(z: np.ndarray, p: np.ndarray, there: bool) -> np.ndarray:
    size = max(float(np.sqrt(np.mean(p**2))), 1e-9)
    scaled, one = p / size, np.ones(len(z))
    each = [
        np.arcsinh(z),
        np.arcsinh(p),
        np.arcsinh(scaled),
        np.arcsinh(z * scaled),
        there * np.clip(np.log(size), -5, 5) * one,
        np.log(max(float(np.sqrt(np.mean(z**2))), 1e-9)) * one,
        there * one,
    ]
    return np.stack(each, axis=1)


def _said(weights: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    def normed(name: str, x: np.ndarray) -> np.ndarray:
        middle = x - x.mean(1, keepdims=True)
        scaled = middle / np.sqrt((middle**2).mean(1, keepdims=True) + 1e-5)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    h = linear("read", tokens)
    for block in (f"blocks.{k}" for k in range(sum(name.endswith("join.bias") for name in weights))):
        q, k, v = (
            part.reshape(len(h), _HEADS, -1).transpose(1, 0, 2)
            for part in np.split(linear(f"{block}.attend", normed(f"{block}.norm", h)), 3, axis=1)
        )
        seen = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]), axis=2) @ v
        h = h + linear(f"{block}.join", seen.transpose(1, 0, 2).reshape(len(h), -1))
        wide = np.maximum(linear(f"{block}.wide", normed(f"{block}.second", h)), 0)
        h = h + linear(f"{block}.narrow", wide)
    return linear("say", normed("last", h))


@cache
def _weights() -> dict[str, np.ndarray]:
    with safe_open(network_file(), "numpy") as file:
        return {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
