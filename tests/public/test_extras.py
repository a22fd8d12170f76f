"""A library of an extra that is not there: which one, what it is for, and how to get it."""

import sys

import numpy as np
import pytest

import finfluence as fi
from finfluence.assess import policy_effect
from finfluence.ensemble import RunSpec, Workers, train_many
from finfluence.errors import ConfigError
from finfluence.labels import out_of_fold
from four_parts import assert_parts
from small_recipes import classifier, held_out

X = np.arange(40.0)[:, None] % 7
Y = np.arange(40) % 2


@pytest.mark.parametrize(
    ("module", "call", "purpose", "next_step"),
    [
        (
            "sklearn.ensemble",
            lambda: out_of_fold(X, Y),
            "the library 'sklearn', which judges labels",
            "pip install 'finfluence[data]'",
        ),
        (
            "sklearn.linear_model",
            lambda: policy_effect(Y, X[:, 0], X),
            "the library 'sklearn', which adjusts for covariates",
            "pip install 'finfluence[data]'",
        ),
        (
            "joblib",
            lambda: train_many(classifier(), [RunSpec(0, 0)], held_out(), Workers("joblib")),
            "the library 'joblib', which trains in several processes",
            "pip install 'finfluence[parallel]', or pass executor='serial'",
        ),
        (
            "sklearn.datasets",
            lambda: fi.scan("digits"),
            "the library 'sklearn', which holds the digits",
            "pip install 'finfluence[data]'",
        ),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    monkeypatch, module, call, purpose, next_step
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        call()
    assert_parts(caught.value, purpose, "it cannot be imported (import of", "without its extra", next_step)
