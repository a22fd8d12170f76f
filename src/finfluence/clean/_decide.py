"""Which rows to drop, relabel or look at, with an error rate and the reason."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from finfluence._indices import same_rows
from finfluence.clean._rule import act
from finfluence.errors import ConfigError, DataError, explain
from finfluence.result import Influence, need_mu, one_of
from finfluence.stats import RowTest, check_fdr, name_rows

COLUMNS = (
    "row_id",
    "mu",
    "own_loss",
    "oof_loss",
    "p_wrong",
    "label",
    "predicted",
    "confidence",
    "q_influence",
    "q_opposite",
    "q_loss",
    "q_value",
    "flagged",
    "suggested_action",
    "suggested_label",
    "reason",
)


@dataclass(frozen=True, eq=False)
class Decisions:
    """One decision per row.

    Attributes
    ----------
    frame
        One line per row: row_id, mu, own_loss, oof_loss, p_wrong, label, predicted, confidence, the q-values
        of the tests (`q_influence`; `q_opposite`, its mirror: removal would do damage; `q_loss`), `q_value`
        of the row after paying for the number of tests, `flagged`, `suggested_action` ("keep", "ambiguous",
        "drop", "relabel", "review"), `suggested_label` (None unless relabelling is suggested) and `reason`
        ("influence", "loss", "both" or "").
    fdr
        Expected share of false names among the flagged rows.
    tests
        Number of tests that could flag a row: 1, or 2 where q-values of the labels were given.
    relabel_confidence
        Probability that the model must give to another label before relabelling is suggested.
    direction
        "harmful" or "helpful": the side of mu on which influence flags.
    findings
        Sentences that qualify the decisions.
    """

    frame: pd.DataFrame
    fdr: float
    tests: int
    relabel_confidence: float
    direction: str
    findings: tuple[str, ...] = ()

    def at(self, fdr: float) -> "Decisions":
        """Return the decisions at another false-discovery rate, from the same q-values.

        Returns
        -------
        Decisions

        Examples
        --------
        >>> z = np.r_[np.random.default_rng(0).laplace(size=500), np.full(40, 30.0)]
        >>> loose = decide(np.arange(540), z, sign=1)
        >>> bool(loose.at(0.02).frame["flagged"].sum() < loose.frame["flagged"].sum())
        True
        """
        check_fdr(fdr)
        return replace(self, frame=_judge(self.frame, fdr, self.tests, self.relabel_confidence), fdr=fdr)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model says about the labels, row by row; a row with an unknown label is never relabelled.

    Parameters
    ----------
    labels : array [n], optional
        The labels as given.
    predicted : array [n], optional
        The labels that the model gives.
    confidence : array [n], optional
        Probability that the model gives to `predicted`; NaN where there is none.
    q_wrong : array [n], optional
        q-values of the labels by models that have not seen the row, as `finfluence.labels` gives them: then these are
        the second test.
    p_wrong : array [n], optional
        Chance that the label is wrong, by the same models; NaN where nothing can be told.
    oof_loss : array [n], optional
        Loss of the label under the same models.
    """

    labels: ArrayLike | None = None
    predicted: ArrayLike | None = None
    confidence: ArrayLike | None = None
    q_wrong: ArrayLike | None = None
    p_wrong: ArrayLike | None = None
    oof_loss: ArrayLike | None = None


@dataclass(frozen=True)
class DecisionOptions:
    """How rows are decided about.

    Parameters
    ----------
    fdr : float
        Accepted share of false names among the flagged rows.
    direction : {"harmful", "helpful"}
        "helpful" names the rows whose removal worsens the query.
    relabel_confidence : float
        Least `Predictions.confidence` for relabelling.
    """

    fdr: float = 0.1
    direction: str = "harmful"
    relabel_confidence: float = 0.8


def decide_influence(
    influence: Influence,
    query: str | None = None,
    *,
    predictions: Predictions | None = None,
    options: DecisionOptions | None = None,
) -> Decisions:
    """Decide about every row of a result from its influence on one query.

    Parameters
    ----------
    influence : Influence
        Over single rows.
    query : str, optional
        The first one unless named.
    predictions, options : optional
        As in `decide`.

    Returns
    -------
    Decisions

    Raises
    ------
    NotSupportedError
        The result holds scores only.
    ConfigError, DataError
        As `decide`.
    """
    need_mu(influence.data, "cleaning")
    name = influence.queries[0] if query is None else one_of(query, influence.queries, "query")
    data = influence.data.sel(query=name)
    return decide(
        influence.subsets,
        data["mu"].values,
        sign=int(data["sign"]) * influence.provenance.harmful_side,
        p_values=data["p_value"].values if influence.has_effect else None,
        own_loss=data["own_loss"].values,
        predictions=predictions,
        options=options,
    )


def decide(
    row_ids: ArrayLike,
    mu: ArrayLike,
    *,
    sign: int = -1,
    p_values: ArrayLike | None = None,
    own_loss: ArrayLike | None = None,
    predictions: Predictions | None = None,
    options: DecisionOptions | None = None,
) -> Decisions:
    r"""Decide about every row from its influence on one query and, if given, what is known of its label.

    .. math:: q_i = \min(1,\ V q_i^{\mathrm{influence}},\ q_i^{\mathrm{label}}),
              \quad \text{flagged} = \{i : q_i \le \mathrm{fdr}\}

    with V the number of tests: the rule of `finfluence.stats.name_rows`. Labels have the whole level: they alone change
    rows, and what is done because of them keeps it. What influence names beside them keeps the level by itself.

    Parameters
    ----------
    row_ids
        Unique ids, one per row.
    mu
        Signed influence on the query: positive, removing the row raises the query.
    sign
        +1 if a larger value of the query is better (accuracy), -1 if worse (loss). Harmful is sign * mu > 0.
    own_loss
        Loss of each row under the final model: a column, no test. A model that was trained on a wrong label has learned
        it, and one that learned nothing gives every label of a rare class a large loss.
    p_values
        Two-sided, for the few-rows fallback of `finfluence.stats.empirical_fdr`; NaN counts as 1.
    predictions
        What the model says about the labels. Without it no relabelling is suggested.
    options
        Rate of false names, side and confidence; the defaults of `DecisionOptions` unless given.

    Returns
    -------
    Decisions

    Raises
    ------
    DataError
        Ids repeat, or columns differ in length.
    ConfigError
        An option is unknown or out of range.

    Notes
    -----
    The rule ("differs": the model gives another label with at least `relabel_confidence`):

    ==================  ==========  =========  ========  =========
    influence says      loss says   differs    action    reason
    ==================  ==========  =========  ========  =========
    harmful             wrong       yes        relabel   both
    harmful             wrong       no         drop      both
    harmful             nothing     any        drop      influence
    unclear             wrong       yes        relabel   loss
    unclear             wrong       no         review    loss
    helpful             wrong       any        review    loss
    unclear or helpful  nothing     any        keep
    ==================  ==========  =========  ========  =========

    A row that hurts without a suspicious loss was learned easily: its label may be right and the row still
    does damage, so it is dropped, never relabelled. A suspicious label on a row that the query needs is
    shown to a person. For direction "helpful" the first column is mirrored.

    Where `predictions.p_wrong` is known, influence alone sends a row to review: models that have not seen it do not
    call its label wrong. A row that would be kept but whose label they contradict is "ambiguous": it goes to review
    lists and is otherwise left alone. A number (no confidence) that is named wrong is
    dropped where a label would be reviewed, unless the query needs the row.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> mu = np.r_[rng.laplace(size=970), np.full(30, -25.0)]     # negative: removal lowers the loss
    >>> decisions = decide(np.arange(1000), mu, sign=-1)
    >>> decisions.frame["suggested_action"].value_counts().to_dict()
    {'keep': 966, 'drop': 34}
    """
    fields_of_labels = {} if predictions is None else vars(predictions)
    same_rows(row_ids=row_ids, mu=mu, p_values=p_values, own_loss=own_loss, **fields_of_labels)
    ids, options = np.asarray(row_ids), options or DecisionOptions()
    fdr, direction, said = options.fdr, options.direction, predictions or Predictions()
    _check_options(sign, direction, options.relabel_confidence)
    _check_ids(ids)
    n = ids.size
    value = _column(mu, n, "mu", float)
    side = sign if direction == "harmful" else -sign
    asked = name_rows([RowTest("influence", side * value, p_values)], fdr)
    opposite = name_rows([RowTest("influence", side * value, p_values, direction="helpful")], fdr)
    findings = list(asked.findings)
    tests, q_loss = 1, np.ones(n)
    losses = _column(own_loss, n, "own_loss", float)
    if said.q_wrong is not None:
        tests, q_loss = 2, _column(said.q_wrong, n, "q_wrong", float)
    frame = pd.DataFrame(
        {
            "row_id": ids,
            "mu": value,
            "own_loss": losses,
            "oof_loss": _column(said.oof_loss, n, "oof_loss", float),
            "p_wrong": _column(said.p_wrong, n, "p_wrong", float),
            "label": _column(said.labels, n, "labels", object),
            "predicted": _column(said.predicted, n, "predicted", object),
            "confidence": _column(said.confidence, n, "confidence", float),
            "q_influence": asked.q_each[0],
            "q_opposite": opposite.q_each[0],
            "q_loss": q_loss,
        }
    )
    judged = _judge(frame, fdr, tests, options.relabel_confidence)
    return Decisions(judged, fdr, tests, options.relabel_confidence, direction, tuple(findings))


def _judge(frame: pd.DataFrame, fdr: float, tests: int, relabel_confidence: float) -> pd.DataFrame:
    influence = RowTest("influence", q_values=frame["q_influence"].to_numpy())
    loss = RowTest("loss", q_values=frame["q_loss"].to_numpy(), own_level=True)
    named = name_rows([influence, loss], fdr, paid=tests)
    by_influence, by_loss = named.flagged_by
    known = frame["predicted"].notna() & frame["label"].notna()
    contradicted = known & (frame["predicted"] != frame["label"])
    differs = (contradicted & (frame["confidence"] >= relabel_confidence)).to_numpy(dtype=bool)
    judged_apart, number = frame["p_wrong"].notna(), frame["confidence"].isna()
    decided = act(
        by_influence,
        name_rows([RowTest("opposite", q_values=frame["q_opposite"].to_numpy())], fdr).flagged,
        by_loss,
        differs,
        (contradicted & judged_apart & ~number).to_numpy(dtype=bool),
        (judged_apart & number).to_numpy(dtype=bool),
        judged_apart.to_numpy(dtype=bool),
    )
    actions = decided[:, 0]
    labels = frame["predicted"].astype(object).where(actions == "relabel", None)
    judged = frame.assign(
        q_value=named.q_values,
        flagged=named.flagged,
        suggested_action=pd.Series(actions, index=frame.index, dtype=object),
        suggested_label=labels,
        reason=pd.Series(decided[:, 1], index=frame.index, dtype=object),
    )
    return judged[list(COLUMNS)]


def _column(values: ArrayLike | None, n: int, name: str, dtype: Any) -> np.ndarray:
    if values is None:
        return np.full(n, None if dtype is object else np.nan, dtype=dtype)
    column = np.asarray(values, dtype=dtype)
    if column.shape != (n,):
        raise DataError(
            explain(
                f"{name} to hold one value per row id, {n} in all",
                f"shape {column.shape}",
                "values of all queries at once, or of another split of the data",
                f"pass the {name} of one query, in the order of the ids",
            )
        )
    return column


def _check_ids(ids: np.ndarray) -> None:
    series = pd.Series(ids)
    repeated = series[series.duplicated()].unique()
    if ids.ndim != 1 or repeated.size:
        raise DataError(
            explain(
                "unique row ids, one decision each",
                f"{repeated.size} ids that repeat, for instance {repeated[:3].tolist()}",
                "a frame with one line per row and query",
                "pick one query first, for instance frame[frame['query'] == name]",
            )
        )


def _check_options(sign: int, direction: str, relabel_confidence: float) -> None:
    if sign not in (1, -1):
        raise ConfigError(
            explain(
                "sign to be +1 or -1",
                f"{sign!r}",
                "the query's sign left out",
                "pass +1 for accuracies, -1 for losses",
            )
        )
    if direction not in ("harmful", "helpful"):
        raise ConfigError(
            explain(
                "direction to be 'harmful' or 'helpful'",
                f"{direction!r}",
                "cleaning needs one side: what hurts and what helps cannot be removed by one rule",
                "decide twice, once per direction",
            )
        )
    if not 0.0 < relabel_confidence <= 1.0:
        raise ConfigError(
            explain(
                "relabel_confidence between 0 and 1",
                f"{relabel_confidence!r}",
                "a probability given in percent",
                "write 0.8 for 80 %",
            )
        )
