"""Experiments of the benchmark, a file each."""

from finfluence.jobs.bench.experiments._mislabels import Mislabels

__all__ = ["Mislabels"]
