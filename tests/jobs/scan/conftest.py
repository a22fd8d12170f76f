"""Scans in tests about other things than the verdict on labels ask smaller forests about them."""

from small_forests import small_forests as small_forests
