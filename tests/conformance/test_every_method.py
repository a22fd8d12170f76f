"""Every method in the table passes every check."""

import importlib.util

import pytest

from conformance.checks import CHECKS
from conformance.problems import Problem
from finfluence.estimators import METHODS

EXTRAS = {"cleanlab": "cleanlab"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("method", METHODS)
def test_every_method(method, check, problem: Problem) -> None:
    if method in EXTRAS and importlib.util.find_spec(EXTRAS[method]) is None:
        pytest.skip(f"the extra that holds {EXTRAS[method]} is not installed")
    check(method, problem)
