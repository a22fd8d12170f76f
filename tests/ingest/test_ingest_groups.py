"""Rows that name no group are a group, and that is said."""

import pandas as pd

from finfluence.ingest import from_frame, split


def test_rows_without_a_group_are_said():
    frame = pd.DataFrame(
        {"x": [i % 7 for i in range(40)], "who": ["s", "t", None, " "] * 10, "label": ["a", "b"] * 20}
    )
    raw = from_frame(frame, target="label", group_column="who")
    assert sorted(set(raw.groups)) == ["(none)", "s", "t"]
    said = "the group column 'who' is empty in 20 of 40 rows: they count as a group of their own, '(none)'"
    assert said in split(raw)[0].warnings
    full = from_frame(frame.assign(who=["s", "t"] * 20), target="label", group_column="who")
    assert not any("group" in text for text in split(full)[0].warnings)
