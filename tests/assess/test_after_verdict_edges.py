"""What each assessment and mitigation does at the edge: a table of a clear error, or of the limit that is stated.

Columns: too few rows, one class, constant scores, missing values, nothing in common, zero width, lengths that disagree.
"""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from finfluence import assess, mitigate
from finfluence.cli import app
from finfluence.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
P = RNG.dirichlet([1.0, 1.0], 60)
Y = np.where(RNG.random(60) < 0.8, P.argmax(1), 1 - P.argmax(1))
Q = RNG.dirichlet([1.0, 1.0], 40)
SAME = np.full((60, 2), [0.7, 0.3])
T = RNG.random((40, 6)) < 0.5
OUT = RNG.normal(size=40)
W = RNG.normal(size=(120, 2))
KEPT = RNG.random(120) < 0.5
LOSS = RNG.normal(size=120)
X = RNG.normal(size=(40, 3))
LABELS = np.array(["a", "b"] * 20)
QUICK = mitigate.HeadOptions(epochs=2)
DOMAIN = np.linspace(-1, 1, 9)[:, None]
LAW = assess.DesignLaw(DOMAIN, 1.0)
GRID = np.linspace(-3, 3, 61)
PAIRS = DOMAIN[[0, 2, 4, 6, 8]], np.array([0.1, -0.2, 0.3, 0.0, 0.2])


def log(n=60, times=4, **parts):
    """Return a log without an effect; parts are functions of what stands there."""
    rng = np.random.default_rng(1)
    happened = rng.random((n, times)) < 0.2
    at_risk = np.cumsum(happened, 1) - happened == 0
    values = {
        "events": happened & at_risk,
        "at_risk": at_risk,
        "exposure": rng.poisson(1.0, (n, times)).cumsum(1),
        "history": rng.normal(size=(n, times, 1)),
        "runs": None,
    }
    return assess.EventLog(**(values | {name: change(values[name]) for name, change in parts.items()}))


def spoilt(values, what=np.nan):
    """Return values with one that is `what`."""
    changed = np.array(values, dtype=object if isinstance(what, str) else float)
    changed.flat[0] = what
    return changed


def of_one_run(events):
    events = np.zeros_like(events)
    events[:12, 0] = True
    return events


def feedback(x=PAIRS[0], y=PAIRS[1], chosen=DOMAIN[-1], law=LAW, grid=GRID, level=0.8):
    return assess.feedback_interval(x, y, chosen, law, grid, level=level)


ERRORS = {
    "accuracy: nine labelled rows": (lambda: assess.accuracy(P[:9], Y[:9], Q), "at least ten labelled rows"),
    "accuracy: no unlabelled row": (lambda: assess.accuracy(P, Y, Q[:0]), "target as rows × classes"),
    "accuracy: one class": (lambda: assess.accuracy(P[:, :1], Y, Q[:, :1]), "two classes"),
    "accuracy: NaN": (lambda: assess.accuracy(P, Y, spoilt(Q)), "a model that diverged"),
    "accuracy: labels are missing": (lambda: assess.accuracy(P, spoilt(Y), Q), "names of classes"),
    "accuracy: text": (lambda: assess.accuracy(spoilt(P, "sure"), Y, Q), "source as an array of numbers"),
    "accuracy: lengths": (lambda: assess.accuracy(P, Y[:-1], Q), "for each of 60 rows"),
    "accuracy: other classes": (lambda: assess.accuracy(P, Y, np.full((5, 3), 1 / 3)), "as many classes"),
    "accuracy: level": (lambda: assess.accuracy(P, Y, Q, level=95), "write 0.95"),
    "accuracy: score": (lambda: assess.accuracy(P, Y, Q, score="margin"), "max_confidence"),
    "change: lengths": (lambda: assess.accuracy_change((P, Q), (P, Q[:-1]), Y), "the same rows"),
    "change: NaN": (lambda: assess.accuracy_change((P, Q), (spoilt(P), Q), Y), "a model that diverged"),
    "compare: no version": (lambda: assess.compare_accuracy({}, Y), "no version"),
    "compare: no training": (lambda: assess.compare_accuracy({"a": (P[None][:0], Q[None][:0])}, Y), "as many trainings"),
    "compare: one training, not in a list": (lambda: assess.compare_accuracy({"a": (P, Q)}, Y), "put it in a list"),
    "compare: other trainings": (
        lambda: assess.compare_accuracy({"a": (np.stack([P, P]), Q[None])}, Y), "as many trainings"
    ),
    "compare: ragged": (lambda: assess.compare_accuracy({"a": ([P, P[:-1]], Q[None])}, Y), "lists of several lengths"),
    "compare: NaN": (lambda: assess.compare_accuracy({"a": (spoilt(P)[None], Q[None])}, Y), "a model that diverged"),
    "inclusion: seven runs": (lambda: assess.inclusion(T[:7], OUT[:7]), "at least 8 runs"),
    "inclusion: in every run": (lambda: assess.inclusion(T | (np.arange(6) == 2), OUT), "row 2 was in 40"),
    "inclusion: NaN": (lambda: assess.inclusion(T, spoilt(OUT)), "the first is run 0"),
    "inclusion: NaN in the table": (lambda: assess.inclusion(spoilt(T), OUT), "True and False"),
    "inclusion: text": (lambda: assess.inclusion(T, spoilt(OUT, "high")), "outcome as an array of numbers"),
    "inclusion: lengths": (lambda: assess.inclusion(T, OUT[:-1]), "one outcome a run"),
    "inclusion: names": (lambda: assess.inclusion(T, OUT, names=["a"]), "one name for each of 6 rows"),
    "inclusion: predictions": (lambda: assess.inclusion(T, OUT, predicted=np.ones(5)), "one finite predicted effect"),
    "policy: too few": (lambda: assess.policy_effect(KEPT[:30], LOSS[:30], W[:30]), "at least 20 subjects with and"),
    "policy: all included": (lambda: assess.policy_effect(KEPT | True, LOSS, W), "took nearly everything"),
    "policy: NaN": (lambda: assess.policy_effect(KEPT, LOSS, spoilt(W)), "impute covariates"),
    "policy: text": (lambda: assess.policy_effect(KEPT, LOSS, spoilt(W, "web")), "encode text as numbers"),
    "policy: no covariate": (lambda: assess.policy_effect(KEPT, LOSS, W[:, :0]), "at least one"),
    "policy: lengths": (lambda: assess.policy_effect(KEPT, LOSS[:-1], W), "one value a subject"),
    "exposure: too few subjects": (lambda: assess.exposure(log(12)), "at least 20 subjects"),
    "exposure: too few events": (lambda: assess.exposure(log(events=np.zeros_like)), "0 events"),
    "exposure: no times": (lambda: assess.exposure(log(times=0)), "0 events"),
    "exposure: constant": (lambda: assess.exposure(log(exposure=np.ones_like)), "different orders or subsets"),
    "exposure: NaN": (lambda: assess.exposure(log(exposure=spoilt)), "carry the last value forward"),
    "exposure: lengths": (lambda: assess.exposure(log(history=lambda h: h[:-1])), "subjects × times × numbers"),
    "exposure: runs": (lambda: assess.exposure(log(runs=lambda _: np.arange(5))), "a run for each of 60 subjects"),
    "exposure: few runs": (lambda: assess.exposure(log(runs=lambda _: np.repeat(np.arange(6), 10))), "at least 20 runs"),
    "exposure: more folds than subjects": (lambda: assess.exposure(log(), folds_count=61), "take fewer folds"),
    "exposure: events of one run": (
        lambda: assess.exposure(
            log(240, events=of_one_run, at_risk=np.ones_like, runs=lambda _: np.repeat(np.arange(20), 12))
        ),
        "events in two of them",
    ),
    "event log: NaN": (
        lambda: assess.EventLog.of_outcomes(spoilt(np.zeros((3, 4))), np.zeros((3, 3)), np.zeros((3, 3, 1))),
        "losses or NaN",
    ),
    "event log: one state": (
        lambda: assess.EventLog.of_outcomes(np.zeros((3, 1)), np.zeros((3, 0)), np.zeros((3, 0, 1))), "two states"
    ),
    "event log: one subject": (lambda: assess.EventLog.of_outcomes([True, False], [0.0], [[0.0]]), "without its axis"),
    "feedback: one pair": (lambda: feedback(PAIRS[0][:1], PAIRS[1][:1]), "at least two finite points"),
    "feedback: NaN": (lambda: feedback(y=spoilt(PAIRS[1])), "leave out the diverged"),
    "feedback: lengths": (lambda: feedback(y=PAIRS[1][:-1]), "n outcomes"),
    "feedback: no domain": (lambda: feedback(law=assess.DesignLaw(DOMAIN[:0], 1.0)), "a domain m × k"),
    "feedback: strength": (lambda: feedback(law=assess.DesignLaw(DOMAIN, np.nan)), "a finite strength"),
    "feedback: ridge": (lambda: feedback(law=assess.DesignLaw(DOMAIN, 1.0, ridge=np.nan)), "ridge and length above 0"),
    "feedback: no grid": (lambda: feedback(grid=[]), "a flat grid"),
    "feedback: grid beside": (lambda: feedback(grid=[50.0, 60.0]), "widen the grid"),
    "split: none": (lambda: assess.split_interval([], [], 0.0, 1.0), "for each calibrating point"),
    "split: NaN": (lambda: assess.split_interval([0.1, np.nan], [1, 1], 0.0, 1.0), "subtract the largest exponent"),
    "split: lengths": (lambda: assess.split_interval([0.1], [1, 1], 0.0, 1.0), "for each calibrating point"),
    "split: no weight": (lambda: assess.split_interval([0.1], [0], 0.0, 0.0), "at least 0"),
    "nmtune: three rows": (lambda: mitigate.nmtune(X[:3], LABELS[:3]), "at least four rows"),
    "nmtune: one class": (lambda: mitigate.nmtune(X, ["a"] * 40), "at least two classes"),
    "nmtune: NaN": (lambda: mitigate.nmtune(spoilt(X), LABELS), "the first is row 0"),
    "nmtune: rows that are all alike": (lambda: mitigate.nmtune(np.ones((40, 3)), LABELS), "the wrong layer's output"),
    "nmtune: text": (lambda: mitigate.nmtune(spoilt(X, "x"), LABELS), "features as an array of numbers"),
    "nmtune: a missing label": (lambda: mitigate.nmtune(X, spoilt(np.arange(40) % 2)), "rows that nobody labelled"),
    "nmtune: None among labels": (lambda: mitigate.nmtune(X, [None, *LABELS[1:]]), "1 of 40 missing"),
    "nmtune: mixed labels": (
        lambda: mitigate.nmtune(X, np.array([1, *LABELS[1:]], dtype=object)), "numbers mixed with text"
    ),
    "nmtune: lengths": (lambda: mitigate.nmtune(X, LABELS[:-1]), "one label for each of 40 rows"),
    "nmtune: weights": (lambda: mitigate.nmtune(X, LABELS, weights=np.zeros(40)), "not all zero"),
    "heads: unknown class": (
        lambda: mitigate.compare_heads((X, LABELS), (X, np.full(40, "z")), options=QUICK), "split each class"
    ),
    "heads: held-out lengths": (
        lambda: mitigate.compare_heads((X, LABELS), (X, LABELS[:-1]), options=QUICK), "each of 40 held-out rows"
    ),
    "heads: held-out NaN": (
        lambda: mitigate.compare_heads((X, LABELS), (spoilt(X), LABELS), options=QUICK), "finite held-out features"
    ),
    "heads: no held-out row": (
        lambda: mitigate.compare_heads((X, LABELS), (X[:0], LABELS[:0]), options=QUICK), "held-out features as rows"
    ),
    "spectrum: constant zero": (lambda: mitigate.spectrum(np.zeros((3, 2))), "an encoder that is dead"),
    "spectrum: NaN": (lambda: mitigate.spectrum(spoilt(X)), "encode them in float32"),
    "spectrum: one row alone": (lambda: mitigate.spectrum(X[0]), "one row alone"),
    "reweight: scores": (lambda: mitigate.reweight([0.5, 1.5]), "scores or effects"),
    "reweight: text": (lambda: mitigate.reweight(["half"]), "chances as an array of numbers"),
    "terms: one row": (lambda: mitigate.terms(torch.ones(1, 3), torch.ones(1, 3)), "a batch of one row"),
    "terms: shapes": (lambda: mitigate.terms(torch.ones(4, 3), torch.ones(4, 2)), "changes the number of dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_was_expected_and_what_to_do(case):
    call, words = ERRORS[case]
    with pytest.raises((DataError, ConfigError)) as told:
        call()
    text = str(told.value)
    assert words in text
    for part in ("expected ", "got: ", "likely cause: ", "next step: "):
        assert part in text


def test_scores_that_are_all_alike_give_the_labelled_rows_accuracy():
    found = assess.accuracy(SAME, Y, SAME[:20])
    assert found.estimate == pytest.approx(found.source_accuracy)
    assert found.lower < found.estimate < found.upper


def test_where_every_labelled_row_is_right_the_width_is_that_of_so_many_rows_and_said():
    found = assess.accuracy(P, P.argmax(1), Q)
    assert (found.lower, found.upper) == (pytest.approx(0.912, abs=1e-3), 1.0)  # Wilson, 40 rows
    assert any("the threshold is not determined" in f for f in found.findings)


def test_one_row_without_a_label_says_next_to_nothing():
    found = assess.accuracy(P, Y, Q[:1])
    assert found.upper - found.lower > 0.75
    compared = assess.compare_accuracy({"a": (np.stack([P, P]), np.stack([Q[:1], Q[:1]]))}, Y)
    assert all(i.upper - i.lower > 0.75 for i in compared.accuracy["a"].values())


def test_rows_less_sure_than_all_labelled_ones_are_said():
    sure = np.where(P > 0.5, 0.95, 0.05)
    found = assess.accuracy(sure, Y, np.full((200, 2), [0.55, 0.45]), calibrated=False)
    assert any("less sure than of any labelled row" in s for s in found.signs)


def test_labels_of_one_class_are_no_obstacle():
    found = assess.accuracy(P, np.zeros(60, int), Q)
    assert found.source_accuracy == pytest.approx((P[:, 0] > 0.5).mean())
    assert 0 <= found.lower <= found.estimate <= found.upper <= 1


def test_outcomes_that_are_all_alike_are_said():
    by_chance = assess.inclusion(T, np.full(40, 3.0))
    np.testing.assert_array_equal(by_chance.upper - by_chance.lower, 0.0)
    by_policy = assess.policy_effect(KEPT, np.full(120, 3.0), W)
    assert by_policy.effect == pytest.approx(0.0, abs=1e-9)
    for found in (by_chance, by_policy):
        assert any("had the same outcome" in f for f in found.findings)


def test_one_row_and_covariates_without_variation_are_no_obstacle():
    assert np.isfinite(assess.inclusion(T[:, :1], OUT).effect).all()
    rng = np.random.default_rng(2)
    for n in (120, 600):  # beyond 500 subjects the models are others
        kept = rng.random(n) < 0.5
        found = assess.policy_effect(kept, kept + 0.1 * rng.normal(size=n), np.ones((n, 1)))
        assert found.lower < 1.0 < found.upper


def test_subjects_with_nothing_to_compare_with_are_said():
    rng = np.random.default_rng(3)
    quality = rng.normal(size=(200, 1))
    found = assess.policy_effect(quality[:, 0] > 0, quality[:, 0], quality, propensity="covariates")
    assert any("nothing to compare with" in f for f in found.findings)


def test_an_empty_history_is_none():
    found = assess.exposure(log(history=lambda h: h[..., :0]))
    assert 0 < found.p <= 1 and found.band > 0


def test_an_event_in_two_runs_is_enough_to_fit():
    def in_two(events):
        events = np.zeros_like(events)
        events[:6, 0] = events[12:18, 1] = True
        return events

    def until(_):
        events = in_two(np.zeros((240, 4), bool))
        return np.cumsum(events, 1) - events == 0

    found = assess.exposure(
        log(240, events=in_two, at_risk=until, runs=lambda _: np.repeat(np.arange(20), 12))
    )
    assert 0 < found.p <= 1


def test_outcomes_that_are_all_alike_leave_one_value_and_a_far_point_none_out():
    alike = feedback(y=np.full(5, 0.5), grid=np.linspace(-1, 1, 21), law=assess.DesignLaw(DOMAIN, 0.0))
    np.testing.assert_allclose(alike.values, [0.5])
    sure = feedback(law=assess.DesignLaw(DOMAIN, 200.0))
    assert np.isinf([sure.lower, sure.upper]).all()
    assert assess.split_interval([0.0] * 9, [1.0] * 9, 2.0, 1.0, level=0.8).upper == 2.0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "y": np.full(40, "a")}, "classes"),
        ({"x": spoilt(X), "y": LABELS}, "finite"),
        ({"x": X, "y": LABELS[:-1]}, "one row per sample"),
        ({"x": X[:3], "y": LABELS[:3]}, "rows"),
    ],
)
def test_the_command_says_so_too(tmp_path, arrays, words):
    np.savez(tmp_path / "features.npz", **arrays)
    shown = CliRunner().invoke(
        app, ["mitigate", str(tmp_path / "features.npz"), "--out", str(tmp_path / "heads")]
    )
    text = " ".join(shown.output.split())
    assert shown.exit_code == 2 and words in text and "next step" in text
