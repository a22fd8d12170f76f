"""A new method costs one file and one line in the table."""

import pytest

import finfluence as fi
from conformance.checks import CHECKS
from conformance.problems import Problem
from finfluence.errors import ConfigError
from finfluence.estimators import METHODS, methods_table


@pytest.fixture
def toy(monkeypatch) -> str:
    monkeypatch.setitem(METHODS, "toy", "conformance.toy:Toy")
    return "toy"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_one_file_and_one_line_conform(toy, check, problem: Problem) -> None:
    check(toy, problem)


def test_it_can_be_asked_for_and_stands_in_the_table(toy, problem: Problem) -> None:
    found = fi.estimate(problem.tape, problem.queries, "toy", power=2)
    assert found.data.score.shape == (13, 1)
    assert (
        "| `toy` | Distance of each row's loss from the mean loss | tape | score | `power` | none |"
        in methods_table()
    )
    with pytest.raises(ConfigError, match=r"a method among 'replay'.*'toy'"):
        fi.estimate(problem.tape, problem.queries, "toi")


def test_it_is_gone_where_it_is_not_named(problem: Problem) -> None:
    assert "toy" not in [m.name for m in fi.methods()] and "`toy`" not in methods_table()
