"""Any method by its name: what is refused, in which words, and what is loaded."""

import subprocess
import sys

import pandas as pd
import pytest

import finfluence as fi
import plain_training as pt
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators import METHODS, AbstractEstimator, methods_table, supporting
from four_parts import assert_parts

QUERY = fi.own_loss([0])


def test_an_unknown_method_is_told_all_names_and_the_nearest():
    tape = fi.train(pt.recipe())
    with pytest.raises(ConfigError) as caught:
        fi.estimate(tape, QUERY, "grad-dto")
    assert_parts(
        caught.value,
        ", ".join(map(repr, METHODS)),
        "'grad-dto'",
        "a mistyped name",
        "did you mean 'grad-dot'?",
    )
    with pytest.raises(ConfigError) as caught:
        fi.estimate(tape, QUERY, "???")
    assert_parts(
        caught.value, "a method among 'replay', 'retrain'", "'???'", "mistyped", "one of the names listed"
    )


def test_an_unknown_option_is_told_what_there_is():
    tape = fi.train(pt.recipe())
    with pytest.raises(ConfigError) as caught:
        fi.estimate(tape, QUERY, "fine", record=9)
    assert_parts(
        caught.value,
        "options of method 'fine': records (Steps recorded, evenly spaced after a burn-in of a tenth of the run); "
        "rows_at_once (Rows evaluated together, fewer where memory asks for it)",
        "'record'", "an option of another method", "did you mean 'records'?",
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        fi.estimate(tape, QUERY, "grad-dot", seed=1)
    assert_parts(
        caught.value, "options of method 'grad-dot': it has none", "'seed'", "mistyped", "leave it out"
    )


def test_an_unsupported_source_is_told_which_methods_work_on_it():
    recipe = pt.recipe()
    with pytest.raises(NotSupportedError) as caught:
        fi.estimate(recipe, QUERY, "own-loss")
    assert_parts(
        caught.value, "a tape for method 'own-loss'", "an object of type Recipe", "reads the steps of one run",
        "make a tape by fi.train(recipe), or record a loop of your own with fi.Tape.record; "
        "on this source work: 'retrain'",
    )  # fmt: skip
    tape = fi.train(recipe)
    with pytest.raises(NotSupportedError) as caught:
        fi.estimate(tape, QUERY, "retrain")
    assert_parts(
        caught.value,
        "a recipe for method 'retrain'",
        "of type Tape",
        "a tape holds one run only",
        "fi.Recipe(…)",
    )
    on_recipes = supporting(recipe)
    assert on_recipes == [m.name for m in fi.methods() if m.needs == "recipe"] and "retrain" in on_recipes
    elsewhere = {*on_recipes, "turn-over"}  # which needs a layer in the model
    assert supporting(tape) == [name for name in METHODS if name not in elsewhere]


def test_adding_rows_is_refused_with_the_methods_that_can():
    with pytest.raises(NotSupportedError) as caught:
        fi.estimate(fi.train(pt.recipe()), QUERY, "fine", candidates=pt.table(2))
    assert_parts(
        caught.value, "what adding rows does", "method 'fine', which estimates removal only", "only some methods",
        "use a method that takes candidates: 'replay'",
    )  # fmt: skip


def test_a_query_that_cannot_be_used_keeps_its_own_words():
    x = pt.table().fields["x"]
    counted = fi.Query(lambda m: (m(x).argmax(1) == 0).double().mean(), name="count")
    with pytest.raises(Exception, match="query 'count' to be differentiable") as caught:
        fi.estimate(fi.train(pt.recipe()), counted, "grad-dot")
    assert "on this source work" not in str(caught.value)


def test_nothing_may_be_removed_whole():
    for method in ("own-loss", "fine", "replay"):
        with pytest.raises(Exception, match="at least one row to be left without subset 'all'"):
            fi.estimate(fi.train(pt.recipe()), QUERY, method, {"all": list(range(12))})


def test_the_methods_are_a_frame_and_a_table():
    frame = pd.DataFrame(fi.methods())
    assert frame["name"].tolist() == list(METHODS)
    assert frame.set_index("name").loc["retrain", "needs"] == "recipe"
    assert frame.set_index("name").loc["replay", "candidates"]
    lines = methods_table().splitlines()
    assert len(lines) == 2 + len(METHODS) and all(line.count(" | ") == 5 for line in [lines[0], *lines[2:]])


def test_a_method_is_loaded_when_it_is_used():
    code = (
        "import sys, finfluence as fi; fi.estimate; "
        "families = [m for m in sys.modules if m.startswith('finfluence.estimators.') and '._' not in m]; "
        "assert not families, families"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_estimator_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        AbstractEstimator()
