"""Names of 0.1 that are gone say what came in their place."""

import pytest

from finfluence import stats


@pytest.mark.parametrize("name", ["label_errors", "log_odds"])
def test_a_name_that_is_gone_names_its_successor(name):
    with pytest.raises(ImportError, match=f"{name}', which is gone since 0.2") as caught:
        exec(f"from finfluence.stats import {name}")
    assert "judge_labels(out_of_fold(x, y), y)" in str(caught.value)


def test_other_names_are_no_attributes():
    assert not hasattr(stats, "label_error")
