"""Decisions made by hand, to test what is done with them."""

import numpy as np
import pandas as pd

from finfluence.clean import COLUMNS, Decisions


def decisions(ids, actions, labels=None, fdr=0.1):
    """One row per id, with the wanted action; relabelled rows get `labels[id]`."""
    n = len(ids)
    flagged = np.array([action != "keep" for action in actions])
    loss = np.array([action in ("relabel", "review") for action in actions])
    labels = labels or {}
    new = [labels.get(i) if a == "relabel" else None for i, a in zip(ids, actions, strict=True)]
    frame = pd.DataFrame(
        {
            "row_id": ids,
            "mu": np.where(flagged, -9.0, 0.1),
            "own_loss": np.where(loss, 5.0, 0.01),
            "oof_loss": np.nan,
            "p_wrong": np.nan,
            "label": pd.Series(["old"] * n, dtype=object),
            "predicted": pd.Series(new, dtype=object),
            "confidence": 0.9,
            "q_influence": np.where(flagged & ~loss, 0.01, 1.0),
            "q_opposite": 1.0,
            "q_loss": np.where(loss, 0.02, 1.0),
            "q_value": np.where(flagged, 0.04, 1.0),
            "flagged": flagged,
            "suggested_action": pd.Series(actions, dtype=object),
            "suggested_label": pd.Series(new, dtype=object),
            "reason": pd.Series(np.where(loss, "loss", np.where(flagged, "influence", "")), dtype=object),
        }
    )
    return Decisions(frame[list(COLUMNS)], fdr, 2, 0.8, "harmful")
