import numpy as np
import pandas as pd
import pytest
from made_decisions import decisions

from finfluence.clean import AUDIT_COLUMNS, apply
from finfluence.errors import ConfigError, DataError

FRAME = pd.DataFrame(
    {"x": [1.5, 2.5, 3.5, 4.5, 5.5], "label": ["cat", "cat", "dog", "dog", "cat"], "n": [1, 2, 3, 4, 5]},
    index=["a", "b", "c", "d", "e"],
)
MADE = decisions(["d", "a", "b", "c"], ["keep", "drop", "relabel", "review"], {"b": "dog"})


def test_suggestions_are_followed_by_id_not_by_position():
    before = FRAME.copy()
    done = apply(MADE, FRAME, target="label")
    assert done.frame.index.tolist() == ["b", "c", "d", "e"]
    assert done.frame["label"].tolist() == ["dog", "dog", "dog", "cat"]
    assert done.frame.columns.tolist() == FRAME.columns.tolist()
    assert done.frame.dtypes.equals(FRAME.dtypes)
    pd.testing.assert_frame_equal(FRAME, before)


def test_audit_says_what_was_done_to_which_row_and_why():
    audit = apply(MADE, FRAME, target="label").audit
    assert audit.columns.tolist() == list(AUDIT_COLUMNS)
    assert audit["row_id"].tolist() == ["a", "b", "c"]
    assert audit["line"].tolist() == [1, 2, 3]
    assert audit["action"].tolist() == ["drop", "relabel", "review"]
    assert audit["from_label"].tolist() == ["cat", "cat", "dog"]
    assert audit["to_label"].tolist() == [None, "dog", None]
    assert audit["reason"].tolist() == ["influence", "loss", "loss"]
    assert audit["threshold"].tolist() == [0.1] * 3


@pytest.mark.parametrize(
    ("action", "kept", "labels"),
    [
        ("drop", ["d", "e"], ["dog", "cat"]),
        ("relabel", ["a", "b", "c", "d", "e"], ["cat", "dog", "dog", "dog", "cat"]),
        ("review", ["a", "b", "c", "d", "e"], FRAME["label"].tolist()),
    ],
)
def test_one_action_for_all(action, kept, labels):
    done = apply(MADE, FRAME, target="label", action=action)
    assert done.frame.index.tolist() == kept
    assert done.frame["label"].tolist() == labels
    assert len(done.audit) == 3


def test_another_level_decides_anew():
    assert len(apply(MADE, FRAME, fdr=0.01).audit) == 0
    assert apply(MADE, FRAME, target="label", fdr=0.03).frame.index.tolist() == ["b", "c", "d", "e"]


def test_ids_may_stand_in_a_column_and_dtypes_stay():
    frame = FRAME.reset_index(names="id").astype({"label": "category"})
    done = apply(MADE, frame, target="label", ids=frame["id"])
    assert done.frame["id"].tolist() == ["b", "c", "d", "e"]
    assert isinstance(done.frame["label"].dtype, pd.CategoricalDtype)
    numbers = apply(decisions([0, 1], ["relabel", "keep"], {0: 7}), pd.DataFrame({"y": [1, 2]}), target="y")
    assert numbers.frame["y"].tolist() == [7, 2]
    assert numbers.frame["y"].dtype == np.int64


def test_words_of_the_errors():
    with pytest.raises(DataError, match=r"1 of 1 ids are not, for instance \['z'\]"):
        apply(decisions(["z"], ["keep"]), FRAME)
    with pytest.raises(DataError, match="one id per row, 5 in all\n  got: 2 ids"):
        apply(MADE, FRAME, ids=["a", "b"])
    with pytest.raises(DataError, match="unique ids in the source\n  got: 4 ids that repeat"):
        apply(MADE, FRAME, ids=["a"] * 5)
    with pytest.raises(DataError, match="holds the labels, in order to relabel\n  got: target None"):
        apply(MADE, FRAME)
    with pytest.raises(DataError, match="all 2 rows would be dropped"):
        apply(decisions(["a", "b"], ["drop", "drop"]), FRAME.iloc[:2])
    with pytest.raises(ConfigError, match="one of suggested, drop, relabel, review\n  got: 'delete'"):
        apply(MADE, FRAME, action="delete")
