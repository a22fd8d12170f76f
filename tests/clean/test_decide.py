from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finfluence.clean import RULE, DecisionOptions, Predictions, act, decide, decide_influence
from finfluence.errors import ConfigError, DataError, NotSupportedError
from finfluence.result import Influence, Provenance

N = 1000
KIND = np.array(["clean"] * 880 + ["poison"] * 40 + ["flip"] * 40 + ["harmful flip"] * 40)


def scanned(seed=0):
    """Rows as a scan sees them: poison hurts with a small loss, flips have a large one, some hurt as well."""
    rng = np.random.default_rng(seed)
    mu = rng.laplace(size=N)
    mu[np.isin(KIND, ["poison", "harmful flip"])] -= 30.0
    odds = rng.logistic(6, 1, size=N)
    wrong = np.isin(KIND, ["flip", "harmful flip"])
    odds[wrong] = rng.normal(-4, 1, size=wrong.sum())
    labels = np.array(["cat"] * N, dtype=object)
    predicted = np.where(wrong, "dog", "cat").astype(object)
    return {
        "mu": mu,
        "own_loss": np.logaddexp(0.0, -odds),
        "predictions": Predictions(labels, predicted, np.full(N, 0.95), np.where(wrong, 0.001, 1.0)),
    }


def test_each_kind_of_row_gets_its_action():
    frame = decide(np.arange(N), **scanned()).frame
    share = pd.crosstab(KIND, frame["suggested_action"], normalize="index")
    assert share.loc["clean", "keep"] > 0.98
    assert share.loc["poison", "drop"] > 0.95
    assert share.loc["flip", "relabel"] > 0.85
    assert share.loc["harmful flip", "relabel"] > 0.85
    reasons = frame.groupby(KIND)["reason"].agg(lambda r: r.mode()[0])
    assert reasons.to_dict() == {"clean": "", "flip": "loss", "harmful flip": "both", "poison": "influence"}


def test_columns_agree_with_one_another():
    decisions = decide(np.arange(N), **scanned())
    frame = decisions.frame
    np.testing.assert_array_equal(frame["flagged"], frame["q_value"] <= 0.1)
    np.testing.assert_array_equal(frame["flagged"], frame["suggested_action"] != "keep")
    np.testing.assert_array_equal(frame["flagged"], frame["reason"] != "")
    np.testing.assert_array_equal(frame["suggested_label"].notna(), frame["suggested_action"] == "relabel")
    assert set(frame["suggested_label"].dropna()) == {"dog"}
    assert (decisions.tests, decisions.fdr) == (2, 0.1)


def test_two_tests_keep_the_level_together():
    proportions = []
    for seed in range(12):
        flagged = decide(np.arange(N), **scanned(seed)).frame["flagged"].to_numpy()
        proportions.append((flagged & (KIND == "clean")).sum() / flagged.sum())
    assert np.mean(proportions) <= 0.1


def test_labels_have_the_whole_level_and_influence_pays_for_both() -> None:
    n = 40
    q_wrong, p, mu = np.ones(n), np.full(n, 0.9), np.zeros(n)
    q_wrong[0], p[1], mu[1] = 0.09, 1e-9, -9.0
    said = Predictions(q_wrong=q_wrong, p_wrong=np.where(q_wrong < 1, 0.95, 0.0))
    frame = decide(np.arange(n), mu, p_values=p, predictions=said).frame
    assert frame["flagged"][0] and frame["reason"][0] == "loss"
    assert frame["q_value"][0] == 0.09
    assert 0 < frame["q_value"][1] == 2 * frame["q_influence"][1] < 0.1


def test_the_table_is_complete_and_never_removes_what_helps():
    assert len(RULE) == 12
    for (influence, loss, _), (action, reason) in RULE.items():
        assert (action == "keep") == (reason == "") == (influence != "harmful" and not loss)
        if influence == "helpful":
            assert action in ("keep", "review")
        if action == "relabel":
            assert loss
    no = np.zeros(0, dtype=bool)
    assert act(no, no, no, no).shape == (0, 2)


def test_a_row_that_the_query_needs_is_reviewed_not_relabelled():
    given = scanned()
    needed = KIND == "flip"
    given["mu"] = np.where(needed, 30.0, np.random.default_rng(1).laplace(size=N))
    frame = decide(np.arange(N), **given).frame
    assert set(frame.loc[needed & frame["flagged"], "suggested_action"]) == {"review"}


def test_an_unsure_prediction_is_never_a_label():
    given = scanned()
    given["predictions"] = replace(given["predictions"], confidence=np.full(N, 0.6))
    actions = decide(np.arange(N), **given).frame["suggested_action"]
    assert set(actions) == {"keep", "drop", "review"}
    assert "relabel" in set(
        decide(np.arange(N), **given, options=DecisionOptions(relabel_confidence=0.5)).frame[
            "suggested_action"
        ]
    )


def test_influence_alone_pays_for_one_test():
    mu = scanned()["mu"]
    decisions = decide(np.arange(N), mu)
    assert decisions.tests == 1
    np.testing.assert_array_equal(decisions.frame["q_value"], decisions.frame["q_influence"])
    assert set(decisions.frame["suggested_action"]) == {"keep", "drop"}


def test_sign_and_direction_mirror_each_other():
    mu = scanned()["mu"]
    actions = [
        decide(np.arange(N), value, sign=sign, options=DecisionOptions(direction=direction))
        .frame["suggested_action"]
        .tolist()
        for value, sign, direction in (
            (mu, -1, "harmful"),
            (-mu, 1, "harmful"),
            (mu, 1, "helpful"),
            (-mu, -1, "helpful"),
        )
    ]
    assert all(a == actions[0] for a in actions)
    assert "drop" in actions[0]


def test_nothing_is_an_answer():
    rng = np.random.default_rng(0)
    frame = decide(np.arange(500), rng.standard_t(3, size=500)).frame
    assert set(frame["suggested_action"]) == {"keep"}
    assert len(decide(np.arange(0), np.zeros(0)).frame) == 0


def test_few_rows_use_p_values_and_say_so():
    mu = np.r_[np.zeros(19), -9.0]
    decisions = decide(np.arange(20), mu, p_values=np.r_[np.full(19, 0.9), 1e-9])
    assert decisions.frame["suggested_action"].tolist() == ["keep"] * 19 + ["drop"]
    assert "Only 20 rows" in decisions.findings[0]


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0.001, 0.3), st.floats(0.001, 0.3))
def test_a_stricter_level_flags_a_subset(seed, one, other):
    decisions = DECIDED[seed % len(DECIDED)]
    low, high = sorted((one, other))
    strict, loose = decisions.at(low).frame, decisions.at(high).frame
    assert not (strict["flagged"] & ~loose["flagged"]).any()
    pd.testing.assert_frame_equal(decisions.at(0.1).frame, decisions.frame)


DECIDED = [decide(np.arange(N), **scanned(seed)) for seed in range(3)]


def _turned(value, shuffle):
    if isinstance(value, Predictions):
        columns = value.labels, value.predicted, value.confidence, value.q_wrong
        return Predictions(*(column[shuffle] for column in columns))
    return value[shuffle]


def test_permuting_rows_permutes_decisions():
    given = scanned()
    shuffle = np.random.default_rng(5).permutation(N)
    one = decide(np.arange(N), **given).frame.set_index("row_id")
    other = (
        decide(shuffle, **{k: _turned(v, shuffle) for k, v in given.items()})
        .frame.set_index("row_id")
        .sort_index()
    )
    assert (one["suggested_action"] == other["suggested_action"]).all()


def test_words_of_the_errors():
    with pytest.raises(DataError, match="unique row ids, one decision each\n  got: 1 ids that repeat"):
        decide([1, 1, 2], [0.0, 0.0, 0.0])
    with pytest.raises(
        DataError, match=r"own_loss to hold one value per row id, 2 in all\n  got: shape \(3,\)"
    ):
        decide([1, 2], [0.0, 0.0], own_loss=[1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="pass \\+1 for accuracies, -1 for losses"):
        decide([1], [0.0], sign=0)
    with pytest.raises(ConfigError, match="decide twice, once per direction"):
        decide([1], [0.0], options=DecisionOptions(direction="both"))
    with pytest.raises(ConfigError, match="relabel_confidence between 0 and 1\n  got: 80"):
        decide([1], [0.0], options=DecisionOptions(relabel_confidence=80))
    with pytest.raises(ConfigError, match="fdr between 0 and 1"):
        DECIDED[0].at(10)


def test_a_result_is_decided_about_as_its_numbers_are():
    given = scanned()
    made = Provenance(method="online", runs=1, covers=("batch order",), n_rows=N)
    labels = {
        "subsets": np.arange(N),
        "queries": ["held-out"],
        "provenance": made,
        "own_loss": given["own_loss"],
    }
    found = Influence.build(mu=given["mu"][:, None], **labels)
    decided = decide_influence(found, predictions=given["predictions"])
    pd.testing.assert_frame_equal(decided.frame, decide(np.arange(N), **given).frame)
    added = Influence.build(
        mu=-given["mu"][:, None], **{**labels, "provenance": replace(made, contrast="add")}
    )
    assert decide_influence(added).frame["flagged"].equals(decide_influence(found).frame["flagged"])
    with pytest.raises(NotSupportedError, match="an influence with mu for cleaning"):
        decide_influence(Influence.build(score=given["mu"][:, None], **labels))
