"""What the page says in numbers and words is right."""

import math
from itertools import pairwise

import pytest

from finfluence.report import (
    QueryInfo,
    RowEntry,
    column,
    curve,
    effect_sentence,
    fixed,
    magnitude,
    measure,
    number,
    power,
    power_sentence,
    visible,
)

LOSS = QueryInfo(name="held-out loss", unit="nats", sign=-1)
ACCURACY = QueryInfo(name="accuracy", sign=1)


def entry(mu: float, lower: float = math.nan, upper: float = math.nan, effect: float = math.nan) -> RowEntry:
    return RowEntry(row_id="a", query="q", rank=1, mu=mu, lower=lower, upper=upper, effect=effect)


def test_power_is_the_closed_form() -> None:
    assert round(power(1.0, 0.05), 6) == 0.259511
    assert power(-1.0) == power(1.0)
    assert power(0.0, 0.1) == pytest.approx(0.1, abs=1e-12)
    assert power(math.inf) == 1.0
    assert math.isnan(power(math.nan))


def test_power_in_words() -> None:
    assert power_sentence(entry(2.77, 2.0, 3.3), 0.95) == (
        "Seen in one model, its removal would be noticed with probability 0.87 "
        "(95\u00a0% interval 0.64 to 0.95) at 5\u00a0% false alarms."
    )


def test_an_interval_of_mu_across_zero_starts_at_chance() -> None:
    assert "(90\u00a0% interval 0.05 to 0.26)" in power_sentence(entry(-0.5, -1.0, 0.2), 0.9)
    assert magnitude(-1.0, 0.2) == (0.0, 1.0)
    assert magnitude(-3.0, -1.0) == (1.0, 3.0)


def test_power_near_chance_and_near_one() -> None:
    assert power_sentence(entry(0.01), 0.95) == (
        "Seen in one model, its removal would be noticed with probability 0.05 at 5\u00a0% false alarms, "
        "hardly more often than by chance."
    )
    assert "more than 0.99 (the same over the 95\u00a0% interval)" in power_sentence(entry(9, 8, 10), 0.95)
    assert power_sentence(entry(math.nan), 0.95) == (
        "How often its removal would be noticed is not available, because μ is not."
    )


def test_effect_in_words_follows_sign_and_query() -> None:
    assert effect_sentence(entry(-3.42, -4.0, -2.0, -0.0021), LOSS) == (
        "Removing it is expected to lower “held-out loss” by 0.00210 nats, 3.42 times the spread between "
        "training runs: to this query the row is harmful."
    )
    assert effect_sentence(entry(-3.42, -4.0, -2.0), ACCURACY).endswith("to this query the row is helpful.")
    assert effect_sentence(entry(2.0, 1.0, 3.0), LOSS).endswith("to this query the row is helpful.")
    assert effect_sentence(entry(2.0, 1.0, 3.0), ACCURACY).endswith("to this query the row is harmful.")
    assert effect_sentence(entry(0.3, -1.0, 1.0), LOSS).endswith(
        "but the interval of μ includes zero, so even the direction is uncertain."
    )
    assert (
        effect_sentence(entry(math.nan), LOSS) == "What removing it does to “held-out loss” is not available."
    )


def test_curve_is_convex_falls_and_passes_through_the_power() -> None:
    points = curve(1.7)
    assert points[0] == (1.0, 0.0) and points[-1] == (0.0, 1.0)
    assert all(a[0] > b[0] and a[1] < b[1] for a, b in pairwise(points))
    at = min(points, key=lambda p: abs(p[0] - 0.05))
    assert 1 - at[1] == pytest.approx(power(1.7, at[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-1.5, "−1.50"),
        (999.9, "1,000"),
        (1e-9, "1.00e−9"),
        (math.nan, "not available"),
        (-math.inf, "not available"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


def test_fixed_has_no_negative_zero() -> None:
    assert fixed(-0.001) == "0.00"
    assert fixed(-0.006) == "−0.01"


def test_measure_shows_as_many_decimals_as_the_interval_supports() -> None:
    assert measure(0.41234, 0.405, 0.419, "nats") == "0.412 (0.405 to 0.419) nats"
    assert measure(0.5, math.nan, math.nan) == "0.500"
    assert measure(math.nan, 0, 1) == "not available"


def test_columns_of_numbers_share_decimals() -> None:
    assert column([0.985, 0.1, None, 1]) == (["0.985", "0.100", "not available", "1.000"], True)
    assert column(["a", None, True]) == (["a", "not available", "yes"], False)
    assert column([1_200, 3]) == (["1,200", "3"], True)


def test_hidden_characters_show_and_harmless_ones_stay() -> None:
    assert visible("a\u202eb\x07\ud800\u2028\ufeff") == "a⟨U+202E⟩b⟨U+0007⟩⟨U+D800⟩⟨U+2028⟩⟨U+FEFF⟩"
    assert visible("é עברית 👩\u200d🔬\n\tx\r\ny") == "é עברית 👩\u200d🔬\n\tx\ny"
