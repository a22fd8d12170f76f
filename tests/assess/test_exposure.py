"""Does exposure drive the event: exact numbers, level without an effect, power with one."""

import numpy as np
import pytest

from finfluence.assess import EventLog, exposure, local_covariance, sup_of_brownian_motion
from finfluence.errors import ConfigError, DataError


def log(seed: int, strength: float = 0.0, n: int = 300, times: int = 8) -> EventLog:
    """Subjects whose history drives both their exposure and their events."""
    rng = np.random.default_rng(seed)
    history = rng.normal(size=(n, times)).cumsum(1) / 2
    seen = rng.poisson(np.exp(0.5 * np.clip(history, -2, 2))).cumsum(1)
    hazard = np.clip(0.08 * np.exp(0.5 * history) + strength * seen, 0, 0.9)
    happened = rng.random((n, times)) < hazard
    at_risk = np.cumsum(happened, 1) - happened == 0
    return EventLog(happened & at_risk, at_risk, seen, history[..., None])


def test_the_toy_has_the_values_worked_out_by_hand():
    residual = np.array([[1, 0.5, 1, 0], [0, 1, 0, 1], [1, 1, -1, 0]])
    events = np.zeros((3, 4), bool)
    events[0, 1] = events[2, 2] = True
    at_risk = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
    gamma, variance = local_covariance(events, at_risk, residual, np.full((3, 4), 0.8 / 4))
    np.testing.assert_allclose(gamma, [-0.133333, -0.133333, -0.4, -0.466667], atol=1e-6)
    np.testing.assert_allclose(variance, [0, 0.083333, 0.416667, 0.416667], atol=1e-6)
    statistic = np.sqrt(3) * np.abs(gamma).max() / np.sqrt(variance[-1])
    assert statistic == pytest.approx(1.252198, abs=1e-6)
    assert 1 - sup_of_brownian_motion(statistic) == pytest.approx(0.42065, abs=1e-5)


@pytest.mark.parametrize(
    ("x", "value"), [(1.0, 0.370777), (2.0, 0.909), (1.959964, 0.9), (2.241403, 0.95), (2.807034, 0.99)]
)
def test_the_law_of_the_largest_deviation(x, value):
    assert sup_of_brownian_motion(x) == pytest.approx(value, abs=1e-6)


@pytest.mark.slow
def test_nothing_is_found_where_the_history_explains_all():
    assert np.mean([exposure(log(s)).p < 0.1 for s in range(20)]) <= 0.25


def test_a_planted_effect_is_found_and_its_direction_told():
    found = [exposure(log(s, strength=0.03)) for s in range(6)]
    assert sum(f.p < 0.05 for f in found) >= 5
    assert "brings the event forward" in str(found[0])
    assert all(np.abs(f.gamma).max() > f.band for f in found if f.p < 0.04)
    assert all(f.gamma.shape == (8,) and (f.p_limit > 0.5 * f.p or f.p < 0.001) for f in found)


@pytest.mark.slow
def test_without_the_history_the_test_is_fooled():
    def blind(seed):
        known = log(seed)
        return exposure(
            EventLog(known.events, known.at_risk, known.exposure, np.zeros((*known.events.shape, 1)))
        )

    assert np.mean([blind(s).p < 0.05 for s in range(6)]) > 0.8


def test_the_seed_is_of_the_folds():
    first, again, other = (exposure(log(3), seed=s).statistic for s in (0, 0, 1))
    assert first == again != other


def changed(**parts):
    known = log(4)
    values = {k: getattr(known, k) for k in ("events", "at_risk", "exposure", "history")}
    return EventLog(**(values | {k: f(values[k]) for k, f in parts.items()}))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: changed(history=lambda h: h[..., 0]), r"history\[..., None\]"),
        (lambda: changed(exposure=lambda x: x.T), "times before subjects"),
        (lambda: changed(exposure=lambda x: x * np.nan), "carry the last value forward"),
        (lambda: changed(events=lambda e: e * 3), "counts > 0"),
        (lambda: changed(at_risk=lambda r: np.zeros_like(r)), "up to and at the event"),
        (lambda: changed(events=lambda e: np.zeros_like(e)), "0 events"),
        (lambda: changed(exposure=lambda x: np.zeros_like(x) + np.arange(8)), "different orders or subsets"),
    ],
)
def test_bad_logs_are_told(bad, words):
    with pytest.raises(DataError, match=words):
        exposure(bad())


def test_an_exposure_that_the_history_holds_leaves_nothing():
    known = log(5)
    same = np.stack([known.exposure, known.exposure**2], 2)
    found = exposure(EventLog(known.events, known.at_risk, known.exposure, same))
    assert found.p > 0.01 and np.abs(found.gamma).max() < 1e-2


def test_first_well_and_first_not_well_any_more():
    good = np.array([[0, 1, 1, 0, 0, 1], [1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], bool)
    nothing = np.zeros((3, 5)), np.zeros((3, 5, 1))
    learned = EventLog.of_outcomes(good, *nothing)
    np.testing.assert_array_equal(learned.events, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(learned.at_risk, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    forgotten = EventLog.of_outcomes(good, *nothing, event="forgotten")
    np.testing.assert_array_equal(forgotten.events, [[0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(forgotten.at_risk, [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    with pytest.raises(ConfigError, match="losses < bound"):
        EventLog.of_outcomes(good, *nothing, event="right")


def test_one_fold_is_told():
    with pytest.raises(ConfigError, match="at least two folds"):
        exposure(log(6), folds_count=1)
