"""A method of one file and one line in the table stands in every experiment."""

import pytest

from finfluence.jobs.bench import EXPERIMENTS

DEAR = ("loo", "look-alikes", "addition")


@pytest.mark.parametrize(
    "experiment", [pytest.param(e, marks=pytest.mark.slow if e in DEAR else ()) for e in EXPERIMENTS]
)
@pytest.mark.quick(2)
def test_a_new_method_is_a_line_of_every_experiment(experiment, clouds):
    result = clouds(experiment, data="bars", methods="toy,random", seeds=2, runs=2, subsets=4, rows=150)
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert {"toy", "random"} <= set(rows)
    if experiment == "addition":
        assert "does not apply: expected a method that estimates what adding rows does" in rows["toy"][-1]
    else:
        assert any(cell.lstrip("+-").startswith(("0.", "1.")) for cell in rows["toy"][1:-1])
        assert not rows["toy"][-1].startswith(("failed", "left out", "does not apply"))
