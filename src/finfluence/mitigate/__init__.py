"""When rows cannot be deleted: a head that undoes what noisy pre-training did to a frozen encoder."""

from finfluence.mitigate._compare import HeadComparison, compare_heads
from finfluence.mitigate._diagnostics import Spectrum, spectrum
from finfluence.mitigate._heads import HEADS, Head, HeadOptions, nmtune
from finfluence.mitigate._reweight import reweight
from finfluence.mitigate._saved import load_head, save_head
from finfluence.mitigate._terms import Terms, consistency, covariance, dominant, terms

__all__ = [
    "HEADS", "Head", "HeadComparison", "HeadOptions", "Spectrum", "Terms", "compare_heads", "consistency",
    "covariance", "dominant", "load_head", "nmtune", "reweight", "save_head", "spectrum", "terms",
]  # fmt: skip
