"""Logistic regressions on the same images: what dattri compares beside an MLP."""

from dataclasses import replace

import numpy as np
from torch import nn

from finfluence.jobs.bench.data._digits import DIGITS
from finfluence.jobs.bench.data._fashion_mnist import FASHION_MNIST
from finfluence.jobs.bench.data._mnist_5k import MNIST_5K
from finfluence.jobs.bench.data._networks import mlp
from finfluence.runs import SGD

MEAN, DEVIATION = 0.1307, 0.3081
"""Of the pixels of MNIST, from 0 to 1."""


def standardised() -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST's 5,000 images with pixels of mean 0 and deviation 1, and their digits."""
    x, y = MNIST_5K.read()
    return (x - np.float32(MEAN)) / np.float32(DEVIATION), y


def small(seed: int) -> nn.Module:
    """Return a logistic regression on 8 × 8 pixels."""
    return mlp(64, 10, seed=seed)


def large(seed: int) -> nn.Module:
    """Return a logistic regression on 28 × 28 pixels."""
    return mlp(784, 10, seed=seed)


DIGITS_LINEAR = replace(
    DIGITS,
    name="digits-linear",
    summary="handwritten digits, 8 × 8 pixels; logistic regression, SGD",
    model=small,
)
FASHION_MNIST_LINEAR = replace(
    FASHION_MNIST,
    name="fashion-mnist-linear",
    summary="clothes, 28 × 28 pixels; logistic regression, SGD",
    model=large,
    optimizer=SGD(lr=0.05),
)
MNIST_5K_LINEAR = replace(
    MNIST_5K,
    name="mnist-5k-linear",
    summary="MNIST, 28 × 28 standardised pixels, 5,000 rows; logistic regression, SGD, as dattri trains it",
    read=standardised,
    model=large,
    optimizer=SGD(lr=0.01),
    batch_size=64,
    epochs=20,
)
