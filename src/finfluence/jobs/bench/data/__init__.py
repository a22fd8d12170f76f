"""Data sets of the benchmark, a file each; all of them install from packages, and nothing downloads by itself."""

from finfluence.jobs.bench.data._digits import DIGITS
from finfluence.jobs.bench.data._fashion_mnist import FASHION_MNIST
from finfluence.jobs.bench.data._mnist_5k import MNIST_5K

__all__ = ["DIGITS", "FASHION_MNIST", "MNIST_5K"]
