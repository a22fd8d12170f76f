"""What is left where a method fails for one seed, answers no numbers, or a file of another experiment is damaged."""

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import ConfigError, StorageError
from finfluence.estimators import METHODS
from finfluence.estimators.baselines import OwnLoss


class HalfBad(OwnLoss):
    """A method that fails for the second seed."""

    name = "half-bad"

    def scores(self, tape):
        if tape.seed == 1:
            raise ValueError("no luck")
        return super().scores(tape)


class Holes(OwnLoss):
    """A method some of whose scores are no numbers."""

    name = "holes"

    def scores(self, tape):
        found = np.array(super().scores(tape))
        found[:3], found[3] = np.nan, np.inf
        return found


class Nothing(OwnLoss):
    """A method without a number."""

    name = "nothing"

    def scores(self, tape):
        return np.full(len(tape.rows), np.nan)


SMALL = [
    ("mislabels", {"rows": 20}),
    ("consistency", {"rows": 20}),
    pytest.param("removal", {"rows": 40, "runs": 2}, marks=pytest.mark.slow),
    pytest.param("truth", {"rows": 40, "runs": 2, "subsets": 4}, marks=pytest.mark.slow),
    pytest.param("loo", {"rows": 20, "subsets": 4}, marks=pytest.mark.slow),
]


@pytest.fixture
def odd(monkeypatch, clouds):
    for made in (HalfBad, Holes, Nothing):
        monkeypatch.setitem(METHODS, made.name, f"{__name__}:{made.__name__}")
    return clouds


def rows(result):
    return {row[0]: row for row in result.outcome.sections[0].rows}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("experiment", "options"), SMALL)
def test_the_seeds_that_a_method_answered_stay_in_the_table(odd, experiment, options):
    found = odd(experiment, methods="half-bad,holes,nothing,random", seeds=3, **options)
    lines = rows(found)
    assert lines["half-bad"][-1] == "failed with seed 1: ValueError: no luck"
    assert any(lines["half-bad"][1:-1]) and any(lines["holes"][1:-1])
    assert lines["holes"][-1].endswith("answers are no numbers")
    assert lines["nothing"][-1].startswith("failed: none of") and not any(
        cell for cell in lines["nothing"][1:-1] if cell != "0"
    )
    assert "random" in found.outcome.verdict and "half-bad" not in found.outcome.verdict
    assert "nan" not in (found.folder / "tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_summary_of_another_experiment_stops_nothing(clouds, text):
    first = clouds(methods="random")
    (first.folder / "bench.json").write_text(text)
    second = clouds("consistency", methods="random")
    index = (second.folder.parent / "index.html").read_text(encoding="utf-8")
    assert "bench.json is damaged; run this experiment again" in index
    clouds(methods="random")
    assert "is damaged" not in (first.folder.parent / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_damaged_cost_is_named(clouds):
    result = clouds("cost", methods="random", seeds=1, rows=40)
    path = next((result.folder.parent / "answers").glob("cost-random-*.json"))
    for text in ("{", "{}", "[1]", ""):
        path.write_text(text)
        with pytest.raises(
            StorageError, match=r"(?s)a whole answer of a method at .*cost-random.*delete this one"
        ):
            clouds("cost", methods="random", seeds=1, rows=40)


@pytest.mark.slow
def test_cost_takes_the_rows_that_there_are(clouds):
    found = clouds("cost", methods="random", seeds=1)  # 120 rows; four times 100 are wanted
    costs = pd.read_parquet(found.folder / "costs.parquet")
    assert costs["rows"].min() == 27 and costs["rows"].max() == 108
    with pytest.raises(ConfigError, match=r"(?s)at most 110 training rows.*--rows 200"):
        clouds("cost", methods="random", seeds=1, rows=200)


@pytest.fixture
def two_methods():
    """Leave two of the methods; afterwards all are there again, in their order."""
    whole = dict(METHODS)
    for name in whole.keys() - {"random", "own-loss"}:
        del METHODS[name]
    yield
    METHODS.clear()
    METHODS.update(whole)


def test_all_with_others_is_all(clouds, two_methods):
    assert {"random", "own-loss", "out-of-fold-loss"} <= set(
        rows(clouds(methods="random,all", seeds=1, rows=20))
    )
    with pytest.raises(ConfigError, match=r"(?s)did you mean 'all'"):
        clouds(methods="random,al")


def test_a_bank_that_is_a_file_is_named(clouds, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bank").write_text("mine")
    with pytest.raises(StorageError, match=r"(?s)to write .*bank\.json.*got: "):
        clouds("removal", runs=2)
