"""Data sets of the benchmark, a file each; all of them install from packages, and nothing downloads by itself."""

from finfluence.jobs.bench.data._digits import DIGITS, DIGITS_ADAMW
from finfluence.jobs.bench.data._fashion_mnist import FASHION_MNIST
from finfluence.jobs.bench.data._film_reviews import FILM_REVIEWS
from finfluence.jobs.bench.data._linear import DIGITS_LINEAR, FASHION_MNIST_LINEAR, MNIST_5K_LINEAR
from finfluence.jobs.bench.data._mnist_5k import MNIST_5K
from finfluence.jobs.bench.data._networks import mlp

__all__ = [
    "DIGITS",
    "DIGITS_ADAMW",
    "DIGITS_LINEAR",
    "FASHION_MNIST",
    "FASHION_MNIST_LINEAR",
    "FILM_REVIEWS",
    "MNIST_5K",
    "MNIST_5K_LINEAR",
    "mlp",
]
