"""Scans by command ask small forests about labels."""

from small_forests import small_forests as small_forests
