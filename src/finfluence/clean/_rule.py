"""From who spoke to what to do: the whole decision rule is the table below."""

import numpy as np

HARMFUL, UNCLEAR, HELPFUL = "harmful", "unclear", "helpful"

# (influence says, loss doubts the label, model confidently names another label) -> (action, reason)
RULE: dict[tuple[str, bool, bool], tuple[str, str]] = {
    (HARMFUL, True, True): ("relabel", "both"),
    (HARMFUL, True, False): ("drop", "both"),
    (HARMFUL, False, True): ("drop", "influence"),
    (HARMFUL, False, False): ("drop", "influence"),
    (UNCLEAR, True, True): ("relabel", "loss"),
    (UNCLEAR, True, False): ("review", "loss"),
    (UNCLEAR, False, True): ("keep", ""),
    (UNCLEAR, False, False): ("keep", ""),
    (HELPFUL, True, True): ("review", "loss"),
    (HELPFUL, True, False): ("review", "loss"),
    (HELPFUL, False, True): ("keep", ""),
    (HELPFUL, False, False): ("keep", ""),
}


def act(harmful: np.ndarray, helpful: np.ndarray, loss: np.ndarray, differs: np.ndarray) -> np.ndarray:
    """Return an object array [n, 2] of (action, reason) by the table, row for row.

    Returns
    -------
    array

    Examples
    --------
    >>> yes, no = np.array([True]), np.array([False])
    >>> act(yes, no, no, yes).tolist(), act(no, yes, yes, yes).tolist()
    ([['drop', 'influence']], [['review', 'loss']])
    """
    says = np.where(harmful, HARMFUL, np.where(helpful, HELPFUL, UNCLEAR))
    chosen = [
        RULE[str(a), bool(b), bool(c)]
        for a, b, c in zip(says, loss, differs & np.ones_like(loss), strict=True)
    ]
    return np.array(chosen, dtype=object).reshape(-1, 2)
