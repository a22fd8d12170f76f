"""Verification: an estimate of influence held against retraining."""

from finfluence.verification._budget import duration, seconds_of
from finfluence.verification._figures import Figure
from finfluence.verification._plan import Plan
from finfluence.verification._verification import Verification
from finfluence.verification._verify import verify

__all__ = ["Figure", "Plan", "Verification", "duration", "seconds_of", "verify"]
