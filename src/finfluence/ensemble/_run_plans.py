"""Which runs a retraining consists of: seeds and rows of every arm, so that more can be added later."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finfluence._files import digest
from finfluence._seeds import stream, torch_seed
from finfluence.ensemble._stacked import RunSpec
from finfluence.errors import ConfigError, explain
from finfluence.runs import Recipe
from finfluence.runs.describe import Subsets

Vary = Literal["order", "init", "all"]


@dataclass(frozen=True)
class Seeds:
    """Seeds of the k-th run of an arm. What does not vary keeps the master seed."""

    master: int
    vary: Vary

    def run(self, keep: np.ndarray | None, k: int, paired: bool = False) -> RunSpec:
        """Return run k of the arm that trains on the rows `keep`.

        Arms draw independent seeds; paired ones share those of run k on all rows (common random numbers).

        Returns
        -------
        RunSpec
        """
        arm = 0 if keep is None or paired else int(digest(keep.tobytes()), 16)
        order = self.master if self.vary == "init" else torch_seed(self.master, "retrain order", arm, k)
        init = self.master if self.vary == "order" else torch_seed(self.master, "retrain init", arm, k)
        return RunSpec(init, order, keep, paired)


def covers(recipe: Recipe, vary: Vary, stochastic: bool) -> list[str]:
    """Name the sources of randomness that differ between runs.

    Returns
    -------
    list of str

    Raises
    ------
    ConfigError
        Another word, or only the initialisation is to vary, and the recipe has a fixed one.
    """
    if vary not in ("order", "init", "all"):
        raise ConfigError(
            explain(
                "vary to be 'order', 'init' or 'all'", repr(vary), "a mistyped word", "use one of the three"
            )
        )
    if vary == "init" and not recipe.random_initialisation:
        raise ConfigError(
            explain(
                "a model factory with vary='init'",
                "a fixed nn.Module: every run would be the same",
                "the recipe was built for fine-tuning from given weights",
                "pass model=callable(seed) -> nn.Module to the recipe, or vary='order'",
            )
        )
    named = [] if vary == "init" else ["batch order"] + ["dropout"] * stochastic
    return named + ["initialisation"] * (vary != "order" and recipe.random_initialisation)


def without(n_rows: int, removed: np.ndarray) -> np.ndarray:
    """Return the positions of all rows but the removed ones."""
    return np.delete(np.arange(n_rows, dtype=np.int64), removed)


def leave_out(
    seeds: Seeds, n_rows: int, subsets: Subsets, counts: np.ndarray, paired: bool = False
) -> list[list[RunSpec]]:
    """Return the runs on all rows, then those without each subset: `counts` [1 + S] of them."""
    keeps = [None, *(without(n_rows, rows) for rows in subsets.positions)]
    return [
        [seeds.run(keep, k, paired and keep is not None) for k in range(count)]
        for keep, count in zip(keeps, counts.tolist(), strict=True)
    ]


def random_halves(
    seeds: Seeds, n_rows: int, subsets: Subsets, halves: int
) -> tuple[np.ndarray, list[RunSpec], list[RunSpec]]:
    """Draw random halves: half h keeps every subset with probability ½, and always the rows in no subset.

    Returns
    -------
    tuple
        Which subsets each half keeps [H, S], and the two runs of each half.
    """
    kept = np.stack(
        [stream(seeds.master, "half subsets", h).random(len(subsets)) < 0.5 for h in range(halves)]
    )
    keeps = []
    for row in kept:
        out = [rows for rows, inside in zip(subsets.positions, row, strict=True) if not inside]
        keeps.append(without(n_rows, np.concatenate(out)) if out else np.arange(n_rows, dtype=np.int64))
    # numbered by half, so that two halves that happen to keep the same rows are still trained apart
    first, second = ([seeds.run(keep, 2 * h + k) for h, keep in enumerate(keeps)] for k in (0, 1))
    return kept, first, second
