"""select, report, clean, scan and demo name the same rows: one rule, called five times."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finfluence.clean import DecisionOptions, Predictions, decide, decide_influence
from finfluence.jobs.demo import flagged_by
from finfluence.jobs.scan import Estimate, RowLabels, decide_rows
from finfluence.result import Influence, Provenance, report_content

NAMES = ["held-out", "class a", "class b"]
FDR = 0.1


def influence(mu: np.ndarray, p: np.ndarray, own: np.ndarray | None) -> Influence:
    one = np.ones_like(mu)
    return Influence.build(
        effect=mu, spread=one, se=one, p_value=p, own_loss=own, subsets=range(len(mu)), queries=NAMES[: mu.shape[1]],
        provenance=Provenance(method="online", runs=1, covers=("batch order",), n_rows=len(mu)),
    )  # fmt: skip


def few(queries: int) -> tuple[np.ndarray, np.ndarray]:
    """30 rows, one of them with p = 1e-9."""
    mu, p = np.random.default_rng(0).normal(size=(30, queries)) / 9, np.full((30, queries), 0.9)
    mu[7, 0], p[7, 0] = -9.0, 1e-9
    return mu, p


def many(queries: int) -> tuple[np.ndarray, np.ndarray]:
    mu = np.random.default_rng(1).laplace(size=(600, queries))
    for k in range(queries):
        mu[40 * k : 40 * k + 30, k] -= 30.0
    return mu, np.full_like(mu, 0.5)


def unknown(queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Few rows, half of them without a p-value, as after a backward pass over one epoch."""
    mu, p = few(queries)
    p[::2] = np.nan
    return mu, p


def doubts(n: int) -> np.ndarray:
    """The last twelfth of the labels is surely wrong."""
    q = np.ones(n)
    q[-n // 12 :] = 0.01
    return q


def scanned(found: Influence, q_wrong: np.ndarray | None) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Return lines and rows of the scan's decision, and how many tests it paid for."""
    n = len(found.subsets)
    estimate = Estimate(found, None, np.zeros((1, n)), np.zeros((n, 1)))
    judged = None
    if q_wrong is not None:
        zero = np.zeros(n)
        judged = RowLabels(q_wrong, zero, zero, zero.astype(int), zero + 0.9)

    class Train(SimpleNamespace):
        def __len__(self) -> int:
            return n

    target = SimpleNamespace(classes=None if q_wrong is None else ["x", "y"], decode=lambda v: np.asarray(v))
    train: Any = Train(ids=found.subsets, labels=np.zeros(n, dtype=int), target=target, groups=None)
    decided = decide_rows(estimate, train, FDR, judged)
    return decided.lines, decided.decisions.frame, decided.decisions.tests


@pytest.mark.parametrize("made", [few, many, unknown])
@pytest.mark.parametrize("queries", [1, 2, 3])
def test_over_queries_alone(made: Any, queries: int) -> None:
    """V = 1, 2, 3: the queries are the tests."""
    mu, p = made(queries)
    found = influence(mu, p, None)
    selected = sorted(found.select(FDR, found.queries).row_id)
    content = report_content(found.data, fdr=FDR)
    lines, rows, tests = scanned(found, None)
    assert tests == queries
    assert selected == sorted({int(r.row_id) for r in content.rows if r.flagged})
    assert selected == rows["row_id"][rows["flagged"]].tolist()
    expected = {(str(r.row_id), r.query, r.q_value) for r in content.rows if r.flagged}
    flagged = lines[lines["flagged"]]
    assert expected == set(zip(flagged.row_id.astype(str), flagged["query"], flagged.q_value, strict=True))
    by_influence, _ = flagged_by(lines, FDR, tests)
    assert (by_influence == lines["flagged"]).all()
    if queries == 1:
        alone = decide(range(len(mu)), mu[:, 0], p_values=p[:, 0]).frame
        assert alone.equals(decide_influence(found).frame)
        assert selected == alone["row_id"][alone["flagged"]].tolist()
    assert ({few: [7], unknown: [7]}.get(made, selected)) == selected
    assert made is not many or len(selected) >= 28 * queries


@pytest.mark.parametrize("queries", [1, 2])
def test_over_queries_and_labels(queries: int) -> None:
    """V = 2, 3: what is said of the label is one test more; cleaning, scan and demo pay for it alike."""
    mu, p = many(queries)
    q_wrong = doubts(len(mu))
    lines, rows, tests = scanned(influence(mu, p, None), q_wrong)
    assert tests == queries + 1
    by_influence, by_loss = flagged_by(lines, FDR, tests)
    assert ((by_influence | by_loss) == lines["flagged"]).all()
    doubted = np.flatnonzero(tests * q_wrong <= FDR)
    assert len(doubted) > 20 and set(doubted) <= set(rows["row_id"][rows["flagged"]])
    if queries == 1:
        said = Predictions(confidence=np.full(len(mu), 0.9), q_wrong=q_wrong, p_wrong=np.zeros(len(mu)))
        cleaned = decide(range(len(mu)), mu[:, 0], predictions=said, p_values=p[:, 0])
        assert cleaned.tests == 2
        for column in ("q_value", "flagged", "suggested_action"):
            assert cleaned.frame[column].tolist() == rows[column].tolist()
        at_once = (
            decide(range(len(mu)), mu[:, 0], predictions=said, options=DecisionOptions(fdr=0.5)).at(FDR).frame
        )
        assert at_once["flagged"].tolist() == cleaned.frame["flagged"].tolist()


@pytest.mark.parametrize("made", [few, many])
def test_the_helpful_side_mirrors_the_harmful_one(made: Any) -> None:
    mu, p = made(1)
    found, turned = influence(mu, p, None), influence(-mu, p, None)
    harmful = found.select(FDR).row_id.tolist()
    assert turned.select(FDR, direction="helpful").row_id.tolist() == harmful != []
    assert found.select(FDR, direction="helpful").empty
    assert set(harmful) <= set(found.select(FDR, direction="both").row_id)
    helpful = DecisionOptions(FDR, "helpful")
    mirrored = decide(range(len(mu)), -mu[:, 0], p_values=p[:, 0], options=helpful).frame
    assert mirrored["row_id"][mirrored["flagged"]].tolist() == sorted(harmful)
