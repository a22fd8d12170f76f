"""What models that have not seen a row say of its label, in the decision: ambiguous labels, wrong numbers."""

import numpy as np

from finfluence.clean import Predictions, decide

N = 400
QUIET = np.random.default_rng(0).laplace(size=N)


def said(**changed):
    """Row 0 is named wrong, row 1 is contradicted but more likely right, the others are not contradicted."""
    labels = np.array(["cat"] * N, dtype=object)
    predicted = labels.copy()
    predicted[:2] = "dog"
    q, p = np.ones(N), np.zeros(N)
    q[0], p[:2] = 0.01, (0.99, 0.3)
    given = {
        "labels": labels,
        "predicted": predicted,
        "confidence": np.full(N, 0.9),
        "q_wrong": q,
        "p_wrong": p,
    }
    return Predictions(**{**given, "oof_loss": p, **changed})


def test_a_contradicted_label_that_is_not_named_is_ambiguous_and_never_relabelled():
    decisions = decide(np.arange(N), QUIET, predictions=said())
    frame = decisions.frame
    assert frame["suggested_action"].tolist() == ["relabel", "ambiguous"] + ["keep"] * (N - 2)
    assert frame["flagged"].tolist() == [True] + [False] * (N - 1)
    assert frame["suggested_label"].tolist() == ["dog"] + [None] * (N - 1)
    assert decisions.tests == 2
    assert decisions.at(0.001).frame["suggested_action"].tolist()[:2] == ["ambiguous", "ambiguous"]


def test_own_losses_are_a_column_beside_it_and_not_a_test():
    own = np.r_[np.zeros(N - 30), np.full(30, 8.0)]
    frame = decide(np.arange(N), QUIET, own_loss=own, predictions=said()).frame
    assert frame["flagged"].sum() == 1
    np.testing.assert_array_equal(frame["own_loss"], own)


def test_nothing_is_ambiguous_where_nothing_can_be_told():
    frame = decide(
        np.arange(N), QUIET, predictions=said(p_wrong=np.full(N, np.nan), q_wrong=np.ones(N))
    ).frame
    assert set(frame["suggested_action"]) == {"keep"}


def test_a_number_that_is_named_wrong_is_dropped_and_none_is_ambiguous():
    y = np.arange(N, dtype=float)
    numbers = said(labels=y, predicted=y + 1, confidence=np.full(N, np.nan))
    frame = decide(np.arange(N), QUIET, predictions=numbers).frame
    assert frame["suggested_action"].tolist() == ["drop"] + ["keep"] * (N - 1)
    assert frame["reason"].tolist()[0] == "loss"
    needed = QUIET.copy()
    needed[:30] = 60.0
    assert decide(np.arange(N), needed, predictions=numbers).frame["suggested_action"][0] == "review"


def test_influence_alone_sends_a_judged_row_to_review_and_drops_one_that_was_not_judged():
    harmful = QUIET.copy()
    harmful[-30:] = -60.0
    judged = decide(np.arange(N), harmful, sign=-1, predictions=said()).frame
    assert judged["suggested_action"].tolist()[-30:] == ["review"] * 30
    assert judged["reason"].tolist()[-30:] == ["influence"] * 30
    assert judged["suggested_action"][0] == "relabel"
    alone = decide(np.arange(N), harmful, sign=-1).frame
    assert alone["suggested_action"].tolist()[-30:] == ["drop"] * 30
