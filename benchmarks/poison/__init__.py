"""Finding poisoned instructions of a language model, and what taking them out does."""

from benchmarks.poison.attacks import read_clean

SHORT = 110, 70
"""Letters of prompts and answers, at most, of the rows that `benchmarks.language_cost --short` measures."""

__all__ = ["SHORT", "read_clean"]
