"""dp-accounting as an oracle: symmetric upper bounds on the profile, so lower bounds on the curve."""

import warnings

import numpy as np
import pytest

from finfluence.tradeoff import Gaussian, Laplace, compose, subsample

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn when imported
    pld = pytest.importorskip(
        "dp_accounting.pld.privacy_loss_distribution",
        reason="dp-accounting is the oracle: install finfluence[oracle]",
    )

EPS = [0.0, 0.1, 0.5, 1.0, 1.5]
GRID = 1e-3


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        (Gaussian(0.5), lambda **k: pld.from_gaussian_mechanism(2.0, **k), 4),
        (Laplace(0.2), lambda **k: pld.from_laplace_mechanism(5.0, **k), 30),
        (
            subsample(Gaussian(1.0), 0.01),
            lambda **k: pld.from_gaussian_mechanism(1.0, sampling_prob=0.01, **k),
            1000,
        ),
    ],
    ids=["gaussian", "laplace", "subsampled"],
)
def test_profiles_enclose_each_other(ours, theirs, count):
    pessimistic, optimistic = (
        theirs(value_discretization_interval=GRID, pessimistic_estimate=side).self_compose(count)
        for side in (True, False)
    )
    low, up = (compose([ours], [count], bound) for bound in ("lower", "upper"))
    # theirs holds for the worse of the two directions
    least, most = (np.maximum(f.delta(EPS), f.inverse().delta(EPS)) for f in (up, low))
    assert np.all(np.asarray(pessimistic.get_delta_for_epsilon(EPS)) >= least - 1e-9)
    assert np.all(np.asarray(optimistic.get_delta_for_epsilon(EPS)) <= most + 1e-9)
