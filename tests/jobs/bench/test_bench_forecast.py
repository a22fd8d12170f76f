"""How long a method will take, by what a part of its queries takes."""

import time
from typing import ClassVar

import pytest

from finfluence.estimators import METHODS
from finfluence.estimators.first_order import GradientDot
from finfluence.jobs.bench import forecast


class Slow(GradientDot):
    """A method that takes some time for each query."""

    name = "slow"
    asked: ClassVar[list[int]] = []

    def _estimate(self, source, queries, subsets, progress):
        count = sum(len(q.names) for q in queries)
        self.asked.append(count)
        end = time.process_time() + 0.004 * count
        while time.process_time() < end:
            pass
        return super()._estimate(source, queries, subsets, progress)


@pytest.mark.parametrize("fixed", [0.0, 3.0, 40.0, 1000.0])
@pytest.mark.parametrize("block", [1, 64, 10_000])
@pytest.mark.parametrize("queries", [64, 300, 1000])
def test_the_middle_is_within_a_factor_of_two(fixed, block, queries):
    def took(count: int) -> float:
        return fixed + 0.1 * count + 5.0 * -(-count // block)

    truth = took(queries)
    found = forecast(took, queries)
    assert found.tried == queries // 4
    assert 0.5 <= found.middle / truth <= 2.0
    if block != 64:
        assert found.least <= truth * (1 + 1e-9) and truth <= found.most * (1 + 1e-9)


def test_no_more_is_tried_than_tells():
    asked: list[int] = []

    def took(count: int) -> float:
        asked.append(count)
        return 10.0 + count

    assert forecast(took, 160, limit=5.0).least == 20.0  # too long already
    assert forecast(took, 160, limit=400.0).most == 320.0  # not even in proportion
    assert asked == [10, 10]
    assert forecast(took, 160, limit=100.0).tried == 40 and asked == [10, 10, 10, 40]


def test_a_method_that_takes_too_long_is_left_out_with_its_forecast(clouds, monkeypatch):
    monkeypatch.setitem(METHODS, "slow", f"{__name__}:Slow")
    Slow.asked.clear()
    result = clouds(methods="slow,own-loss", seeds=1, rows=64, most=1.0)
    rows = {row[0]: row for row in result.outcome.sections[0].rows}
    assert rows["slow"][-1].startswith("left out: about ") and rows["slow"][-1].endswith(tuple("0123456789"))
    assert "of 64 queries), which is more than 1; include it by --most" in rows["slow"][-1]
    assert rows["own-loss"][-1] == "" and max(Slow.asked) <= 16
    Slow.asked.clear()
    whole = clouds(methods="slow", seeds=2, rows=64, most=1e6)
    assert whole.measured == 2 and sorted(Slow.asked) == [4, 64, 64]  # tried once
