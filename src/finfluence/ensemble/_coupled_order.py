"""Batch orders of a run without some rows that stay as close as they can to those of the run with all rows."""

import numpy as np
import torch
from torch import Tensor

from finfluence._seeds import stream
from finfluence.runs import Recipe


def paired_order(recipe: Recipe, seed: int, epoch: int, keep: np.ndarray) -> list[Tensor]:
    """Return the batches of one epoch over the rows `keep`, coupled with those over all rows.

    The distribution is that of `recipe.epoch_order(seed, epoch, keep)` under a random seed; under one and the same seed
    only the places that held a removed row, and the last places of an epoch that runs out of rows, differ
    from `recipe.epoch_order(seed, epoch)`: common random numbers.

    Returns
    -------
    list of Tensor
        Row positions of each step.

    Notes
    -----
    Reshuffled: the first min(places, |keep|) places are a permutation of the kept rows, then a new one begins.
    Take the order of all rows. Its kept rows stay where they are; the free places among the first are taken by
    the kept rows left over, in their order. The construction commutes with every renaming of kept rows and the
    order of all rows is uniform, so that the result is uniform, too. Independent draws: each removed row is
    drawn again among the kept ones.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Rows
    >>> recipe = Recipe(
    ...     data=Rows(x=np.zeros((9, 1))), model=nn.Linear(1, 1), loss=lambda m, b: m(b["x"])[:, 0],
    ...     optimizer=SGD(lr=0.5), batch_size=3, epochs=1)
    >>> with_all = torch.cat(recipe.epoch_order(0, 0))
    >>> without = torch.cat(paired_order(recipe, 0, 0, np.delete(np.arange(9), with_all[1].item())))
    >>> (with_all != without).nonzero().ravel().tolist()
    [1, 8]
    """
    order = torch.cat(recipe.epoch_order(seed, epoch)).numpy().copy()
    rng = stream(seed, "paired order", epoch)
    inside = np.zeros(len(recipe.rows), dtype=bool)
    inside[keep] = True
    free = ~inside[order]
    if recipe.sampling == "independent":
        order[free] = keep[rng.integers(len(keep), size=free.sum())]
    else:
        first = min(len(order), len(keep))
        later = order[first:][~free[first:]]
        left = np.concatenate([later, rng.permutation(np.setdiff1d(keep, order))])
        order[:first][free[:first]] = left[: free[:first].sum()]
        for start in range(first, len(order), len(keep)):
            part = order[start : start + len(keep)]
            part[:] = rng.permutation(keep)[: len(part)]
    return list(torch.from_numpy(order).split(recipe.batch_size))
