"""What stands beside "nothing is named": whether the network memorised, and how large an effect could be seen."""

from typing import Any

import numpy as np
from scipy.stats import norm

from finfluence.ingest import Table
from finfluence.jobs.scan._decisions import Decided
from finfluence.jobs.scan._estimate import Estimate
from finfluence.jobs.scan._options import HELD_OUT

POWER = 0.8


def learned_by_heart(estimate: Estimate, decided: Decided, train: Table) -> tuple[int, int] | None:
    """Count labels that models which have not seen them contradict, and those that the trained network predicts.

    Returns
    -------
    tuple[int, int] | None
        None for a regression, and where no label was judged.
    """
    frame = decided.decisions.frame
    if train.target.classes is None or "oof_loss" not in frame or not frame["oof_loss"].notna().any():
        return None
    contradicted = (frame["label"] != frame["predicted"]).to_numpy()
    fits = estimate.predicted.argmax(1) == train.y
    return int(contradicted.sum()), int((contradicted & fits).sum())


def visible_effect(estimate: Estimate, decided: Decided, fdr: float) -> dict[str, Any] | None:
    """Return how much a single row must raise the held-out loss to be named for it four times in five.

    (z at the level of one row among n and over all tests, plus z at a power of 0.8) × the median standard error of the
    hundred largest effects.

    Returns
    -------
    dict
        `needed`, `largest` (the largest estimate), `loss` (the held-out loss) and `unit`; None where that is unknown.
    """
    influence = estimate.influence
    data = influence.data.sel(query=HELD_OUT)
    values = influence.provenance.query_values
    if not influence.has_effect or values is None or not np.isfinite(data["p_value"].values).any():
        return None
    level = fdr / (decided.decisions.tests * len(influence.subsets))
    raised = data["effect"].values * int(data["sign"]) * influence.provenance.harmful_side
    largest = np.argsort(-raised, kind="stable")[:100]
    error = float(np.nanmedian(data["effect_se"].values[largest]))
    needed = (norm.isf(level / 2) + norm.isf(1 - POWER)) * error
    loss = float(np.mean([run[0] for run in values]))
    if not (np.isfinite(needed) and loss > 0):
        return None
    return {
        "needed": float(needed),
        "largest": float(np.nanmax(raised)),
        "loss": loss,
        "unit": str(data["unit"].item()),
    }
