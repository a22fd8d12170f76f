"""Two things with a pandas index that meet: one order, or words."""

import numpy as np
import pandas as pd
import pytest

import finfluence as fi
from finfluence.clean import apply, decide
from finfluence.errors import DataError
from finfluence.evaluate import average_precision, coverage
from finfluence.labels import by_doubt, out_of_fold, plant_and_find
from finfluence.mitigate import nmtune
from finfluence.stats import paired_difference
from four_parts import assert_parts

ROWS = 40
FRAME = pd.DataFrame({"a": np.arange(ROWS) % 7.0, "b": np.arange(ROWS) % 5.0})
LABELS = pd.Series(np.arange(ROWS) % 2, name="y")
TURNED = LABELS.sample(frac=1, random_state=0)
DECISIONS = decide(np.arange(ROWS), np.zeros(ROWS))

MEETINGS = {
    "Rows": lambda x, y: fi.Rows(x=x, y=y),
    "Rows by ids": lambda x, y: fi.Rows(x=x, ids=y.rename(None).index.to_series()),
    "scan": lambda x, y: fi.scan(x, y),
    "scan of a pair": lambda x, y: fi.scan((x, y)),
    "hold-out": lambda x, y: fi.scan(x, LABELS.to_numpy(), holdout=(x, y)),
    "out of fold": lambda x, y: out_of_fold(x, y),
    "groups": lambda x, y: out_of_fold(x, LABELS.to_numpy(), groups=y),
    "planted": lambda x, y: plant_and_find(x, y),
    "doubt": lambda x, y: by_doubt(x["a"], y),
    "head": lambda x, y: nmtune(x, y),
    "weights": lambda x, y: nmtune(x, LABELS.to_numpy(), weights=y),
    "heads": lambda x, y: fi.mitigate.compare_heads((x, LABELS), (x, y)),
    "policy": lambda x, y: fi.assess.policy_effect(y == 1, x["a"], x),
    "inclusion": lambda x, y: fi.assess.inclusion(x > 2, y),
    "predicted effects": lambda x, y: fi.assess.inclusion(x.T > 2, [0.0, 1.0], predicted=y),
    "accuracy": lambda x, y: fi.assess.accuracy(x, y, x),
    "feedback": lambda x, y: fi.assess.split_interval(x["a"], y, 0.0, 1.0),
    "metric": lambda x, y: average_precision(x["a"], y),
    "coverage": lambda x, y: coverage(x["a"], x["a"] + 1, y),
    "difference": lambda x, y: paired_difference(x["a"], y),
    "decide": lambda x, y: decide(np.arange(ROWS), x["a"], own_loss=y),
    "apply": lambda x, y: apply(DECISIONS, x, ids=y),
}


@pytest.mark.parametrize("meet", MEETINGS.values(), ids=MEETINGS)
def test_the_same_rows_in_another_order_are_refused(meet):
    with pytest.raises(DataError, match="an index of the same labels in another order: at position 0 it is "):
        meet(FRAME, TURNED)


def test_the_error_says_both_ways_out():
    with pytest.raises(DataError) as caught:
        fi.Rows(x=FRAME, y=LABELS[::-1])
    assert_parts(
        caught.value,
        "y in the order of the rows of x",
        "at position 0 it is 39 in y and 0 in x",
        "shuffled, sorted or counted anew",
        "pass y.loc[x.index] if the index names the rows, y.to_numpy() if they already stand in one order",
    )


def test_one_index_needs_no_words_and_another_one_goes_by_position_with_a_note():
    cut = FRAME.iloc[10:30]
    fi.Rows(x=cut, y=LABELS.iloc[10:30], w=np.ones(20))
    with pytest.warns(
        UserWarning, match=r"y goes by position: its index names other rows than that of x \(at"
    ):
        rows = fi.Rows(x=cut, y=LABELS.iloc[10:30].reset_index(drop=True))
    np.testing.assert_array_equal(rows.fields["y"], LABELS.iloc[10:30])
    assert decide(LABELS.index, pd.Series(np.zeros(ROWS))).frame["mu"].eq(0).all()


def test_labels_of_more_rows_are_refused_with_the_way_to_choose():
    with pytest.raises(DataError, match=r"shape \(40,\)[\s\S]*y.loc\[X.index\], if its index names them"):
        fi.scan(FRAME.iloc[:30], LABELS)
