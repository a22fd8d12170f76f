import pytest

from conformance.problems import Problem, make_problem


@pytest.fixture(scope="session")
def problem() -> Problem:
    return make_problem()
