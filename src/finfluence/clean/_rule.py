"""From who spoke to what to do: the table below, and three lines for what models that have not seen the row say."""

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


def act(
    harmful: np.ndarray,
    helpful: np.ndarray,
    loss: np.ndarray,
    differs: np.ndarray,
    contradicted: np.ndarray | None = None,
    number: np.ndarray | None = None,
    judged: np.ndarray | None = None,
) -> np.ndarray:
    """Return an object array [n, 2] of (action, reason) by the table, row for row.

    Parameters
    ----------
    harmful, helpful, loss, differs : array of bool [n]
        What the table asks.
    contradicted : array of bool [n], optional
        Models that have not seen the row give another label: where the table keeps it, it is "ambiguous".
    number : array of bool [n], optional
        The label is a number, which has no other label to go to: named wrong and not needed, the row is dropped
        instead of reviewed.
    judged : array of bool [n], optional
        Models that have not seen the row have judged its label: influence alone then sends it to review.

    Returns
    -------
    array

    Examples
    --------
    >>> yes, no = np.array([True]), np.array([False])
    >>> act(yes, no, no, yes).tolist(), act(no, yes, yes, yes).tolist()
    ([['drop', 'influence']], [['review', 'loss']])
    >>> act(no, no, no, no, contradicted=yes).tolist(), act(no, no, yes, no, number=yes).tolist()
    ([['ambiguous', '']], [['drop', 'loss']])
    >>> act(yes, no, no, no, judged=yes).tolist()
    [['review', 'influence']]
    """
    says = np.where(harmful, HARMFUL, np.where(helpful, HELPFUL, UNCLEAR))
    chosen = [
        RULE[str(a), bool(b), bool(c)]
        for a, b, c in zip(says, loss, differs & np.ones_like(loss), strict=True)
    ]
    decided = np.array(chosen, dtype=object).reshape(-1, 2)
    if contradicted is not None:
        decided[(decided[:, 0] == "keep") & contradicted, 0] = "ambiguous"
    if number is not None:
        decided[(decided[:, 0] == "review") & number & ~helpful, 0] = "drop"
    if judged is not None:
        decided[(decided[:, 1] == "influence") & judged, 0] = "review"
    return decided
